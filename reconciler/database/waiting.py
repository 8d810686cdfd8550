"""Waiting for a lock that somebody else holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from reconciler.database.jobs import SchemaChange
from reconciler.model import LockHolder, Problem, ProblemError, Reason

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two attempts at the lock."""


class Waiting:
    """The time somebody has to wait for the lock.

    Args:
        timeout: seconds; 0 tries once.
        on_waiting: told once who holds it.
    """

    def __init__(self, timeout: float, on_waiting: Callable[[LockHolder], None] | None) -> None:
        self._timeout = timeout
        self._deadline = monotonic() + timeout
        self._on_waiting = on_waiting
        self._told = False
        self._jobs: set[str] = set()
        self._pause = _FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds until the time is over, 0 when it is."""
        return max(0.0, self._deadline - monotonic())

    def for_schema_change(self, job: SchemaChange) -> None:
        """A change of the schema, whose client may be long gone, has to end first; told once of each."""
        if self._on_waiting is not None and job.number not in self._jobs:
            self._jobs.add(job.number)
            since = datetime.fromtimestamp(job.created, UTC) if job.created else None
            self._on_waiting(LockHolder(f"a change of the schema, {job}", "job", since))

    async def pause(self, holder: LockHolder) -> None:
        """Wait a moment before the next attempt.

        Raises:
            ProblemError: `LockHeld`: the time is over.
        """
        if self._on_waiting is not None and not self._told:
            self._on_waiting(holder)
            self._told = True
        left = self._deadline - monotonic()
        if left <= 0:
            raise ProblemError(lock_held(holder, self._timeout))
        await asyncio.sleep(min(self._pause * (0.5 + random.random()), left))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


def lock_held(holder: LockHolder, waited: float = 0.0) -> Problem:
    """The problem of a lock that somebody else holds.

    Args:
        holder: who.
        waited: seconds that we waited in vain.
    """
    since = f" since {holder.since:%Y-%m-%d %H:%M:%S} UTC" if holder.since else ""
    waiting = f"; waited {waited:g} s" if waited else ""
    return Problem(
        reason=Reason.LOCK_HELD,
        message=f"another process holds the lock of this database: {holder.owner}{since}{waiting}",
        remedy="`reconciler unlock` shows it, and can end it if it hangs; it is tried again by itself",
    )
