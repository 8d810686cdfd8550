"""What is to be seen of an object that a statement was about: a word, and behind it the indexes that the word is of."""

from __future__ import annotations

import json
from typing import NamedTuple

ABSENT = "absent"
VALID = "valid"
INVALID = "invalid"
"""Of an index: a concurrent build was cut off. It serves no query and slows down every write."""
BUILDING = "building"
PENDING = "pending"
"""Of a partition: its DETACH CONCURRENTLY was cut off between its two transactions."""


class IndexOn(NamedTuple):
    """An index and its table, quoted and with their schemas."""

    name: str
    table: str

    def __str__(self) -> str:
        return f"{self.name} on {self.table}"

    @property
    def drop(self) -> str:
        """The statement that drops it without keeping anybody waiting."""
        return f"DROP INDEX CONCURRENTLY {self.name}"


def state_word(state: str) -> str:
    """The word that `state` begins with, empty for none."""
    return state.partition(" ")[0]


def indexes_in(state: str) -> tuple[IndexOn, ...]:
    """The indexes that `state` is about, none when it does not say."""
    pairs = state.partition(" ")[2]
    return tuple(IndexOn(*pair) for pair in json.loads(pairs)) if pairs else ()
