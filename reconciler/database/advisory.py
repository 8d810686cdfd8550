"""The advisory lock: it lives as long as the session that took it, which is the one that executes and records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reconciler.database.reading import ADVISORY_KEY, Reader
from reconciler.model import LockHolder, ProblemError

if TYPE_CHECKING:
    from reconciler.database.session import Session
    from reconciler.database.waiting import Waiting

_LOOKS = 5
"""A holder of the lock that has not said who it is is looked at this often."""
_MOMENT = 0.05
"""Seconds between two such looks."""


async def take_advisory_lock(
    session: Session, reader: Reader, waiting: Waiting, open_anew: Callable[[], Awaitable[Session]]
) -> Session:
    """Take the lock on `session`, or on a new one when the server has ended that meanwhile: nothing has begun yet.

    It is tried, and never waited for by the server: that would be an open transaction, and `CREATE INDEX CONCURRENTLY` of
    the lock's holder would wait for it for ever.

    Raises:
        ProblemError: `LockHeld` when the time to wait is over, or the database cannot be reached.
    """
    looks = 0
    opened_anew = False
    while True:
        try:
            ((answer,),) = await session.read(
                session.queries("try_advisory_lock", key=ADVISORY_KEY), doing="taking the lock"
            )
        except ProblemError:
            if session.alive or opened_anew:
                raise
            session, opened_anew = await open_anew(), True
            continue
        if answer[0]:
            return session
        holder = (await reader.observe(session)).holder
        if holder is None or holder.since is None:
            # it has the lock and not yet said who it is, or is just giving it back: either takes a moment
            looks += 1
            if looks < _LOOKS:
                await asyncio.sleep(_MOMENT)
                continue
            holder = await _nameless(session)
        await waiting.pause(holder)


async def give_advisory_lock_back(session: Session) -> None:
    """Release the lock, as far as the session still lives."""
    with contextlib.suppress(ProblemError):
        await session.read(session.queries("release_advisory_lock"), doing="releasing the lock")


async def _nameless(session: Session) -> LockHolder:
    from reconciler.database.unlocking import nameless_holder

    return await nameless_holder(session)
