"""A quiet database is asked for one statement; whatever changes in it is seen all the same."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.database import ConnectionSettings, open_database
from reconciler.redaction import Secret
from tests.applying import actor, bring, database_at, declare, table

_FILES = {"1_a.sql": table("a"), "2_b.sql": table("b")}


async def test_while_nothing_changes_it_is_the_same_object(any_database: str) -> None:
    database = database_at(any_database)
    assert (await bring(database, declare(_FILES, 2))).applied
    first = await database.observe()
    assert await database.observe() is first
    # also over a new connection
    await database.close()
    assert await database.observe() is first
    await database.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM schema_migrations WHERE version = 2",
        "UPDATE schema_migrations SET checksum = 'x' WHERE version = 1",
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (7, 'x', 'x')",
        'CREATE SCHEMA "{user}"; CREATE TABLE "{user}".schema_migrations (version text)',
        "UPDATE schema_migrations_lock SET environment = 'staging'",
        "DELETE FROM schema_migrations_lock",
        "DROP TABLE schema_migrations",
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
    ],
)
async def test_a_change_by_hand_is_seen(any_database: str, change: str) -> None:
    database = database_at(any_database, connect_timeout=5)
    await bring(database, declare(_FILES, 2))
    before = await database.observe()
    with psycopg.connect(any_database, autocommit=True) as connection:
        change = change.replace("{database}", connection.info.dbname).replace("{user}", connection.info.user)
        connection.execute(change.encode())
    if "read_only" in change:
        # a setting of the database reaches new sessions
        await database.close()
        with pytest.raises(Exception, match="read-only"):
            await database.observe()
        return
    assert await database.observe() is not before
    await database.close()


async def test_a_write_and_a_retry_of_another_process_are_seen(any_database: str) -> None:
    database, other = database_at(any_database), database_at(any_database)
    await bring(database, declare(_FILES, 1))
    before = await database.observe()
    await bring(other, declare(_FILES, 2))
    after = await database.observe()
    assert (before.current_version, after.current_version) == (1, 2)
    await other.request_retry(actor())
    assert await database.observe() is not after
    await other.close()
    await database.close()


async def test_a_holder_that_dies_is_not_reported_for_ever(any_database: str) -> None:
    database, other = database_at(any_database), database_at(any_database)
    await bring(database, declare(_FILES, 2))
    async with other.writer(actor(), acquire_timeout=1):
        assert (await database.observe()).holder is not None
        assert (await database.observe()).holder is not None
        # no time to say goodbye
        with psycopg.connect(any_database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )
        assert (await database.observe()).holder is None
    await other.close()
    await database.close()


async def test_a_dsn_that_moves_to_a_copy_is_noticed(any_database: str) -> None:
    with psycopg.connect(any_database) as connection:
        name = connection.info.dbname
    copy, maintenance = f"{name}_copy", make_conninfo(any_database, dbname="postgres")
    dsn = any_database

    async def settings() -> ConnectionSettings:
        return ConnectionSettings(dsn=Secret(dsn))

    database = open_database(settings)
    await bring(database, declare(_FILES, 2))
    first = await database.observe()
    await database.close()
    with psycopg.connect(maintenance, autocommit=True) as connection:
        # the very same rows, down to their transaction ids
        connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"'.encode())
    try:
        dsn = make_conninfo(any_database, dbname=copy)
        second = await database.observe()
        assert second.identity.database_oid != first.identity.database_oid
        await database.close()
    finally:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{copy}"'.encode())
