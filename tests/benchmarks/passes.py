"""A pass that finds nothing to do, over many databases: in one process, against a bare psycopg loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter

import psycopg

from reconciler.catalog import Catalog
from reconciler.model import Database
from reconciler.operations import Declaration, apply
from tests.applying import actor, bring, catalog_of, database_at, declare
from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Row, compared
from tests.benchmarks.migrations import in_turn, native

_SMALL_HISTORY = 20
_VERSIONS = "SELECT version FROM schema_migrations ORDER BY version"
_LIMIT = 1.3
_CONNECTING = "psycopg loop that connects"


def passes(context: Context) -> list[Row]:
    """Many databases with a small history, and one with a long one; connections made for each pass, and kept."""
    count = context.sizes.databases
    small = catalog_of(dict(map(native, in_turn(_SMALL_HISTORY))))
    long = catalog_of(dict(map(native, in_turn(context.sizes.history))))
    dsns = [context.server.dsn(context.server.create_database()) for _ in range(count)]
    asyncio.run(_bring_all(dsns, declare(small, _SMALL_HISTORY)))
    one = [context.server.dsn(context.server.create_database())]
    asyncio.run(_fill(one[0], small, long))
    context.server.settle()
    rows = []
    for what, where, catalog, times in (
        (f"{count} databases, {_SMALL_HISTORY} rows of history", dsns, small, 1),
        (f"one database, {context.sizes.history} rows of history", one, long, context.sizes.passes),
    ):
        declaration = declare(catalog, catalog.versions[-1])
        pass_over = f"pass that finds nothing to do: {what}"
        ours, connecting = asyncio.run(_measure(where, declaration, context.runs, kept=False, times=times))
        kept, keeping = asyncio.run(_measure(where, declaration, context.runs, kept=True, times=times))
        rows += [
            compared(
                f"{pass_over}, connecting each time", ours, connecting, limit=_LIMIT, floor_name=_CONNECTING
            ),
            compared(
                f"{pass_over}, connections kept open", kept, connecting, limit=_LIMIT, floor_name=_CONNECTING
            ),
            compared(
                f"{pass_over}, kept open on both sides", kept, keeping, limit=None, floor_name="psycopg loop"
            ),
        ]
    return rows


async def _measure(
    dsns: Sequence[str], declaration: Declaration, runs: int, *, kept: bool, times: int
) -> tuple[list[float], list[float]]:
    """Seconds for one pass over one database, ours and the floor's."""
    databases = [database_at(dsn) for dsn in dsns]
    connections = (
        [await psycopg.AsyncConnection.connect(dsn, autocommit=True) for dsn in dsns] if kept else []
    )

    async def ours() -> None:
        for database in databases:
            await _pass(database, declaration)
            if not kept:
                await database.close()

    async def floor() -> None:
        if kept:
            for connection in connections:
                await (await connection.execute(_VERSIONS)).fetchall()
            return
        for dsn in dsns:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await (await connection.execute(_VERSIONS)).fetchall()

    figures: tuple[list[float], list[float]] = ([], [])
    try:
        for turn in range(-1, runs):
            for series, work in zip(figures, (ours, floor), strict=True):
                elapsed = await _seconds(work, times)
                if turn >= 0:
                    series.append(elapsed / times / len(dsns))
    finally:
        for database in databases:
            await database.close()
        for connection in connections:
            await connection.close()
    return figures


async def _seconds(work: Callable[[], Awaitable[None]], times: int) -> float:
    gc.collect()
    began = perf_counter()
    for _ in range(times):
        await work()
    return perf_counter() - began


async def _pass(database: Database, declaration: Declaration) -> None:
    outcome = await apply(
        database,
        declaration,
        actor(declaration.claim),
        now=lambda: datetime.now(UTC),
        acquire_timeout=0.0,
    )
    assert outcome.plan is not None, outcome.problem
    assert outcome.plan.in_sync, outcome.plan.refusals


async def _bring_all(dsns: Sequence[str], declaration: Declaration) -> None:
    for dsn in dsns:
        await _bring(dsn, declaration)


async def _bring(dsn: str, declaration: Declaration) -> None:
    database = database_at(dsn)
    outcome = await bring(database, declaration)
    await database.close()
    assert outcome.plan is not None, outcome.problem
    assert outcome.plan.in_sync, outcome.plan.refusals


async def _fill(dsn: str, small: Catalog, long: Catalog) -> None:
    """A long history: the rows as if all had been applied, without the tables they would have made."""
    await _bring(dsn, declare(small, small.versions[-1]))
    from reconciler.planner.memory import token_checksum_of

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        missing = [migration for migration in long if migration.version not in small]
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO schema_migrations (version, name, checksum, token_checksum, down_checksum, down_script, git_revision) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (
                        migration.version,
                        migration.name,
                        migration.checksum,
                        token_checksum_of(migration.up.text),
                        migration.down_checksum,
                        migration.down.text if migration.down else None,
                        "a" * 40,
                    )
                    for migration in missing
                ],
            )
        await connection.execute("VACUUM ANALYZE schema_migrations")
