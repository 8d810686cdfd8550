"""What the daemon knows, kept for whoever asks: the web server and the metrics read it, passes and the source write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from reconciler.model import DaemonStatus, DatabaseStatus, EnvironmentStatus, Problem, SourceStatus

Key = tuple[str, str]
"""Environment and database."""


class Board:
    """Implements `reconciler.model.StatusView`. A cache only: nothing is decided by what stands here.

    Args:
        source: the repository that is followed.
        started_at: when the daemon was started.
        resync_interval: seconds.
        queue: returns depth, oldest, workers and busy workers of the queue.
    """

    def __init__(
        self,
        source: SourceStatus,
        *,
        started_at: datetime,
        resync_interval: float,
        queue: Callable[[], tuple[int, datetime | None, int, int]],
    ) -> None:
        self.source = source
        self.selection: Problem | None = None
        """Why not everything is followed that the daemon was told to follow."""
        self._started_at = started_at
        self._resync_interval = resync_interval
        self._queue = queue
        self._environments: dict[str, EnvironmentStatus] = {}
        self._databases: dict[Key, DatabaseStatus] = {}
        self._attempted: set[Key] = set()
        self._read = False

    def declare(self, environments: dict[str, EnvironmentStatus]) -> None:
        """Manifests were read: these are the environments, their databases in order (statuses are kept from before)."""
        self._read = True
        self._environments = environments
        keys = {
            (name, database.database) for name, found in environments.items() for database in found.databases
        }
        self._databases = {key: status for key, status in self._databases.items() if key in keys}
        for name, found in environments.items():
            for database in found.databases:
                self._databases.setdefault((name, database.database), database)
        self._attempted &= keys

    def get(self, key: Key) -> DatabaseStatus | None:
        """What is known of one database."""
        return self._databases.get(key)

    def put(self, key: Key, status: DatabaseStatus) -> None:
        """Something is known anew of a database that is still declared."""
        if key in self._databases:
            self._databases[key] = status

    def attempted(self, key: Key) -> None:
        """A pass over this database has ended, well or not."""
        self._attempted.add(key)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What stands against the whole daemon."""
        return tuple(problem for problem in (self.source.problem, self.selection) if problem is not None)

    def snapshot(self) -> DaemonStatus:
        """One immutable, consistent reading."""
        missing = sorted(set(self._databases) - self._attempted)
        because = ""
        if not self._read:
            because = (
                f"no manifest was read yet: {self.source.problem.message}"
                if self.source.problem
                else "no manifest was read yet"
            )
        elif self.selection is not None:
            because = self.selection.message
        elif missing:
            because = "not yet attempted: " + ", ".join("/".join(key) for key in missing[:10])
        depth, oldest, workers, busy = self._queue()
        return DaemonStatus(
            source=self.source,
            environments=tuple(
                replace(
                    found, databases=tuple(self._databases[name, one.database] for one in found.databases)
                )
                for name, found in self._environments.items()
            ),
            problems=self.problems,
            ready=not because,
            not_ready_because=because,
            started_at=self._started_at,
            queue_depth=depth,
            queue_oldest=oldest,
            workers=workers,
            workers_busy=busy,
            resync_interval=self._resync_interval,
        )
