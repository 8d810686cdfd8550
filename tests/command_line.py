"""Running the command line in tests: in this process where it is fast, in a process of its own where that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import run
from tests.canaries import WATCH, planted
from tests.git import Repository, git_environment

OUR_VARIABLES = (
    "DSN",
    "CA",
    "DB_DRIVER",
    "DB_MAX_CONNS",
    "DB_TIMEOUT",
    "ORDERS_DSN",
    "BILLING_DSN",
    "NO_COLOR",
)


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it wrote."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document it should be."""
        return json.loads(self.out)


class CommandLine:
    """Runs `reconciler` in this process, in a folder of its own, without the variables of who runs the tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in OUR_VARIABLES:
            monkeypatch.delenv(name, raising=False)

    def enter(self, folder: Path) -> None:
        """Go to a folder."""
        self._monkeypatch.chdir(folder)

    def set(self, **variables: str) -> None:
        """Set environment variables; a connection string gets a canary for a password."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, planted(value))

    def __call__(self, *arguments: str) -> Answer:
        """Run one command."""
        self._capsys.readouterr()
        code = run(arguments)
        captured = self._capsys.readouterr()
        WATCH.see("output", captured.out)
        WATCH.see("output", captured.err)
        return Answer(int(code), captured.out, captured.err)


def start(*arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start `reconciler` in a process of its own; connection strings in its variables get a canary for a password."""
    environment = {name: value for name, value in git_environment().items() if name not in OUR_VARIABLES}
    return subprocess.Popen(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=folder,
        env={**environment, **_planted(variables)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def execute(*arguments: str, folder: Path, **variables: str) -> Answer:
    """Run `reconciler` in a process of its own."""
    with start(*arguments, folder=folder, **variables) as process:
        out, err = process.communicate(timeout=60)
    WATCH.see("output", out)
    WATCH.see("output", err)
    return Answer(process.returncode, out, err)


def execute_on_terminal(
    *arguments: str,
    folder: Path,
    answer: str = "",
    ahead: str = "",
    asked_for: Callable[[int], object] = lambda pid: None,
    **variables: str,
) -> Answer:
    """Run `reconciler` at a terminal; what it wrote to both streams is in `out`.

    Args:
        arguments: of the command line.
        folder: its working directory.
        answer: what to type once it asks.
        ahead: what to type before it has even started.
        asked_for: called with its process id once it asks, before the answer is typed.
        variables: of its environment.
    """
    import pty

    master, slave = pty.openpty()
    os.write(master, ahead.encode())
    environment = {**git_environment(), "TERM": "xterm-256color", **_planted(variables)}
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=folder,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        written, asked = b"", False
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                # Linux says EIO when the last one who could write has closed it
                break
            if not chunk:
                break
            written += chunk
            if b"[y/N]" in written and not asked:
                asked = True
                WATCH.see_titles(process.pid)
                asked_for(process.pid)
                os.write(master, answer.encode())
    os.close(master)
    WATCH.see("output", written.decode())
    return Answer(process.returncode, written.decode().replace("\r\n", "\n"), "")


def _planted(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: planted(value) for name, value in variables.items()}


def manifest(target: int, *, environment: str = "ORDERS_DSN", more: str = "") -> str:
    """A manifest with one database."""
    return f"target_version: {target}\ndatabase: {{dsn: {{env: {environment}}}}}\n{more}"


def migration(up: str, down: str = "SELECT 1;") -> str:
    """A migration file."""
    return f"-- UP MIGRATION\n{up}\n-- DOWN MIGRATION\n{down}\n"


def table(name: str) -> str:
    """A migration that makes a table and drops it again."""
    return migration(f"CREATE TABLE {name} (id int);", f"DROP TABLE {name};")


def three_tables() -> dict[str, str | bytes | None]:
    """Three migration files."""
    return {
        "migrations/00001_create_a.sql": table("a"),
        "migrations/00002_create_b.sql": table("b"),
        "migrations/00003_create_c.sql": table("c"),
    }


def commit(repository: Repository, files: dict[str, str | bytes | None]) -> None:
    """Commit files."""
    repository.commit("Change", files)
