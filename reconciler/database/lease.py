"""The lease: a lock in a row, for servers without advisory locks and for those behind a pooler.

It runs out by the server's clock unless it is renewed, on a connection of its own. Every write that belongs to it is fenced, so
whoever lost it cannot write; and it is not taken over while work of the one who lost it still goes on in the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.database.connecting import ConnectionSettings
from reconciler.database.outcome import lock_lost
from reconciler.database.reading import ADVISORY_KEY
from reconciler.database.session import Session
from reconciler.model import ProblemError

if TYPE_CHECKING:
    from reconciler.database.queries import Literal

MARK = "/* reconciler at work */ "
"""Stands before a statement that runs outside any transaction under a lease: it is found by it among what the server runs."""

_RENEWALS = 4
"""In the time that a lease lasts."""
_AFTER_FAILURE = 1.0
"""Seconds until a renewal that failed is tried again."""
_LAST_WORD = 5.0
"""Seconds that giving back a lease may take of which nobody knows whether it was ours."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def passed() -> float:
    """Seconds that have passed since some moment, as the server counts them too: nobody sets this clock, and while this machine
    sleeps it goes on."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """A lease that is ours, renewed until it is closed.

    Args:
        settings: how to connect, asked anew for every connection.
        owner: what the row says of us, of this one attempt.
        fence: what was counted up when we took it.
        seconds: how long it lasts.
        taken_at: when the lease was asked for, by the clock of `passed`.
    """

    def __init__(
        self,
        settings: Callable[[], Awaitable[ConnectionSettings]],
        owner: str,
        fence: int,
        seconds: float,
        taken_at: float,
    ) -> None:
        self._settings = settings
        self._ours: dict[str, Literal] = {"owner": owner, "fence": fence}
        self._seconds = seconds
        self._confirmed_at = taken_at
        self._lost = False
        self._session: Session | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Connect, and renew from now on.

        Raises:
            ProblemError: there is no second connection to be had.
        """
        await self._renew()
        self._renewing = asyncio.get_running_loop().create_task(self._renew_for_ever())

    def confirm(self) -> None:
        """Make sure, before anything is sent, that the lease is still ours.

        Raises:
            ProblemError: `LockLost`: somebody took it, or it was not renewed in time.
        """
        if self._lost or passed() - self._confirmed_at > self._seconds * (1 - 1 / _RENEWALS):
            raise ProblemError(lock_lost())

    async def close(self, *, release: bool) -> None:
        """Renew no more; never fails.

        Args:
            release: also give the lease back, which its own session could not do.
        """
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None
        if self._session is not None:
            if release:
                with contextlib.suppress(ProblemError):
                    await self._session.transact(
                        self._session.queries("release_lock_row", **self._ours), doing="releasing the lock"
                    )
            await self._session.close()
            self._session = None

    async def _renew_for_ever(self) -> None:
        interval = self._seconds / _RENEWALS
        pause = interval
        while not self._lost:
            await asyncio.sleep(pause)
            # what is sent next is stopped by `confirm` when this fails for too long
            pause = interval if await self._renewed(within=interval) else min(_AFTER_FAILURE, interval)

    async def _renewed(self, *, within: float) -> bool:
        """Renew once; whether that is done within so many seconds."""
        import psycopg

        attempt = asyncio.ensure_future(self._renew())
        try:
            done, _ = await asyncio.wait([attempt], timeout=within)
        finally:
            if not attempt.done():
                # a connection on which nothing is heard is not asked to cancel, which would be waited for as well
                attempt.cancel()
                session, self._session = self._session, None
                if session is not None:
                    await session.close()
                await asyncio.wait([attempt])
        if not done:
            return False
        try:
            attempt.result()
        except (ProblemError, psycopg.Error):
            # the latter when our tables are gone
            return False
        return True

    async def _connect(self) -> Session:
        # beside the connection that works
        return await Session.open(replace(await self._settings(), needs=2))

    async def _renew(self) -> None:
        asked_at = passed()
        session = self._session
        if session is None or not session.alive:
            session = self._session = await self._connect()
        (rows,) = await session.read(
            session.queries("renew_lease", seconds=self._seconds, **self._ours), doing="renewing the lease"
        )
        if rows:
            self._confirmed_at = asked_at
        else:
            self._lost = True


async def withdraw(session: Session, owner: str) -> None:
    """Give back what may have been given to `owner`, in an attempt that was cancelled; never fails."""
    with contextlib.suppress(ProblemError, TimeoutError):
        async with asyncio.timeout(_LAST_WORD):
            await session.transact(session.queries("withdraw_lease", owner=owner), doing="releasing the lock")


def opening_of_transaction(session: Session, owner: str, fence: int) -> tuple[str, ...]:
    """What each transaction that runs statements of a migration under a lease begins with.

    Whoever takes the lease over sees by it that we are still at work; and when it was taken over already, nothing is run.
    """
    return (
        session.queries("hold_while_working", key=ADVISORY_KEY),
        session.queries("still_ours", owner=owner, fence=fence),
    )
