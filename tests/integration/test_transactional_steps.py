"""A transactional step: all of it or nothing, recorded with it, and failures that name their place."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from reconciler.manifest import Timeouts
from reconciler.model import Direction, Plan, Reason, RowStatus, ScriptSource, Step, StepResult
from reconciler.operations import Silent
from tests.applying import bring, database_at, declare, migration, table
from tests.servers import TestServer


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows if not name.startswith("schema_migrations")}


async def test_up_and_down_reach_the_target_and_leave_a_history(any_database: str) -> None:
    database = database_at(any_database)
    files = {"1_a.sql": table("a"), "2_b.sql": table("b"), "10_c.sql": table("c")}

    up = await bring(database, declare(files, 10))
    assert up.problem is None
    assert [(step.version, step.direction) for step, _ in up.applied] == [
        (v, Direction.UP) for v in (1, 2, 10)
    ]
    assert tables(any_database) == {"a", "b", "c"}

    down = await bring(database, declare(files, 1))
    assert [(step.version, step.direction) for step, _ in down.applied] == [
        (10, Direction.DOWN),
        (2, Direction.DOWN),
    ]
    assert tables(any_database) == {"a"}

    assert [row.version for row in await database.applied()] == [1]
    events = await database.journal()
    assert [(e.event, e.version, e.direction, e.outcome) for e in events if e.event == "finished"] == [
        ("finished", 1, "up", "success"),
        ("finished", 2, "up", "success"),
        ("finished", 10, "up", "success"),
        ("finished", 10, "down", "success"),
        ("finished", 2, "down", "success"),
    ]
    assert all(event.details["git_revision"] == "a" * 40 for event in events)
    assert [event.event for event in events] == ["started", "finished"] * 5
    assert len({event.attempt for event in events}) == 5
    for started, finished in zip(events[::2], events[1::2], strict=True):
        assert (started.attempt, started.version) == (finished.attempt, finished.version)
    await database.close()


async def test_nothing_to_do_writes_nothing_and_takes_no_lock(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a")}
    await bring(database, declare(files, 0))
    assert tables(fresh_database) == set()
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,)
    await bring(database, declare(files, 1))
    before = await database.journal()
    with psycopg.connect(fresh_database) as connection:
        fence = connection.execute("SELECT fence FROM schema_migrations_lock").fetchone()
        await bring(database, declare(files, 1))
        assert connection.execute("SELECT fence FROM schema_migrations_lock").fetchone() == fence
    assert await database.journal() == before
    await database.close()


async def test_a_down_whose_file_is_gone_runs_from_the_stored_script(fresh_database: str) -> None:
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a"), "2_b.sql": table("b")}, 2))

    outcome = await bring(database, declare({"1_a.sql": table("a")}, 1))

    ((step, _),) = outcome.applied
    assert (step.version, step.source) == (2, ScriptSource.STORED)
    assert tables(fresh_database) == {"a"}
    await database.close()


async def test_a_failing_statement_is_named_with_place_and_caret_and_nothing_is_half_applied(
    any_database: str,
) -> None:
    database = database_at(any_database)
    broken = migration("CREATE TABLE half (id int);\n\nINSERT INTO half\nVALUES ('ü', nope);\nSELECT 1;")
    files = {"1_a.sql": table("a"), "2_half.sql": broken}

    outcome = await bring(database, declare(files, 2))

    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.STATEMENT_FAILED
    assert str(problem.place) == "migrations/2_half.sql:5:14"
    assert problem.sqlstate == "42703"
    assert problem.statement_index == 2
    assert problem.excerpt.splitlines()[1].index("^") == 13
    assert "statement 2 of 3" in problem.message
    assert "nothing of it is in force" in problem.message
    assert tables(any_database) == {"a"}
    assert [step.version for step, _ in outcome.applied] == [1]
    row = (await database.applied(2))[0]
    assert row.status is RowStatus.FAILED
    assert row.error_message is not None
    assert "migrations/2_half.sql:5:14" in row.error_message
    await database.close()


async def test_a_runtime_error_without_position_is_placed_at_its_statement(any_database: str) -> None:
    database = database_at(any_database)
    script = "CREATE TABLE t (id int PRIMARY KEY);\nINSERT INTO t VALUES (1);\n  INSERT INTO t VALUES (1);\nSELECT 1;"
    outcome = await bring(database, declare({"1_t.sql": migration(script)}, 1))
    assert outcome.problem is not None
    assert str(outcome.problem.place) == "migrations/1_t.sql:4:3"
    assert outcome.problem.sqlstate == "23505"
    assert "(id)=(***)" in outcome.problem.detail
    await database.close()


async def test_a_failure_stalls_until_the_file_changes_or_a_retry_is_asked_for(fresh_database: str) -> None:
    from tests.applying import actor

    database = database_at(fresh_database)
    files = {"1_a.sql": migration("SELECT 1/0;")}
    await bring(database, declare(files, 1))
    attempts = len(await database.journal())

    stalled = await bring(database, declare(files, 1))
    assert stalled.applied == ()
    assert stalled.plan is not None
    assert stalled.plan.refusals[0].reason is Reason.STATEMENT_FAILED
    assert str(stalled.plan.refusals[0].place) == "migrations/1_a.sql:2:1"
    assert len(await database.journal()) == attempts

    fixed = await bring(database, declare({"1_a.sql": table("a")}, 1))
    assert fixed.problem is None
    assert tables(fresh_database) == {"a"}

    broken_down = {"1_a.sql": migration("CREATE TABLE a (id int);", "SELECT 1/0;")}
    await bring(database, declare({"1_a.sql": table("a")}, 0))
    await bring(database, declare(broken_down, 1))
    failed = await bring(database, declare(broken_down, 0))
    assert failed.problem is not None
    assert failed.problem.reason is Reason.DOWN_FAILED
    assert (await bring(database, declare(broken_down, 0))).plan.refusals[0].reason is Reason.DOWN_FAILED  # type: ignore[union-attr]
    await database.request_retry(actor())
    again = await bring(database, declare(broken_down, 0))
    assert again.problem is not None
    await database.close()


async def test_a_failed_down_leaves_the_row_as_it_was(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": migration("CREATE TABLE a (id int);", "DROP TABLE a; SELECT 1/0;")}
    await bring(database, declare(files, 1))
    outcome = await bring(database, declare(files, 0))
    assert outcome.problem is not None
    assert [(row.version, row.status) for row in await database.applied()] == [(1, RowStatus.SUCCESS)]
    assert tables(fresh_database) == {"a"}
    await database.close()


@pytest.mark.parametrize(
    "script",
    [
        "SET search_path = nowhere; CREATE TABLE public.a (id int);",
        "SET LOCAL search_path = nowhere; CREATE TABLE public.a (id int);",
        "SELECT set_config('search_path', '', false); CREATE TABLE public.a (id int);",
        "CREATE TABLE public.a (id int); SET standard_conforming_strings = off;",
        "CREATE TABLE public.a (id int); SET default_transaction_read_only = on;",
        "CREATE TABLE public.a (id int); SET statement_timeout = 1; SET lock_timeout = 1;",
        "CREATE TABLE public.a (id int); CREATE TEMPORARY TABLE schema_migrations (nope int);",
        "CREATE TABLE public.a (id int); DECLARE c CURSOR WITH HOLD FOR SELECT 1; PREPARE p AS SELECT 1; LISTEN x;",
        "CREATE TABLE public.a (id int) -- no semicolon at the end",
        "CREATE TABLE public.a (id int); /* a comment /* nested */ at the end */",
    ],
)
async def test_what_a_script_does_to_the_session_reaches_neither_its_row_nor_the_next_one(
    fresh_database: str, script: str
) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": migration(script, "DROP TABLE public.a;"), "2_b.sql": table("b")}
    outcome = await bring(database, declare(files, 2))
    assert outcome.problem is None
    assert tables(fresh_database) == {"a", "b"}
    assert [row.version for row in await database.applied()] == [1, 2]
    await database.close()


async def test_a_percent_sign_stays_one(fresh_database: str) -> None:
    database = database_at(fresh_database)
    script = "CREATE TABLE a (t text); INSERT INTO a VALUES ('100% %s :name ${x} {y}');"
    await bring(database, declare({"1_a.sql": migration(script)}, 1))
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT t FROM a").fetchone() == ("100% %s :name ${x} {y}",)
    await database.close()


async def test_a_deferred_constraint_fails_the_step_and_not_the_commit(fresh_database: str) -> None:
    database = database_at(fresh_database)
    script = (
        "CREATE TABLE p (id int PRIMARY KEY); "
        "CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1);"
    )
    outcome = await bring(database, declare({"1_a.sql": migration(script)}, 1))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_FAILED
    assert "deferred constraint" in outcome.problem.message
    assert tables(fresh_database) == set()
    await database.close()


async def test_steps_are_announced_only_when_they_are_durable(fresh_database: str) -> None:
    heard: list[tuple[int, bool]] = []

    class Hears(Silent):
        def started(self, step: Step) -> None:
            heard.append((step.version, False))

        def finished(self, step: Step, result: StepResult) -> None:
            heard.append((step.version, True))

    database = database_at(fresh_database)
    few = {f"{n}_t.sql": table(f"t{n}") for n in (1, 2, 3)}
    await bring(database, declare(few, 3), listener=Hears())
    assert heard == [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True)]
    heard.clear()
    await bring(database, declare(few, 1), listener=Hears())
    assert heard == [(3, False), (3, True), (2, False), (2, True)]
    heard.clear()
    many = {f"{n}_t.sql": table(f"t{n}") for n in range(1, 31)}
    await bring(database, declare(many, 30), listener=Hears())
    assert heard == [(n, False) for n in range(2, 31)] + [(n, True) for n in range(2, 31)]
    await database.close()


async def test_it_stops_at_a_step_boundary_when_something_newer_is_declared(fresh_database: str) -> None:
    begun: list[int] = []
    finished: list[int] = []

    class Hears(Silent):
        def started(self, step: Step) -> None:
            begun.append(step.version)

        def finished(self, step: Step, result: StepResult) -> None:
            finished.append(step.version)

    database = database_at(fresh_database)
    files = {f"{n}_t.sql": table(f"t{n}") for n in (1, 2, 3)}
    outcome = await bring(database, declare(files, 3), listener=Hears(), superseded=lambda: len(begun) == 2)
    assert outcome.superseded
    assert begun == finished == [1, 2]
    assert tables(fresh_database) == {"t1", "t2"}
    events = [(event.event, event.version, event.outcome) for event in await database.journal()]
    assert events == [
        ("started", 1, None),
        ("finished", 1, "success"),
        ("started", 2, None),
        ("finished", 2, "success"),
        ("started", 3, None),
        ("finished", 3, "not_run"),
    ]
    await bring(database, declare(files, 3))
    assert [event.outcome for event in await database.journal()][-2:] == [None, "success"]
    await database.close()


async def test_what_was_announced_with_a_step_that_rolled_back_is_not_in_the_journal(
    fresh_database: str,
) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_b.sql": migration("SELECT 1/0;"), "3_c.sql": table("c")}
    await bring(database, declare(files, 3))
    events = [(event.event, event.version, event.outcome) for event in await database.journal()]
    assert events == [
        ("started", 1, None),
        ("finished", 1, "success"),
        ("started", 2, None),
        ("finished", 2, "failed"),
    ]
    await bring(database, declare({**files, "2_b.sql": table("b")}, 3))
    assert [row.version for row in await database.applied()] == [1, 2, 3]
    await database.close()


async def test_a_statement_timeout_is_named(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": migration("SELECT pg_sleep(30);", directive="statement-timeout 100ms")}
    outcome = await bring(database, declare(files, 1))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_TIMEOUT
    assert "statement_timeout is 0.1 s" in outcome.problem.message
    await database.close()


async def test_a_lock_on_a_table_is_waited_for_in_short_turns_and_given_up_for_half_an_hour(
    fresh_database: str,
) -> None:
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    files = {"1_a.sql": table("a"), "2_b.sql": migration("ALTER TABLE a ADD COLUMN b int;")}
    declared = declare(files, 2, timeouts=Timeouts(lock_timeout=0.01))
    with psycopg.connect(fresh_database) as blocker:
        blocker.execute("SELECT * FROM a")
        outcome = await bring(database, declared)
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_TIMEOUT
    failed_at = datetime.now(UTC)
    for waited in (timedelta(0), timedelta(minutes=29)):
        resting = await bring(database, declared, now=failed_at + waited)
        assert resting.plan is not None
        assert [problem.reason for problem in resting.plan.refusals] == [Reason.LOCK_TIMEOUT]
    again = await bring(database, declared, now=failed_at + timedelta(minutes=30))
    assert again.problem is None
    assert [(step.version, step.direction) for step, _ in again.applied] == [(2, Direction.UP)]
    await database.close()


async def test_a_thousand_statements_and_a_megabyte_travel_in_one_step(fresh_database: str) -> None:
    database = database_at(fresh_database)
    rows = "\n".join(f"INSERT INTO big VALUES ({n}, '{'x' * 1000}');" for n in range(1000))
    outcome = await bring(
        database, declare({"1_big.sql": migration("CREATE TABLE big (id int, t text);\n" + rows)}, 1)
    )
    assert outcome.problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT count(*) FROM big").fetchone() == (1000,)
    await database.close()


async def test_rows_beyond_the_plan_are_planned_again_under_the_lock(fresh_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_b.sql": table("b")}
    first, second = database_at(fresh_database), database_at(fresh_database)
    plans: list[Plan] = []

    class Hears(Silent):
        def planned(self, observation: object, plan: Plan) -> None:
            plans.append(plan)

    await bring(first, declare(files, 1))

    async def other_was_faster(observation: object, plan: Plan) -> None:
        await bring(first, declare(files, 2))

    from reconciler.operations import apply
    from tests.applying import CLAIM, actor

    outcome = await apply(
        second,
        declare(files, 2),
        actor(CLAIM),
        now=lambda: datetime.now(UTC),
        acquire_timeout=5,
        listener=Hears(),
        admit=other_was_faster,
    )
    assert outcome.problem is None
    assert outcome.applied == ()
    assert [len(plan.steps) for plan in plans] == [1, 0]
    await first.close()
    await second.close()


async def test_a_transaction_that_fails_at_its_commit_is_a_failure(any_database: str) -> None:
    """A trigger that defers constraints anew passes the check before COMMIT and fails in it."""
    database = database_at(any_database)
    script = (
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE c (p int CONSTRAINT c_p REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        "CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER a_first AFTER INSERT ON c DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION defer();"
        "INSERT INTO c VALUES (1);"
    )
    outcome = await bring(database, declare({"1_a.sql": migration(script)}, 1))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_FAILED
    assert outcome.applied == ()
    assert tables(any_database) == set()
    assert (await database.journal())[-1].outcome == "failed"
    stalled = await bring(database, declare({"1_a.sql": migration(script)}, 1))
    assert stalled.plan is not None
    assert stalled.plan.refusals[0].reason is Reason.STATEMENT_FAILED
    await database.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("DROP SCHEMA public CASCADE; CREATE SCHEMA public;", Reason.STATEMENT_FAILED),
        ("SET TRANSACTION READ ONLY;", Reason.STATEMENT_FAILED),
        (
            "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1/0; RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();"
            "INSERT INTO t VALUES (1);",
            Reason.STATEMENT_FAILED,
        ),
    ],
)
async def test_what_a_script_does_to_its_own_end_is_its_failure(
    fresh_database: str, script: str, reason: Reason
) -> None:
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": migration(script)}, 2))
    assert outcome.problem is not None
    assert outcome.problem.reason is reason
    again = await bring(database, declare({"1_a.sql": table("a"), "2_x.sql": migration(script)}, 2))
    assert again.plan is not None
    assert again.plan.refusals[0].reason is reason
    await database.close()


async def test_a_lock_on_our_own_tables_does_not_hold_up_the_tables_of_the_migration(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.database import session

    monkeypatch.setattr(session, "BOOKKEEPING_LIMITS", ("SET LOCAL lock_timeout = 200",))
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    files = {"1_a.sql": table("a"), "2_b.sql": table("b")}
    with psycopg.connect(fresh_database) as other:
        other.execute("LOCK TABLE schema_migrations IN SHARE MODE")
        outcome = await bring(database, declare(files, 2))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_HELD
    assert "own tables" in outcome.problem.message
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()


async def test_operators_of_other_people_do_not_run_in_our_statements(any_database: str) -> None:
    database = database_at(any_database)
    await bring(database, declare({"1_a.sql": migration("SELECT 1/0;")}, 1))
    with psycopg.connect(any_database, autocommit=True) as other:
        other.execute("CREATE TABLE loot (who text)")
        other.execute(
            "CREATE FUNCTION steal(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO loot VALUES (current_user); RETURN $1::text OPERATOR(pg_catalog.=) $2::text; END $$"
        )
        other.execute("CREATE OPERATOR public.= (FUNCTION = steal, LEFTARG = varchar, RIGHTARG = varchar)")
        await database.close()
        await database.observe()
        await bring(database, declare({"1_a.sql": table("a")}, 1))
        await bring(database, declare({"1_a.sql": table("a")}, 0))
        assert other.execute("SELECT * FROM loot").fetchall() == []
    await database.close()


async def test_millions_of_rows_that_a_script_returns_are_not_kept(fresh_database: str) -> None:
    import resource

    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big = migration("SELECT i, repeat('x', 100) FROM generate_series(1, 400000) i;\nCREATE TABLE b (id int);")
    outcome = await bring(database, declare({"1_a.sql": table("a"), "2_big.sql": big}, 2))
    assert outcome.problem is None
    assert outcome.applied[0][1].duration > 0
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    )  # kilobytes; the rows are over 40,000
    await database.close()


async def test_time_limits_of_a_role_do_not_end_a_migration(fresh_database: str) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        name = connection.info.dbname
        for setting in ("transaction_timeout", "statement_timeout", "idle_session_timeout", "lock_timeout"):
            connection.execute(f'ALTER DATABASE "{name}" SET {setting} = 300')
    database = database_at(fresh_database)
    outcome = await bring(database, declare({"1_a.sql": migration("SELECT pg_sleep(0.6);")}, 1))
    assert outcome.problem is None
    await database.close()


async def test_a_database_that_cannot_hold_our_names_still_records(server: TestServer) -> None:
    import dataclasses

    from tests.applying import CLAIM, actor

    name = server.create_database()
    server.drop_database(name)
    server.execute(f"CREATE DATABASE \"{name}\" ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    database = database_at(server.dsn(name))
    someone = dataclasses.replace(actor(CLAIM), git_author="Łukasz Żółć <l@example.org>")
    outcome = await bring(
        database,
        declare({"1_ä.sql": migration("CREATE TABLE ä (id int);", "DROP TABLE ä;")}, 1),
        as_actor=someone,
    )
    assert outcome.problem is None
    assert (await bring(database, declare({}, 0))).problem is None
    await database.close()
    server.drop_database(name)


async def test_being_told_to_stop_while_old_rows_are_completed_runs_no_step(fresh_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_b.sql": table("b")}
    database = database_at(fresh_database)
    await bring(database, declare(files, 1))
    with (
        psycopg.connect(fresh_database, autocommit=True) as watcher,
        psycopg.connect(fresh_database) as holder,
    ):
        watcher.execute("UPDATE schema_migrations SET token_checksum = NULL")
        holder.execute("LOCK TABLE schema_migrations IN SHARE MODE")
        task = asyncio.ensure_future(bring(database, declare(files, 2)))
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'schema_migrations'::regclass"
        )
        while watcher.execute(waiting).fetchone() != (1,):
            assert not task.done()
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.sleep(0.05)
        holder.rollback()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = watcher.execute("SELECT version, token_checksum IS NULL FROM schema_migrations").fetchall()
        assert found == [(1, False)]
        assert watcher.execute("SELECT to_regclass('b')").fetchone() == (None,)
    await database.close()
