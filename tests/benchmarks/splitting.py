"""Splitting scripts into statements, against what PostgreSQL's own grammar takes for the same texts, in this process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from reconciler.model import Script
from reconciler.sqltext import split
from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Measure, Row, compared, take_turns
from tests.benchmarks.migrations import all_three

_LIMIT = 2.0
"""Against libpg_query's parse. Its bare split, which ours is built on, makes no parse tree that anybody gets to see."""
_LARGE = 1_000_000
"""Characters of the large script, at least."""


def splitting(context: Context) -> list[Row]:
    """Many small scripts, one after the other, and a single large one."""
    count = context.sizes.migrations
    ordinary = [migration.up for migration in all_three(count)]
    large = _large()
    # by name: the package's type stubs have syntax errors
    library = importlib.import_module("postgast.native").lib
    rows = []
    for what, texts in (
        (f"splitting {count} migrations", ordinary),
        (f"splitting one script of {len(large) / 1_000_000:.1f} MB", [large]),
    ):
        found = take_turns(
            {"ours": _ours(texts), "split": _split(library, texts), "parse": _parse(library, texts)},
            context.sizes.splits,
        )
        for floor, limit, name in (
            ("parse", _LIMIT, "libpg_query's parse"),
            ("split", None, "libpg_query's bare split"),
        ):
            rows.append(
                compared(
                    f"{what}, to {name}", found["ours"], found[floor], limit=limit, floor_name="libpg_query"
                )
            )
    return rows


def _large() -> str:
    """Ordinary migrations, as many as make a script of that length."""
    count = 0
    length = 0
    migrations = all_three(_LARGE // 300)
    while length < _LARGE:
        length += len(migrations[count].up) + 1
        count += 1
    return "\n".join(migration.up for migration in migrations[:count])


def _ours(texts: Sequence[str]) -> Measure:
    scripts = [Script(text, "migrations/00001_x.sql", 1) for text in texts]

    def measured() -> float:
        began = perf_counter()
        for script in scripts:
            split(script)
        return perf_counter() - began

    return measured


def _split(library: Any, texts: Sequence[str]) -> Measure:
    return _called(library.pg_query_split_with_parser, library.pg_query_free_split_result, texts)


def _parse(library: Any, texts: Sequence[str]) -> Measure:
    return _called(library.pg_query_parse_protobuf, library.pg_query_free_protobuf_parse_result, texts)


def _called(function: Callable[[bytes], Any], free: Callable[[Any], None], texts: Sequence[str]) -> Measure:
    """The C function alone: its result is freed and not read."""

    def measured() -> float:
        began = perf_counter()
        for text in texts:
            result = function(text.encode())
            failed = bool(result.error)
            free(result)
            if failed:
                raise RuntimeError("libpg_query rejects an ordinary migration")
        return perf_counter() - began

    return measured
