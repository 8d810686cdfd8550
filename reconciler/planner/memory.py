"""Remembering what was found out about scripts.

A plan is made again and again from the same files: before the lock and under it, every few seconds while it is stalled, for
each database of an environment. Taking a script apart costs a millisecond, and a second where a file holds megabytes, so
the answers are kept. Safe in any thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from reconciler.model import COCKROACHDB, POSTGRESQL, Problem, ProblemError, Script
from reconciler.planner.request import PlanRequest
from reconciler.sqltext import Analysis, analyse, token_checksum

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LONGEST_KEPT = 64 << 20
"""Characters of all scripts that are remembered. While a catalog holds the same texts they take no room of their own."""
_ENTRY = 1024
"""What an answer weighs beside its text, in characters: it bounds the number of small ones."""
_HEAVY = 300_000
"""Characters that take about a tenth of a second."""


class Memory(Generic[K, V]):
    """Answers by question, the least recently used ones forgotten when they weigh too much.

    Args:
        limit: the weight that is kept.
    """

    def __init__(self, limit: int = _LONGEST_KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0
        self._lock = Lock()

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._kept

    def get(self, key: K, length: int, find_out: Callable[[], V]) -> V:
        """The answer to `key`, found out when it is not remembered. Two threads may find out the same at a time.

        Args:
            key: the question.
            length: of its text, in characters.
            find_out: gives the answer.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        answer = find_out()
        weight = length + _ENTRY
        with self._lock:
            if key not in self._kept and weight <= self._limit:
                self._kept[key] = answer, weight
                self._weight += weight
            while self._weight > self._limit:
                _, (_, lighter) = self._kept.popitem(last=False)
                self._weight -= lighter
        return answer


_analyses: dict[str, Memory[Script, Analysis | Problem]] = {POSTGRESQL: Memory(), COCKROACHDB: Memory()}
"""By the server that is to run them."""
_token_checksums: Memory[str, str] = Memory()


def analysis_of(script: Script, engine: str) -> Analysis:
    """`analyse(script, engine=engine)`, remembered, also when it fails.

    Raises:
        ProblemError: as `analyse` does.
    """
    found = _analyses[engine].get(script, len(script.text), lambda: _analyse(script, engine))
    if isinstance(found, Problem):
        raise ProblemError(found)
    return found


def token_checksum_of(text: str) -> str:
    """`token_checksum(text)`, remembered."""
    return _token_checksums.get(text, len(text), lambda: token_checksum(text))


def is_heavy(request: PlanRequest) -> bool:
    """Whether planning this takes so long that an event loop should not wait for it.

    That is so when large scripts have to be taken apart that were not seen before. The question itself is cheap.
    """
    applied = {row.version: row.checksum for row in request.observation.rows if row.counts_as_applied}
    compared: list[Script] = []
    """Files that differ from what was applied: their tokens are compared."""
    run: list[Script] = []
    for migration in request.catalog.migrations:
        checksum = applied.get(migration.version)
        if checksum is not None and checksum != migration.checksum:
            compared.append(migration.up)
        if migration.version <= request.target and checksum is None:
            run.append(migration.up)
        elif migration.version > request.target and checksum is not None and migration.down is not None:
            run.append(migration.down)
    run += [Script(stored.text, stored.path, stored.first_line) for stored in request.stored_downs.values()]
    if _length(compared) + _length(run) <= _HEAVY:
        return False
    unknown = [script for script in compared if script.text not in _token_checksums]
    analyses = _analyses[request.observation.engine]
    unknown += [script for script in run if script not in analyses]
    return _length(unknown) > _HEAVY


def _length(scripts: list[Script]) -> int:
    return sum(len(script.text) for script in scripts)


def _analyse(script: Script, engine: str) -> Analysis | Problem:
    try:
        return analyse(script, engine=engine)
    except ProblemError as error:
        return error.problem
