"""Cutting the connection of a run at a moment that is chosen by what the server says of it."""

from __future__ import annotations

import asyncio

import psycopg

from reconciler.model import Reason
from tests.applying import bring, database_at, declare


async def cut_off(dsn: str, files: dict[str, str], target: int, until: str) -> None:
    """Run up to `target` and cut the connection once `until`, a condition on pg_stat_activity, is true of a backend."""
    database = database_at(dsn)
    running = asyncio.create_task(bring(database, declare(files, target)))
    async with asyncio.timeout(20):
        with psycopg.connect(dsn, autocommit=True) as connection:
            query = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND {until}"
            )
            while not connection.execute(query.encode()).fetchone():
                await asyncio.sleep(0.02)
        outcome = await running
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.CONNECTION_FAILED
    await database.close()
