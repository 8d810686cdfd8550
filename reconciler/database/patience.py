"""How often, and after which pauses, what waited in vain for a table's lock is tried again."""

from __future__ import annotations

import asyncio
import random

_ATTEMPTS = 10
_PAUSE = 0.5
"""Seconds: the longest first pause; it doubles up to eight times as much."""


class LockPatience:
    """The attempts at one thing that changed nothing when it gave up: a whole transaction, or a single statement.

    Each attempt waits for `lock_timeout`, so that those who queue behind it wait no longer; the pauses let them through.
    """

    def __init__(self) -> None:
        self._pause = _PAUSE
        self.attempt = 1
        """The one that is under way, from 1."""

    @property
    def at_an_end(self) -> bool:
        """True when there is no attempt left after this one."""
        return self.attempt >= _ATTEMPTS

    async def pause(self) -> None:
        """Let others have their turn before the next attempt: up to twice as long each time, and never in step with others."""
        await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
        self._pause = min(self._pause * 2, _PAUSE * 8)
        self.attempt += 1
