"""Transactions that came into conflict with others and were rolled back for certain: CockroachDB asks its clients to try again."""

from __future__ import annotations

import asyncio
import random

from reconciler.database.dialect import Dialect

CONFLICT = "40001"
"""The SQLSTATE of such a transaction."""
MOST_CONFLICTS = 10
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
"""Seconds of the longest pause, before some of it is left out by chance."""


class Conflicts:
    """How often one thing may be tried again.

    Args:
        statements_of: the dialect that runs statements of a migration: on PostgreSQL whoever asks for serialisable transactions
            decides what is to be tried again. None for what we write down ourselves, which can be written once more anywhere.
    """

    def __init__(self, statements_of: Dialect | None = None) -> None:
        never = statements_of is not None and statements_of.transactional_ddl
        self._left = 0 if never else MOST_CONFLICTS
        self._pause = _FIRST_PAUSE

    @property
    def again(self) -> bool:
        """It may be tried once more."""
        return self._left > 0

    async def pause(self) -> None:
        """Wait a moment, longer each time."""
        self._left -= 1
        await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
