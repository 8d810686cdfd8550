"""Migrations outside a transaction: statement by statement, with the progress written down."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from reconciler.manifest import Timeouts
from reconciler.model import Direction, Reason, RowStatus, Script
from reconciler.sqltext import intent_digest, split
from tests.applying import bring, database_at, declare, migration, table
from tests.cutting import cut_off

CONCURRENT = migration(
    "CREATE INDEX CONCURRENTLY a_id ON a (id);\nCREATE INDEX CONCURRENTLY a_id_desc ON a (id DESC);",
    "DROP INDEX CONCURRENTLY a_id;\nDROP INDEX CONCURRENTLY a_id_desc;",
)


def indexes(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'a'").fetchall()
    return {name for (name,) in rows}


async def test_concurrent_indexes_are_built_and_dropped(any_database: str) -> None:
    database = database_at(any_database)
    files = {"1_a.sql": table("a"), "2_index.sql": CONCURRENT}
    up = await bring(database, declare(files, 2))
    assert up.problem is None
    assert [step.transactional for step, _ in up.applied] == [True, False]
    assert indexes(any_database) == {"a_id", "a_id_desc"}
    down = await bring(database, declare({"1_a.sql": table("a")}, 1))
    assert down.problem is None
    assert [step.transactional for step, _ in down.applied] == [False]
    assert indexes(any_database) == set()
    assert [row.version for row in await database.applied()] == [1]
    await database.close()


async def test_a_failure_counts_what_is_in_force_and_a_mended_file_goes_on_there(any_database: str) -> None:
    database = database_at(any_database)
    first = "INSERT INTO a VALUES (1);\n"
    broken = migration(first + "VACUUM nowhere;\nINSERT INTO a VALUES (3);", directive="no-transaction")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": broken}, 2))
    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.STATEMENT_FAILED
    assert "1 of its 3 statements are in force" in problem.message
    assert problem.statement_index == 2
    assert str(problem.place) == "migrations/2_x.sql:4:1"
    (row,) = await database.applied(2)
    assert row.status is RowStatus.FAILED

    changed_before = migration("INSERT INTO a VALUES (9);\nVACUUM a;", directive="no-transaction")
    refused = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": changed_before}, 2))
    assert refused.plan is not None
    assert [problem.reason for problem in refused.plan.refusals] == [Reason.OUTCOME_UNKNOWN]

    mended = migration(first + "VACUUM a;\nINSERT INTO a VALUES (3);", directive="no-transaction")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": mended}, 2))
    assert outcome.problem is None
    with psycopg.connect(any_database) as connection:
        assert connection.execute("SELECT id FROM a ORDER BY id").fetchall() == [(1,), (3,)]
    await database.close()


async def test_a_statement_that_a_transaction_can_hold_is_run_once_or_not_at_all(any_database: str) -> None:
    slow = "INSERT INTO a VALUES (1);\nINSERT INTO a SELECT 2 FROM pg_sleep(1.5);\nINSERT INTO a VALUES (3);"
    files = {"1_a.sql": table("a"), "2_slow.sql": migration(slow, directive="no-transaction")}
    await cut_off(any_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(any_database)
    before = await database.observe()
    assert [(row.status, row.statements_done) for row in before.rows][1:] == [(RowStatus.RUNNING, 1)]
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert outcome.applied[0][0].first_statement == 1
    with psycopg.connect(any_database) as connection:
        assert connection.execute("SELECT id FROM a ORDER BY id").fetchall() == [(1,), (2,), (3,)]
    await database.close()


async def test_an_interrupted_concurrent_index_is_dropped_and_built_again(any_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_index.sql": CONCURRENT}
    database = database_at(any_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        await cut_off(
            any_database,
            files,
            2,
            "query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock' AND state = 'active'",
        )
    assert indexes(any_database) == {"a_id"}
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert outcome.applied[0][0].leftover == "public.a_id"
    assert indexes(any_database) == {"a_id", "a_id_desc"}
    with psycopg.connect(any_database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
    events = await database.journal(2)
    assert ("statement", "dropped") in [(event.event, event.outcome) for event in events]
    await database.close()


@pytest.mark.parametrize("took_effect", [True, False])
async def test_whether_a_lone_statement_took_effect_is_found_out_by_looking(
    fresh_database: str, took_effect: bool
) -> None:
    files = {"1_a.sql": table("a"), "2_index.sql": CONCURRENT}
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        # as if the process had died while the second statement ran, or before
        connection.execute("DROP INDEX a_id_desc")
        connection.execute(
            "UPDATE schema_migrations SET status = 'running', statements_done = 0, statements_digest = '', intent_before = 'absent', "
            "intent_object = 'index public.a_id', intent_digest = %s WHERE version = 2",
            [
                intent_digest(
                    split(Script(CONCURRENT.partition("MIGRATION\n")[2].partition("\n--")[0], "x", 1))[0]
                )
            ],
        )
        if not took_effect:
            connection.execute("DROP INDEX a_id")
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None, outcome.problem
    assert outcome.applied[0][0].first_statement == (1 if took_effect else 0)
    assert indexes(fresh_database) == {"a_id", "a_id_desc"}
    await database.close()


async def test_what_nothing_tells_is_for_a_person(fresh_database: str) -> None:
    files = {
        "1_p.sql": migration(
            "CREATE TABLE a (id int); CREATE PROCEDURE p() LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO a VALUES (1); COMMIT; PERFORM pg_sleep(60); END $$;"
        ),
        "2_call.sql": migration("CALL p();\nINSERT INTO a VALUES (2);", directive="no-transaction"),
    }
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    outcome = await bring(database, declare(files, 2))
    assert outcome.plan is not None
    (refusal,) = outcome.plan.refusals
    assert refusal.reason is Reason.OUTCOME_UNKNOWN
    assert "whether statement 1 took effect is not known" in refusal.message
    assert (refusal.statement_index, refusal.excerpt) == (1, "CALL p();\n^")
    assert str(refusal.place) == "migrations/2_call.sql:3:1"
    assert "repair --mark-applied 2" in refusal.remedy
    await database.close()


async def test_a_call_that_was_cancelled_is_not_run_again_unasked(fresh_database: str) -> None:
    files = {
        "1_p.sql": migration(
            "CREATE TABLE a (id int); CREATE PROCEDURE p() LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO a VALUES (1); COMMIT; PERFORM pg_sleep(60); END $$;"
        ),
        "2_call.sql": migration("CALL p();", "DELETE FROM a;", "no-transaction"),
    }
    database = database_at(fresh_database)
    running = asyncio.create_task(bring(database, declare(files, 2)))
    async with asyncio.timeout(20):
        await _until_sleeping(fresh_database)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    outcome = await bring(database, declare(files, 2))
    assert outcome.plan is not None
    assert [problem.reason for problem in outcome.plan.refusals] == [Reason.OUTCOME_UNKNOWN]
    # one that was found wrong before it ran leaves no doubt
    files["2_call.sql"] = migration("CALL nosuch();", directive="no-transaction")
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE version = 2")
    assert (await bring(database, declare(files, 2, retry=True))).problem is not None
    files["2_call.sql"] = migration("SELECT 1;", directive="no-transaction")
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()


async def test_a_down_that_left_something_behind_is_not_forgotten(fresh_database: str) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_i.sql": migration("CREATE INDEX i ON a (id);", "DROP INDEX CONCURRENTLY i;"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    with psycopg.connect(fresh_database) as reader:
        reader.execute("SELECT * FROM a")
        running = asyncio.create_task(bring(database, declare(files, 1)))
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            async with asyncio.timeout(20):
                while connection.execute("SELECT 1 FROM pg_index WHERE NOT indisvalid").fetchone() is None:
                    await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (row,) = await database.applied(2)
    assert row.status is RowStatus.FAILED
    assert (await bring(database, declare(files, 1))).problem is None
    assert indexes(fresh_database) == set()
    await database.close()


async def test_a_down_that_did_nothing_leaves_the_row_as_the_up_wrote_it(fresh_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_x.sql": migration("SELECT 1; SELECT 2;", "VACUUM nowhere;")}
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    before = (await database.observe()).rows
    assert (await bring(database, declare(files, 1))).problem is not None
    assert (await database.observe()).rows == before
    await database.close()


async def test_our_invalid_index_does_not_survive_a_file_mended_into_a_transaction(
    fresh_database: str,
) -> None:
    files = {"1_a.sql": table("a"), "2_i.sql": migration("CREATE UNIQUE INDEX CONCURRENTLY i ON a (id);")}
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("INSERT INTO a VALUES (1), (1)")
        assert (await bring(database, declare(files, 2))).problem is not None
        connection.execute("DELETE FROM a")
        files["2_i.sql"] = migration("CREATE UNIQUE INDEX IF NOT EXISTS i ON a (id);")
        assert (await bring(database, declare(files, 2))).problem is None
        assert connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
    await database.close()


async def test_an_invalid_index_of_another_schema_is_nothing_to_us(fresh_database: str) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_i.sql": migration("CREATE INDEX CONCURRENTLY /* now */ IF NOT EXISTS i ON a (id);"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA o; CREATE TABLE o.t (id int); INSERT INTO o.t VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON o.t (id)")
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()


@pytest.mark.parametrize(
    "setting", ["SET search_path = app", "SELECT pg_catalog.set_config('search_path', 'app', false)"]
)
async def test_what_the_script_made_of_the_session_is_made_again(fresh_database: str, setting: str) -> None:
    script = (
        f"{setting};\nINSERT INTO t VALUES (1);\n"
        "INSERT INTO t SELECT 2 FROM pg_sleep(1.5);\nCREATE INDEX CONCURRENTLY t_id ON t (id);"
    )
    files = {
        "1_app.sql": migration("CREATE SCHEMA app; CREATE TABLE app.t (id int);"),
        "2_fill.sql": migration(script, directive="no-transaction"),
    }
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None, outcome.problem
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM app.t ORDER BY id").fetchall() == [(1,), (2,)]
        assert connection.execute("SELECT to_regclass('app.t_id') IS NOT NULL").fetchone() == (True,)
    await database.close()


async def test_statements_run_as_the_role_that_the_script_took(fresh_database: str) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS statement_steps_owner")
        connection.execute("CREATE ROLE statement_steps_owner")
        connection.execute("CREATE SCHEMA app AUTHORIZATION statement_steps_owner")
    script = "SET ROLE statement_steps_owner;\nCREATE TABLE app.one (id int);\nCREATE TABLE app.two (id int);"
    database = database_at(fresh_database)
    outcome = await bring(database, declare({"1_x.sql": migration(script, directive="no-transaction")}, 1))
    assert outcome.problem is None, outcome.problem
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        owners = connection.execute(
            "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'app'"
        ).fetchall()
        connection.execute("DROP SCHEMA app CASCADE")
        connection.execute("DROP ROLE statement_steps_owner")
    assert sorted(owners) == [("one", "statement_steps_owner"), ("two", "statement_steps_owner")]
    await database.close()


async def test_what_only_the_server_knows_to_need_no_transaction_is_run_alone(fresh_database: str) -> None:
    script = (
        "CREATE TABLE a (id int) PARTITION BY LIST (id);\nCREATE TABLE a1 PARTITION OF a FOR VALUES IN (1);\n"
        "CREATE INDEX a_id ON a (id);\nREINDEX TABLE a;\nCREATE TABLE b (id int);"
    )
    database = database_at(fresh_database)
    outcome = await bring(database, declare({"1_x.sql": migration(script, directive="no-transaction")}, 1))
    assert outcome.problem is None, outcome.problem
    await database.close()


async def test_being_asked_to_stop_cancels_the_statement_and_goes_on_there_the_next_time(
    fresh_database: str,
) -> None:
    database = database_at(fresh_database)
    slow = migration(
        "INSERT INTO a VALUES (1);\nSELECT pg_sleep(60) FROM a WHERE id < 2;", directive="no-transaction"
    )
    running = asyncio.create_task(bring(database, declare({"1_a.sql": table("a"), "2_slow.sql": slow}, 2)))
    async with asyncio.timeout(20):
        await _until_sleeping(fresh_database)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (row,) = await database.applied(2)
    assert row.status is RowStatus.FAILED
    assert (await database.journal(2))[-1].outcome == "interrupted"
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("DELETE FROM a")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_slow.sql": slow}, 2))
    assert outcome.problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
    await database.close()


async def test_being_asked_to_stop_rolls_a_transaction_back(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": migration("CREATE TABLE a (id int); SELECT pg_sleep(60);")}
    running = asyncio.create_task(bring(database, declare(files, 1)))
    async with asyncio.timeout(20):
        await _until_sleeping(fresh_database)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT to_regclass('a')").fetchone() == (None,)
        assert connection.execute("SELECT owner FROM schema_migrations_lock").fetchone() == (None,)
    assert (await database.journal())[-1].outcome == "interrupted"
    assert (await bring(database, declare({"1_a.sql": table("a")}, 1))).problem is None
    await database.close()


async def test_a_concurrent_index_waits_for_older_transactions_beyond_the_lock_timeout(
    fresh_database: str,
) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_index.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);")}
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as older:
        older.execute("INSERT INTO a VALUES (1)")
        running = asyncio.create_task(
            bring(database, declare(files, 2, timeouts=Timeouts(lock_timeout=0.05)))
        )
        await asyncio.sleep(0.5)
        assert not running.done()
    outcome = await running
    assert outcome.problem is None
    assert indexes(fresh_database) == {"a_id"}
    await database.close()


async def test_an_invalid_index_of_our_own_failed_build_is_built_again(any_database: str) -> None:
    database = database_at(any_database)
    build = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);"
    files = {"1_a.sql": table("a"), "2_index.sql": migration(build, "DROP INDEX CONCURRENTLY a_id;")}
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database, autocommit=True) as connection:
        connection.execute("INSERT INTO a VALUES (1), (1)")
        failed = await bring(database, declare(files, 2))
        assert failed.problem is not None
        assert failed.problem.sqlstate == "23505"
        connection.execute("DELETE FROM a")
        assert (await bring(database, declare(files, 2, retry=True))).problem is None
        assert connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
    assert indexes(any_database) == {"a_id"}
    await database.close()


async def test_if_not_exists_does_not_hide_the_invalid_index_of_somebody_else(any_database: str) -> None:
    database = database_at(any_database)
    build = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);"
    files = {"1_a.sql": table("a"), "2_index.sql": migration(build, "DROP INDEX CONCURRENTLY a_id;")}
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database, autocommit=True) as connection:
        connection.execute("INSERT INTO a VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)")
        connection.execute("DELETE FROM a")
        for _ in range(2):
            failed = await bring(database, declare(files, 2, retry=True))
            assert failed.problem is not None
            assert "invalid" in failed.problem.message
        connection.execute('DROP INDEX CONCURRENTLY "public"."a_id"')
    assert (await bring(database, declare(files, 2, retry=True))).problem is None
    await database.close()


async def test_statements_between_a_scripts_own_begin_and_commit_are_done_when_it_commits(
    fresh_database: str,
) -> None:
    database = database_at(fresh_database)
    head = "INSERT INTO a VALUES (1);\nBEGIN;\nINSERT INTO a VALUES (2);\n"
    broken = migration(head + "SELECT 1/0;\nCOMMIT;", directive="no-transaction")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": broken}, 2))
    assert outcome.problem is not None
    assert "1 of its 5 statements are in force" in outcome.problem.message

    endless = migration(head + "INSERT INTO a VALUES (3);", directive="no-transaction")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": endless}, 2))
    assert outcome.plan is not None
    (refusal,) = outcome.plan.refusals
    assert refusal.reason is Reason.MIGRATION_INVALID
    assert str(refusal.place) == "migrations/2_x.sql:4:1"

    mended = migration(head + "COMMIT;\nVACUUM a;", directive="no-transaction")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": mended}, 2))
    assert outcome.problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM a ORDER BY id").fetchall() == [(1,), (2,)]
    await database.close()


async def test_a_down_that_failed_at_its_first_statement_never_began(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_x.sql": migration("VACUUM a;", "VACUUM nowhere;", "no-transaction")}
    await bring(database, declare(files, 2))
    outcome = await bring(database, declare(files, 1))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.DOWN_FAILED
    assert (await bring(database, declare(files, 2))).plan.in_sync  # type: ignore[union-attr]
    await database.close()


@pytest.mark.parametrize(
    "setting",
    [
        "SET ROLE pg_monitor",
        "SET default_transaction_read_only = on",
        "SET search_path = nowhere",
        "SET SESSION AUTHORIZATION pg_monitor",
    ],
)
async def test_what_a_script_makes_of_the_session_does_not_keep_its_progress_from_being_written(
    fresh_database: str, setting: str
) -> None:
    database = database_at(fresh_database)
    script = migration(f"{setting};\nSELECT 1;\nSELECT 2;", directive="no-transaction")
    outcome = await bring(database, declare({"1_x.sql": script, "2_a.sql": table("a")}, 2))
    assert outcome.problem is None
    assert [row.version for row in await database.applied()] == [1, 2]
    await database.close()


async def test_a_failed_step_outside_a_transaction_may_be_mended_into_one(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_i.sql": migration("CREATE INDEX CONCURRENTLY i ON nosuch (id);")}
    assert (await bring(database, declare(files, 2))).problem is not None
    files["2_i.sql"] = migration("CREATE INDEX i ON a (id);")
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()


async def test_a_dropped_lock_stops_a_statement_that_no_rollback_would_undo(fresh_database: str) -> None:
    database = database_at(fresh_database)
    script = migration(
        "CREATE TABLE late (id int);\nSELECT pg_advisory_unlock_all();\nCREATE INDEX CONCURRENTLY late_id ON late (id);",
        directive="no-transaction",
    )
    outcome = await bring(database, declare({"1_x.sql": script}, 1))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_LOST
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT to_regclass('late_id')").fetchone() == (None,)
    await database.close()


async def test_a_statement_timeout_ends_with_its_statement(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {
        "1_a.sql": table("a"),
        "2_x.sql": migration(
            "SET statement_timeout = '1h';\nVACUUM a;\nSELECT current_setting('x.y', true);",
            directive="no-transaction",
        ),
        "3_b.sql": table("b"),
    }
    assert (await bring(database, declare(files, 3))).problem is None
    await database.close()


async def _until_sleeping(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        ).fetchone():
            await asyncio.sleep(0.02)


async def test_a_comment_does_not_make_a_transaction_read_only(fresh_database: str) -> None:
    script = "BEGIN /* READ ONLY */ READ WRITE;\nINSERT INTO a VALUES (1);\nCOMMIT;\nSELECT pg_sleep(1.5);"
    files = {"1_a.sql": table("a"), "2_x.sql": migration(script, directive="no-transaction")}
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    assert (await bring(database, declare(files, 2))).problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM a").fetchall() == [(1,)]
    await database.close()


async def test_settings_that_were_rolled_back_are_not_made_again(fresh_database: str) -> None:
    script = (
        "BEGIN;\nSET search_path = app;\nSAVEPOINT s;\nSET search_path = nowhere;\nROLLBACK TO s;\nCOMMIT;\n"
        "BEGIN;\nSET search_path = nowhere;\nROLLBACK;\n"
        "INSERT INTO t VALUES (1);\nINSERT INTO t SELECT 2 FROM pg_sleep(1.5);\nINSERT INTO t VALUES (3);"
    )
    files = {
        "1_app.sql": migration("CREATE SCHEMA app; CREATE TABLE app.t (id int);"),
        "2_fill.sql": migration(script, directive="no-transaction"),
    }
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None, outcome.problem
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM app.t ORDER BY id").fetchall() == [(1,), (2,), (3,)]
    await database.close()


BUILD = "CREATE INDEX CONCURRENTLY i ON a (id);"


@pytest.mark.parametrize(
    ("script", "until", "in_force"),
    [
        ("INSERT INTO b SELECT 1 FROM pg_sleep(1);", "wait_event = 'PgSleep'", "0 of its 1"),
        (
            "BEGIN; INSERT INTO b VALUES (1); SELECT pg_sleep(1); COMMIT;",
            "wait_event = 'PgSleep'",
            "0 of its 4",
        ),
        (BUILD, "query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'", "1 of its 1"),
        (
            BUILD + BUILD.replace("i ON", "j ON"),
            "query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'",
            "1 of its 2",
        ),
    ],
    ids=["record", "block", "end", "intent"],
)
async def test_a_row_that_is_deleted_by_hand_meanwhile_stops_the_migration(
    fresh_database: str, script: str, until: str, in_force: str
) -> None:
    files = {"1_a.sql": migration("CREATE TABLE a (id int); CREATE TABLE b (id int);")}
    files["2_x.sql"] = migration(script, directive="no-transaction")
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as older, psycopg.connect(fresh_database, autocommit=True) as other:
        older.execute("INSERT INTO a VALUES (1)")
        running = asyncio.create_task(bring(database, declare(files, 2)))
        async with asyncio.timeout(20):
            while not other.execute(
                f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND {until}".encode()
            ).fetchone():
                await asyncio.sleep(0.02)
        other.execute("DELETE FROM schema_migrations WHERE version = 2")
        older.commit()
        outcome = await running
        assert other.execute("SELECT count(*) FROM b").fetchone() == (0,)
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_FAILED
    assert "somebody deleted the row of migration 2" in outcome.problem.message
    assert in_force in outcome.problem.message
    assert (await database.journal(2))[-1].outcome == "failed"
    # it is for a person to say what is to become of what is in force
    again = await bring(database, declare(files, 2))
    assert again.plan is not None
    assert again.plan.refusals
    await database.close()


async def test_a_down_that_was_cut_off_before_its_first_statement_is_forgotten(fresh_database: str) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_x.sql": migration("SELECT 1;", "SELECT pg_sleep(1.5);", "no-transaction"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    await cut_off(fresh_database, files, 1, "wait_event = 'PgSleep'")
    rows = (await database.observe()).rows
    assert (rows[1].status, rows[1].direction, rows[1].statements_done) == (
        RowStatus.RUNNING,
        Direction.DOWN,
        0,
    )
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert outcome.plan is not None
    assert outcome.plan.in_sync
    assert (await database.observe()).current_version == 2
    assert (await database.journal(2))[-1].outcome == "not_run"
    assert (await bring(database, declare(files, 1))).problem is None
    await database.close()


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO a VALUES (1);\nINSERT INTO b VALUES (1);",
        "INSERT INTO a VALUES (1);\nVACUUM b;",
        "INSERT INTO a VALUES (1);\nBEGIN;\nINSERT INTO a VALUES (2);\nINSERT INTO b VALUES (1);\nDELETE FROM a WHERE id = 2;\nCOMMIT;",
    ],
    ids=["with its record", "alone", "block"],
)
async def test_a_statement_that_waited_in_vain_for_a_table_is_tried_again(
    fresh_database: str, script: str
) -> None:
    files = {
        "1_a.sql": migration("CREATE TABLE a (id int); CREATE TABLE b (id int);"),
        "2_x.sql": migration(script, directive="no-transaction"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as older, psycopg.connect(fresh_database, autocommit=True) as other:
        older.execute("LOCK TABLE b")
        running = asyncio.create_task(
            bring(database, declare(files, 2, timeouts=Timeouts(lock_timeout=0.05)))
        )
        seen: set[object] = set()
        async with asyncio.timeout(20):
            while len(seen) < 2:
                seen |= set(
                    other.execute(
                        "SELECT query_start FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    ).fetchall()
                )
                await asyncio.sleep(0.01)
        older.commit()
        outcome = await running
        assert outcome.problem is None, outcome.problem
        assert other.execute("SELECT id FROM a").fetchall() == [(1,)]
    await database.close()


async def test_a_call_that_waited_in_vain_for_a_table_is_not(fresh_database: str) -> None:
    procedure = "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO a VALUES (1); COMMIT; LOCK TABLE b; END $$;"
    files = {
        "1_a.sql": migration(f"CREATE TABLE a (id int); CREATE TABLE b (id int); {procedure}"),
        "2_x.sql": migration("CALL p();", directive="no-transaction"),
    }
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as older:
        older.execute("LOCK TABLE b")
        outcome = await bring(database, declare(files, 2, timeouts=Timeouts(lock_timeout=0.05)))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_TIMEOUT
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM a").fetchall() == [(1,)]
    await database.close()


@pytest.mark.parametrize("before", [True, False], ids=["before a block", "within"])
@pytest.mark.parametrize("forgetting", ["DEALLOCATE ALL", "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"])
async def test_a_script_that_throws_away_what_is_prepared_is_recorded_all_the_same(
    fresh_database: str, forgetting: str, before: bool
) -> None:
    script = (
        f"INSERT INTO a VALUES (1);\n{forgetting if before else 'SELECT 1'};\nINSERT INTO a VALUES (2);\nBEGIN;\n{forgetting};\n"
        "INSERT INTO a VALUES (3);\nCOMMIT;\nINSERT INTO a SELECT 4 FROM pg_sleep(1.5);"
    )
    files = {"1_a.sql": table("a"), "2_x.sql": migration(script, directive="no-transaction")}
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    assert (await database.observe()).rows[1].statements_done == 7
    assert (await bring(database, declare(files, 2))).problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT id FROM a ORDER BY id").fetchall() == [(1,), (2,), (3,), (4,)]
    await database.close()
