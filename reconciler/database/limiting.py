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
    def one_more(self, keep_free: int) -> Iterator[None]:
        """What happens inside opens a connection.

        Args:
            keep_free: so many must be left afterwards for what matters more.

        Raises:
            ProblemError: `ConnectionFailed`: there are as many as there may be.
        """
        busy = self._opening + sum(not each.closed for each in self._open)
        if busy + 1 + keep_free > self.most:
            raise ProblemError(
                Problem(
                    reason=Reason.CONNECTION_FAILED,
                    message=f"DB_MAX_CONNS is {self.most}, and {'that one connection is' if self.most == 1 else 'those connections are'} "
                    "taken or kept for what matters more",
                    remedy="raise DB_MAX_CONNS to 3: one connection works, one watches long migrations, and one renews a lease "
                    "where the lock is one",
                )
            )
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
