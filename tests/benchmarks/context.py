"""What every benchmark is given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.installed import Installed
from tests.benchmarks.server import BenchmarkServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything; the issue's figures by default. A test of the harness itself takes tiny ones."""

    migrations: int = 1000
    downs: int = 100
    commits: int = 15
    remote_commits: int = 7
    databases: int = 200
    history: int = 5000
    passes: int = 40
    files: int = 5000
    revisions: int = 15
    idle_databases: int = 20
    idle_seconds: float = 30.0
    commands: int = 15
    splits: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a benchmark works with.

    Args:
        server: the PostgreSQL server.
        installed: reconciler as users have it.
        folder: for files.
        runs: how often the long measurements are taken.
        sizes: how much of everything.
        peers: where other tools are installed and kept; None leaves them out.
    """

    server: BenchmarkServer
    installed: Installed
    folder: Path
    runs: int
    sizes: Sizes = field(default_factory=Sizes)
    peers: Path | None = None
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def new_folder(self, name: str) -> Path:
        """A path that does not exist yet."""
        return self.folder / f"{name}-{next(self._numbers)}"
