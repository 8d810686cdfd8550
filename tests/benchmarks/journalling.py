"""Migrations outside a transaction: what it costs to know at every moment which statements are in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import psycopg

from tests.applying import bring, database_at, declare, migration
from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Row, compared, take_turns

_STATEMENTS = 1000
_ALONE = 100
_LIMIT = 2.0


def journalling(context: Context) -> list[Row]:
    """A long script of statements that a transaction can hold, and a shorter one of statements that none can."""
    rows = []
    for what, statements, limit in (
        (f"{_STATEMENTS} INSERTs", ["INSERT INTO t VALUES (1)"] * _STATEMENTS, _LIMIT),
        (
            f"{_ALONE} concurrent indexes of an empty table",
            [f"CREATE INDEX CONCURRENTLY i{number} ON t (id)" for number in range(_ALONE)],
            None,
        ),
    ):
        found = take_turns(
            {"ours": _ours(context, statements), "floor": _floor(context, statements)},
            context.runs,
        )
        rows.append(
            compared(
                f"one migration outside a transaction: {what}",
                found["ours"],
                found["floor"],
                limit=limit,
                floor_name="bare autocommit",
            )
        )
    return rows


def _ours(context: Context, statements: list[str]) -> Callable[[], float]:
    files = {
        "1_t.sql": migration("CREATE TABLE t (id int);"),
        "2_many.sql": migration(";\n".join(statements) + ";", directive="no-transaction"),
    }

    def measured() -> float:
        return asyncio.run(run(context.server.dsn(context.server.create_database())))

    async def run(dsn: str) -> float:
        database = database_at(dsn)
        await bring(database, declare(files, 1))
        declared = declare(files, 2)
        context.server.settle()
        began = perf_counter()
        outcome = await bring(database, declared)
        elapsed = perf_counter() - began
        await database.close()
        if outcome.problem is not None:
            raise RuntimeError(str(outcome.problem))
        return elapsed

    return measured


def _floor(context: Context, statements: list[str]) -> Callable[[], float]:
    def measured() -> float:
        dsn = context.server.dsn(context.server.create_database())
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
            connection.execute("CREATE TABLE t (id int)")
            context.server.settle()
            encoded = [statement.encode() for statement in statements]
            began = perf_counter()
            for statement in encoded:
                connection.execute(statement)
            return perf_counter() - began

    return measured
