"""A process that uses the embedded server, for tests: prints a line of JSON when it has it, and lets go at end of input.

python -m tests.integration.embedded_process FOLDER [--database NAME] [--uid N] [--no-user-namespaces]
"""

from __future__ import annotations

import argparse
import asyncio

# the interpreter may be out of reach once privileges are dropped, so what is imported late is imported now
import concurrent.futures.thread
import glob
import importlib.util
import json
import locale
import os
import shutil
import sys
import tempfile
from pathlib import Path

from reconciler.embedded import EmbeddedServer, psql_command
from reconciler.model import ProblemError

_IMPORTED_EARLY = (concurrent.futures.thread, glob, importlib.util, locale, shutil, tempfile)


async def use(folder: Path, database: str, *, user_namespaces: bool) -> int:
    server = EmbeddedServer(folder, user_namespaces=user_namespaces)
    try:
        try:
            dsn = await server.dsn(database)
        except ProblemError as error:
            problem = error.problem
            answer = {"reason": problem.reason, "message": problem.message, "remedy": problem.remedy}
            print(json.dumps({**answer, "detail": problem.detail}), flush=True)
            return 1
        print(json.dumps({"dsn": dsn, "psql": psql_command(dsn)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        return 0
    finally:
        await server.stop()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", default="dev")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--no-user-namespaces", action="store_true")
    options = parser.parse_args()
    if options.uid is not None:
        os.setgroups([])
        os.setgid(options.uid)
        os.setuid(options.uid)
        os.environ["HOME"] = str(options.folder.parent)
        os.environ.pop("XDG_RUNTIME_DIR", None)
    return asyncio.run(
        use(options.folder, options.database, user_namespaces=not options.no_user_namespaces), debug=False
    )


if __name__ == "__main__":
    sys.exit(main())
