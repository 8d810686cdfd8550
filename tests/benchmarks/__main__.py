"""`python -m tests.benchmarks`: runs the benchmarks and prints a table of ratios."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from tests.benchmarks import applying, commands, daemon, journalling, passes, reading, splitting
from tests.benchmarks.context import Context, Sizes
from tests.benchmarks.installed import Installed
from tests.benchmarks.measuring import Row, table
from tests.benchmarks.server import BenchmarkServer

BENCHMARKS: dict[str, Callable[[Context], list[Row]]] = {
    "applying": applying.applying,
    "rolling-back": applying.rolling_back,
    "other-tools": applying.other_tools,
    "commands": commands.commands,
    "memory": commands.memory,
    "commit-to-applied": daemon.commit_to_applied,
    "journalling": journalling.journalling,
    "passes": passes.passes,
    "reading": reading.reading,
    "splitting": splitting.splitting,
    "idle": daemon.idle,
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--runs", type=int, default=5, help="how often the long measurements are taken")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave other tools out, and the network alone"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path(tempfile.gettempdir()) / "reconciler-benchmark-peers",
        help="where other tools are installed and kept",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reconciler-bench-") as folder:
        # the server runs under another account when we are root
        os.chmod(folder, 0o755)
        rows = run(
            Path(folder),
            arguments.only or list(BENCHMARKS),
            arguments.runs,
            Sizes(),
            None if arguments.no_peers else arguments.peers,
        )
    print(table(rows))


def run(folder: Path, names: list[str], runs: int, sizes: Sizes, peers: Path | None) -> list[Row]:
    """Run the benchmarks `names` and return their lines."""
    rows: list[Row] = []
    say(f"installing reconciler into {folder}")
    installed = Installed.fresh(folder)
    with BenchmarkServer(folder) as server:
        say(
            f"PostgreSQL {server.version}, fsync on; {os.cpu_count()} cores; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        )
        context = Context(
            server=server, installed=installed, folder=folder, runs=runs, sizes=sizes, peers=peers
        )
        for name in names:
            began = perf_counter()
            found = BENCHMARKS[name](context)
            say(f"{name}: {perf_counter() - began:.0f} s")
            for row in found:
                say("    " + " | ".join(row.cells))
            rows += found
    return rows


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
