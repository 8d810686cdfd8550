"""How many connections one database gets from this process at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from reconciler.model import Problem, ProblemError, Reason

if TYPE_CHECKING:
    import psycopg


class ConnectionLimit:
    """The connections of one database, never more than `most` at once. It is told of each, and sees when they are closed.

    Args:
        most: at least 1.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: WeakSet[psycopg.AsyncConnection[Any]] = WeakSet()
        self._opening = 0

    def add(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Count a connection for as long as it is open."""
        self._open.add(connection)

    @contextmanager
    def one_more(self, needs: int) -> Iterator[None]:
        """What happens inside opens a connection.

        Args:
            needs: it is for something that takes a limit of at least this, so that what matters more never lacks a connection.

        Raises:
            ProblemError: `ConnectionFailed`: there are as many as there may be.
        """
        busy = self._opening + sum(not each.closed for each in self._open)
        if self.most < needs or busy >= self.most:
            raise ProblemError(_no_more(self.most, max(needs, busy + 1)))
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1


def _no_more(most: int, needed: int) -> Problem:
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"DB_MAX_CONNS allows {most} connection{'s' * (most > 1)} to a database at once, and this takes {needed}",
        remedy=f"let DB_MAX_CONNS be at least {needed}: one connection works, one more renews a lease where the lock is one, "
        "and one more watches what takes long",
    )
