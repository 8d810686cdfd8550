"""Remembering what was found out about scripts.

A plan is made again and again from the same files: before the lock and under it, once a minute while it is blocked, for
each database of an environment. Taking a script apart costs a millisecond, so the answers for small ones are kept.
"""

from __future__ import annotations

from functools import lru_cache

from reconciler.model import Script
from reconciler.sqltext import Analysis, analyse, token_checksum

_LONGEST_KEPT = 8192
"""Characters. With the number kept this bounds the memory to tens of megabytes, whatever the files are."""
_MOST_KEPT = 2048


def analysis_of(script: Script) -> Analysis:
    """`analyse(script)`, remembered.

    Raises:
        ProblemError: as `analyse` does.
    """
    return _analysis(script) if len(script.text) <= _LONGEST_KEPT else analyse(script)


def token_checksum_of(text: str) -> str:
    """`token_checksum(text)`, remembered."""
    return _token_checksum(text) if len(text) <= _LONGEST_KEPT else token_checksum(text)


@lru_cache(maxsize=_MOST_KEPT)
def _analysis(script: Script) -> Analysis:
    return analyse(script)


@lru_cache(maxsize=_MOST_KEPT)
def _token_checksum(text: str) -> str:
    return token_checksum(text)
