"""Holding a migration between two of its statements, or within one, from outside."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

import psycopg

from tests.faults.scenario import GATE_CLASS, Gate

_PAUSE = 0.003


class ShutGate:
    """A gate that is shut. Use it as a context manager; `open` lets pass who waits.

    Args:
        dsn: of the database, past any proxy.
        gate: which.
    """

    def __init__(self, dsn: str, gate: Gate) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._blocker: psycopg.Connection[tuple[object, ...]] | None = None
        self._dsn = dsn
        self._number = gate.number

    def __enter__(self) -> ShutGate:
        # somebody killed a moment ago may still be passing
        self._connection.execute("SET lock_timeout = '30s'")
        self._connection.execute("SELECT pg_advisory_lock(%s, %s)", [GATE_CLASS, self._number])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self._connection.close()

    def reached(self) -> int | None:
        """The process id of the backend that waits at the gate, None while nobody does."""
        row = self._connection.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = %s AND objid = %s "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [GATE_CLASS, self._number],
        ).fetchone()
        return int(row[0]) if row else None

    def pass_into_concurrently(self, patience: float = 10.0) -> int | None:
        """Let the next statement, a concurrent one, begin and keep it from ending. Returns its backend, None if there is none.

        It waits for a transaction that has written to `accounts`, the one table that scenarios do this to.
        """
        self._blocker = psycopg.connect(self._dsn)
        self._blocker.execute("LOCK TABLE accounts IN ROW EXCLUSIVE MODE")
        self._connection.execute("SELECT pg_advisory_unlock_all()")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            row = self._connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler' "
                "AND state = 'active' AND wait_event_type = 'Lock' AND query ILIKE '%concurrently%'"
            ).fetchone()
            if row is not None:
                return int(row[0])
            time.sleep(_PAUSE)
        return None

    def open(self) -> None:
        """Let everybody pass. A server that has crashed has done so itself."""
        with contextlib.suppress(psycopg.OperationalError):
            self._connection.execute("SELECT pg_advisory_unlock_all()")
        if self._blocker is not None:
            self._blocker.close()
