"""Invalid indexes: dropped when our own intent names them and nobody builds them, told of when not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.model import Reason
from tests.applying import bring, database_at, declare, migration, table
from tests.cutting import cut_off

BUILDING = "query LIKE 'CREATE%INDEX%' AND wait_event_type = 'Lock' AND state = 'active'"
REINDEXING = "query LIKE 'REINDEX%' AND wait_event_type = 'Lock' AND state = 'active'"


def invalid(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
        )
        return [name for (name,) in rows.fetchall()]


@pytest.mark.parametrize("wanted", [2, 1])
async def test_what_an_interrupted_reindex_left_is_named(any_database: str, wanted: int) -> None:
    files = {
        "1_a.sql": migration("CREATE TABLE a (id int); CREATE INDEX a_id ON a (id);"),
        "2_r.sql": migration("REINDEX INDEX CONCURRENTLY a_id;"),
    }
    database = database_at(any_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        await cut_off(any_database, files, 2, REINDEXING)
    assert invalid(any_database) == ["a_id_ccnew"]
    outcome = await bring(database, declare(files, wanted))
    assert outcome.problem is None
    if wanted == 2:
        (warning,) = outcome.warnings
        left = [event for event in await database.journal(2) if event.outcome == "left"]
        assert [event.message for event in left] == [warning.message]
    else:
        assert outcome.plan is not None
        (warning,) = outcome.plan.warnings
    assert "the invalid index public.a_id_ccnew on public.a is left" in warning.message
    assert warning.remedy == "run `DROP INDEX CONCURRENTLY public.a_id_ccnew`"
    assert invalid(any_database) == ["a_id_ccnew"]
    await database.close()


async def test_a_reindex_that_failed_says_what_it_left(fresh_database: str) -> None:
    files = {
        "1_a.sql": migration("CREATE TABLE a (id int); CREATE INDEX a_id ON a (id);"),
        "2_r.sql": migration("REINDEX TABLE CONCURRENTLY a;", directive="statement-timeout 500ms"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        outcome = await bring(database, declare(files, 2))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_TIMEOUT
    assert "the invalid index public.a_id_ccnew on public.a is left" in outcome.problem.message
    assert outcome.problem.remedy.startswith("run `DROP INDEX CONCURRENTLY public.a_id_ccnew`; then ")
    await database.close()


@pytest.mark.parametrize("how", ["failed", "cut off"])
async def test_an_invalid_index_without_a_name_in_the_script_is_named(any_database: str, how: str) -> None:
    files = {
        "1_a.sql": migration('CREATE TABLE "A b" (id int); CREATE INDEX "older" ON "A b" (id);'),
        "2_i.sql": migration('CREATE UNIQUE INDEX CONCURRENTLY ON "A b" (id);'),
    }
    database = database_at(any_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database, autocommit=True) as connection:
        if how == "failed":
            connection.execute('INSERT INTO "A b" VALUES (1), (1)')
            outcome = await bring(database, declare(files, 2))
            assert outcome.problem is not None
            assert 'the invalid index public."A b_id_idx" on public."A b" is left' in outcome.problem.message
            assert outcome.problem.remedy.startswith(
                'run `DROP INDEX CONCURRENTLY public."A b_id_idx"`; then '
            )
            connection.execute('DELETE FROM "A b"')
        else:
            with psycopg.connect(any_database) as older:
                older.execute('INSERT INTO "A b" VALUES (1)')
                await cut_off(any_database, files, 2, BUILDING)
        refused = await bring(database, declare(files, 2, retry=True))
        assert refused.plan is not None
        (refusal,) = refused.plan.refusals
        assert refusal.reason is Reason.OUTCOME_UNKNOWN
        assert 'the invalid index public."A b_id_idx" on public."A b" is left' in refusal.message
        connection.execute('DROP INDEX CONCURRENTLY public."A b_id_idx"')
    assert (await bring(database, declare(files, 2, retry=True))).problem is None
    assert invalid(any_database) == []
    await database.close()


async def test_our_own_invalid_index_that_is_not_wanted_any_more_is_named(fresh_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_i.sql": migration("CREATE UNIQUE INDEX CONCURRENTLY i ON a (id);")}
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("INSERT INTO a VALUES (1), (1)")
    failed = await bring(database, declare(files, 2))
    assert failed.problem is not None
    assert "the invalid index public.i on public.a is left, and dropped before" in failed.problem.message
    outcome = await bring(database, declare(files, 1))
    assert outcome.plan is not None
    assert outcome.plan.in_sync
    (warning,) = outcome.plan.warnings
    assert "the invalid index public.i on public.a is left" in warning.message
    assert warning.remedy == "run `DROP INDEX CONCURRENTLY public.i`"
    await database.close()


async def test_what_another_role_is_building_is_waited_for(any_database: str) -> None:
    with psycopg.connect(any_database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS left_indexes_worker")
        connection.execute("CREATE ROLE left_indexes_worker LOGIN")
        connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO left_indexes_worker")
    dsn = make_conninfo(any_database, user="left_indexes_worker")
    files = {"1_a.sql": table("a"), "2_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);")}
    database = database_at(dsn)
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        await cut_off(dsn, files, 2, BUILDING)
        # somebody else has taken the matter into his own hands
        with psycopg.connect(any_database, autocommit=True) as connection:
            older.commit()
            connection.execute("DROP INDEX a_id")
        older.execute("INSERT INTO a VALUES (1)")
        async with _building(any_database):
            with psycopg.connect(dsn) as ours:
                hidden = ours.execute("SELECT command FROM pg_stat_progress_create_index").fetchall()
                assert hidden == [(None,)]
            outcome = await bring(database, declare(files, 2))
            assert outcome.plan is not None
            (refusal,) = outcome.plan.refusals
            assert "the index public.a_id is being built at this moment" in refusal.message
            assert "looked at again by itself" in refusal.remedy
            older.commit()
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert [step.first_statement for step, _ in outcome.applied] == [1]
    await database.close()
    with psycopg.connect(any_database, autocommit=True) as connection:
        assert connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass"
        ).fetchone() == (True,)
        connection.execute("DROP OWNED BY left_indexes_worker CASCADE")
        connection.execute("DROP ROLE left_indexes_worker")


@asynccontextmanager
async def _building(dsn: str) -> AsyncIterator[None]:
    """While the superuser builds `a_id`; at the end that is waited for."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as builder:
        build = asyncio.create_task(builder.execute("CREATE INDEX CONCURRENTLY a_id ON a (id)"))
        with psycopg.connect(dsn, autocommit=True) as connection:
            async with asyncio.timeout(20):
                while not connection.execute(
                    f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND {BUILDING}".encode()
                ).fetchone():
                    await asyncio.sleep(0.02)
        yield
        await build


@pytest.mark.parametrize(
    "name", ["i" * 70, "é" * 40, '"' + "É" * 31 + 'x"'], ids=["ascii", "two bytes", "quoted"]
)
async def test_a_name_is_looked_for_as_the_server_cuts_it(any_database: str, name: str) -> None:
    files = {"1_a.sql": table("a"), "2_i.sql": migration(f"CREATE INDEX CONCURRENTLY {name} ON a (id);")}
    database = database_at(any_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        await cut_off(any_database, files, 2, BUILDING)
    assert len(invalid(any_database)) == 1
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert outcome.applied[0][0].leftover
    assert invalid(any_database) == []
    await database.close()


async def test_a_database_with_a_long_name_is_found(fresh_database: str) -> None:
    name = "left_indexes_" + "é" * 40
    files = {"1_d.sql": migration(f"CREATE DATABASE {name};", f"DROP DATABASE {name};")}
    database = database_at(fresh_database)
    outcome = await bring(database, declare(files, 1))
    assert outcome.problem is None
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        # as if the process had died before it could say that the down was done
        connection.execute(
            "UPDATE schema_migrations SET status = 'running', direction = 'down', statements_done = 0, statements_total = 1, "
            "transactional = false, statements_digest = '', intent_before = 'valid', intent_object = %s, "
            "intent_digest = 'x' WHERE version = 1",
            [f"no-database {name}"],
        )
    assert await database.look_at([f"no-database {name}"]) == {f"no-database {name}": "valid"}
    assert (await bring(database, declare(files, 0))).problem is None
    assert await database.look_at([f"database {name}"]) == {f"database {name}": "absent"}
    await database.close()
