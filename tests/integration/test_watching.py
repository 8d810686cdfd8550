"""A second connection looks at a step that takes its time: who blocks it, and how far it has come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.database import ConnectionSettings, open_database
from reconciler.manifest import Timeouts
from reconciler.model import Blocker, Problem, Reason, Step, StepProgress
from reconciler.operations import Silent
from reconciler.redaction import Secret
from tests.applying import bring, database_at, declare, migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import connections, journal, rows
from tests.servers import TestServer

WATCHING = "reconciler (watching)"


class Hears(Silent):
    """Remembers what was told of the running step."""

    def __init__(self) -> None:
        self.progress: list[StepProgress | None] = []
        self.blockers: list[tuple[Blocker, ...]] = []
        self.waits: list[float] = []
        self.failures: list[Problem] = []

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        self.progress.append(progress)

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        self.blockers.append(tuple(blockers))

    def waited(self, step: Step, seconds: float) -> None:
        self.waits.append(seconds)

    def unwatched(self, step: Step, problem: Problem) -> None:
        self.failures.append(problem)


async def heard(told: Sequence[object], timeout: float = 20.0) -> None:
    """Wait until something was told."""
    async with asyncio.timeout(timeout):
        while not told:
            await asyncio.sleep(0.02)


FILES = {"1_a.sql": table("a"), "2_b.sql": migration("ALTER TABLE a ADD COLUMN b int;")}


async def test_whoever_holds_a_table_is_seen_while_it_is_waited_for(any_database: str) -> None:
    database, hears = database_at(any_database), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(any_database, application_name="worker") as holder:
        holder.execute("LOCK TABLE a")
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
        # the connection that looks says so, and waits for nobody in a transaction
        assert connections(any_database, WATCHING) == 1
        (blocker,) = hears.blockers[0]
        assert blocker.pid == holder.info.backend_pid
        assert (blocker.user, blocker.application) == (holder.info.user, "worker")
        assert blocker.state == "idle in transaction"
        assert blocker.transaction_age is not None
        assert 0 < blocker.transaction_age < 30
        assert blocker.query == "", "it was not asked for"
        assert not running.done()
        holder.rollback()
        outcome = await running
    assert outcome.problem is None
    assert hears.waits[0] >= 0.6
    assert len(hears.waits) == 1
    assert connections(any_database, WATCHING) == 0
    await database.close()


async def test_the_text_of_a_query_is_shown_where_that_was_asked_for(fresh_database: str) -> None:
    database, hears = database_at(fresh_database, show_queries=True), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(fresh_database) as holder:
        holder.execute("SELECT count(*), 'anything' FROM a")
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
    assert hears.blockers[0][0].query == "SELECT count(*), 'anything' FROM a"
    assert (await running).problem is None
    await database.close()


async def test_the_text_of_a_query_is_not_kept_for_those_who_did_not_ask(fresh_database: str) -> None:
    database, hears = database_at(fresh_database, show_queries=True), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(fresh_database) as holder:
        holder.execute("LOCK TABLE a; SELECT 'hunter2'")
        outcome = await bring(
            database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=0.05)), listener=hears
        )
    assert "hunter2" in hears.blockers[-1][0].query
    assert outcome.problem is not None
    assert "blocked by pid" in outcome.problem.message
    assert "hunter2" not in str(outcome.problem)
    kept = rows(
        fresh_database, "SELECT to_jsonb(journal)::text, blockers FROM schema_migrations_journal AS journal"
    )
    assert "hunter2" not in str(kept)
    assert json.loads(str(kept[-1][1]))[0]["query"] is None
    await database.close()


async def test_a_query_is_identified_where_the_server_computes_that(any_database: str) -> None:
    database, hears = database_at(any_database), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(any_database) as holder:
        holder.execute("SET compute_query_id = on")
        holder.execute("SELECT count(*) FROM a")
        pid = holder.info.backend_pid
        ((expected,),) = rows(any_database, "SELECT query_id FROM pg_stat_activity WHERE pid = %s", pid)
        assert expected
        outcome = await bring(
            database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=0.05)), listener=hears
        )
    assert {blocker.query_id for seen in hears.blockers for blocker in seen} == {expected}
    assert outcome.problem is not None
    assert f"query id {expected}" in outcome.problem.message
    assert json.loads(journal(any_database, "finished")[-1]["blockers"])[0]["query_id"] == expected
    await database.close()


async def test_a_table_that_stays_locked_is_blamed_on_its_holder_in_problem_and_journal(
    any_database: str,
) -> None:
    database, hears = database_at(any_database), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(any_database, application_name="worker") as holder:
        holder.execute("LOCK TABLE a")
        pid, user = holder.info.backend_pid, holder.info.user
        outcome = await bring(
            database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=0.05)), listener=hears
        )
    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.LOCK_TIMEOUT
    assert f'blocked by pid {pid} (user {user}, application "worker", idle in transaction, begun' in (
        problem.message
    )
    assert f"SELECT pg_terminate_backend({pid})" in problem.remedy
    assert "reconciler retry" in problem.remedy
    finished = journal(any_database, "finished")[-1]
    assert finished["outcome"] == "failed"
    (blocker,) = json.loads(finished["blockers"])
    assert (blocker["pid"], blocker["application"], blocker["query"]) == (pid, "worker", None)
    event = (await database.journal())[-1]
    assert event.details["blockers"] == [blocker]
    # what is told of the failure later tells it, too
    failure = (await database.observe()).last_failure
    assert failure is not None
    assert f'blocked by pid {pid} (user {user}, application "worker"' in failure.message
    # ten attempts and the pauses between them are one wait
    (waited,) = hears.waits
    assert waited > 5
    await database.close()


async def test_a_failure_of_something_else_is_blamed_on_nobody(fresh_database: str) -> None:
    database, hears = database_at(fresh_database), Hears()
    files = {"1_a.sql": table("a"), "2_b.sql": migration("ALTER TABLE a ADD COLUMN b int;\nSELECT 1/0;")}
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database) as holder:
        holder.execute("LOCK TABLE a")
        running = asyncio.create_task(
            bring(database, declare(files, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
    outcome = await running
    assert outcome.problem is not None
    assert outcome.problem.sqlstate == "22012"
    assert "blocked" not in outcome.problem.message
    assert journal(fresh_database, "finished")[-1]["blockers"] is None
    assert len(hears.waits) == 1
    await database.close()


async def test_a_prepared_transaction_in_the_way_is_named(own_server: TestServer) -> None:
    own_server.stop()
    with (own_server.cluster.data / "postgresql.conf").open("a") as configuration:
        configuration.write("\nmax_prepared_transactions = 5\n")
    own_server.start()
    dsn = own_server.dsn(own_server.create_database())
    database = database_at(dsn)
    await bring(database, declare(FILES, 1))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("BEGIN; CREATE TABLE b (id int); LOCK TABLE a; PREPARE TRANSACTION 'it''s a'")
        connection.execute("BEGIN; CREATE TABLE c (id int); PREPARE TRANSACTION 'another'")
    outcome = await bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=0.05)))
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_TIMEOUT
    assert 'blocked by prepared transaction "it\'s a" (user ' in outcome.problem.message
    assert "another" not in outcome.problem.message
    assert "ROLLBACK PREPARED 'it''s a'" in outcome.problem.remedy
    # also after a restart, when the server knows it from disk
    await database.close()
    own_server.restart()
    again = await bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=0.05), retry=True))
    assert again.problem is not None
    assert 'blocked by prepared transaction "it\'s a" (user ' in again.problem.message
    await database.close()


async def test_a_concurrent_build_says_whom_it_waits_for(any_database: str) -> None:
    database, hears = database_at(any_database), Hears()
    files = {"1_a.sql": table("a"), "2_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);")}
    await bring(database, declare(files, 1))
    with psycopg.connect(any_database, application_name="old") as older:
        older.execute("INSERT INTO a VALUES (1)")
        running = asyncio.create_task(bring(database, declare(files, 2), listener=hears))
        await heard(hears.blockers)
        await heard(hears.progress)
        assert not running.done()
    assert (await running).problem is None
    assert hears.progress[0] is not None
    assert hears.progress[0].phase == "waiting for writers before build"
    assert hears.progress[0].percent is None
    assert [blocker.application for blocker in hears.blockers[0]] == ["old"]
    await database.close()


async def test_a_slow_build_tells_phase_percent_and_object(fresh_database: str) -> None:
    database, hears = database_at(fresh_database), Hears()
    slow = (
        "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.002); RETURN n; END $$;"
    )
    files = {
        "1_a.sql": migration(
            f"{slow}\nCREATE TABLE big (n int, filler text);\n"
            "INSERT INTO big SELECT n, repeat('x', 400) FROM generate_series(1, 1500) n;"
        ),
        "2_i.sql": migration("CREATE INDEX big_n ON big (slow(n));"),
    }
    await bring(database, declare(files, 1))
    outcome = await bring(database, declare(files, 2), listener=hears)
    assert outcome.problem is None
    told = [progress for progress in hears.progress if progress is not None]
    assert {progress.phase for progress in told} >= {"building index: scanning table"}
    assert {progress.object for progress in told} == {"public.big"}
    percents = [progress.percent for progress in told if progress.percent is not None]
    assert percents == sorted(percents)
    assert 0 < percents[0] < 100
    await database.close()


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ("VACUUM FULL big;", "vacuum full: rebuilding index"),
        ("ANALYZE big;", "analyze: computing statistics"),
    ],
)
async def test_other_commands_tell_their_phase(fresh_database: str, script: str, phase: str) -> None:
    database, hears = database_at(fresh_database), Hears()
    slow = (
        "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "$$ BEGIN IF current_setting('test.slow', true) = 'on' THEN PERFORM pg_sleep(0.002); END IF; RETURN n; END $$;"
    )
    files = {
        "1_a.sql": migration(
            f"{slow}\nCREATE TABLE big (n int, filler text);\n"
            "INSERT INTO big SELECT n, repeat('x', 400) FROM generate_series(1, 2000) n;\n"
            "CREATE INDEX big_n ON big (slow(n));"
        ),
        "2_i.sql": migration(f"SET test.slow = 'on';\n{script}", directive="no-transaction"),
    }
    await bring(database, declare(files, 1))
    outcome = await bring(database, declare(files, 2), listener=hears)
    assert outcome.problem is None
    told = [progress.phase for progress in hears.progress if progress is not None]
    assert phase in told
    await database.close()


async def test_a_step_that_is_over_soon_opens_no_second_connection(fresh_database: str) -> None:
    opened = 0

    async def settings() -> ConnectionSettings:
        nonlocal opened
        opened += 1
        return ConnectionSettings(dsn=Secret(fresh_database))

    database = open_database(settings)
    files = {f"{n}_t.sql": table(f"t{n}") for n in range(1, 11)}
    assert (await bring(database, declare(files, 10))).problem is None
    assert opened == 1
    assert (
        await bring(database, declare({**files, "11_s.sql": migration("SELECT pg_sleep(1);")}, 11))
    ).problem is None
    assert opened == 2
    await database.close()


async def test_a_server_without_a_connection_to_spare_fails_no_step(server: TestServer) -> None:
    role = server.create_role(options="CONNECTION LIMIT 1")
    name = server.create_database(owner=role.name)
    database, hears = database_at(server.dsn(name, user=role.name)), Hears()
    files = {"1_a.sql": migration("CREATE TABLE a (id int);\nSELECT pg_sleep(2.2);")}
    outcome = await bring(database, declare(files, 1), listener=hears)
    assert outcome.problem is None
    # said once, however often it is tried
    (problem,) = hears.failures
    assert problem.reason is Reason.CONNECTION_FAILED
    assert "too many connections" in problem.message
    await database.close()
    server.drop_database(name)
    server.drop_role(role)


async def test_a_role_that_may_see_little_is_told_little(server: TestServer) -> None:
    role, other = server.create_role(), server.create_role()
    name = server.create_database(owner=role.name)
    dsn = server.dsn(name, user=role.name)
    database, hears = database_at(dsn), Hears()
    await bring(database, declare(FILES, 1))
    server.execute(f"GRANT ALL ON TABLE a TO {other.name}", name)
    with psycopg.connect(server.dsn(name, user=other.name)) as holder:
        holder.execute("LOCK TABLE a")
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
        (blocker,) = hears.blockers[0]
        assert (blocker.pid, blocker.user) == (holder.info.backend_pid, other.name)
        assert (blocker.state, blocker.transaction_age, blocker.query_id) == ("", None, None)
    assert (await running).problem is None
    await database.close()
    server.drop_database(name)
    for each in (role, other):
        server.drop_role(each)


async def test_a_set_role_does_not_hide_our_own_backend(server: TestServer) -> None:
    login, owner = server.create_role(), server.create_role()
    server.execute(f"GRANT {owner.name} TO {login.name}")
    name = server.create_database(owner=owner.name)
    server.execute(f"GRANT ALL ON SCHEMA public TO {owner.name}", name)
    database, hears = database_at(server.dsn(name, user=login.name), role=owner.name), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(server.dsn(name)) as holder:
        holder.execute("LOCK TABLE a")
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
    assert (await running).problem is None
    await database.close()
    server.drop_database(name)
    for each in (login, owner):
        server.drop_role(each)


@pytest.mark.parametrize("by", ["manifest", "migration"])
async def test_a_statement_timeout_holds_outside_a_transaction_and_names_who_was_in_the_way(
    fresh_database: str, by: str
) -> None:
    database = database_at(fresh_database)
    directive = "statement-timeout 1500ms" if by == "migration" else ""
    files = {
        "1_a.sql": table("a"),
        "2_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);", directive=directive),
    }
    timeouts = Timeouts(statement_timeout=1.5 if by == "manifest" else 0.0)
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database, application_name="old") as older:
        older.execute("INSERT INTO a VALUES (1)")
        pid = older.info.backend_pid
        outcome = await bring(database, declare(files, 2, timeouts=timeouts))
    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.STATEMENT_TIMEOUT
    assert "statement_timeout is 1.5 s" in problem.message
    assert 'application "old"' in problem.message
    assert f"pg_terminate_backend({pid})" in problem.remedy
    await database.close()


async def test_a_lock_timeout_outside_a_transaction_names_who_was_in_the_way(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_v.sql": migration("VACUUM FULL a;", directive="lock-timeout 500ms")}
    await bring(database, declare(files, 1))
    with psycopg.connect(fresh_database, application_name="reader") as reader:
        reader.execute("SELECT * FROM a")
        pid, user = reader.info.backend_pid, reader.info.user
        outcome = await bring(database, declare(files, 2))
    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.LOCK_TIMEOUT
    assert f'blocked by pid {pid} (user {user}, application "reader"' in problem.message
    await database.close()


async def test_a_cancelled_step_leaves_no_watching_connection(fresh_database: str) -> None:
    database, hears = database_at(fresh_database), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(fresh_database) as holder:
        holder.execute("LOCK TABLE a")
        pid = holder.info.backend_pid
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        wait_until(lambda: connections(fresh_database, WATCHING) == 0, "the connection is closed")
    event = (await database.journal())[-1]
    assert event.outcome == "interrupted"
    assert event.details["blockers"][0]["pid"] == pid
    await database.close()


async def test_a_watching_connection_that_is_cut_is_opened_again(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.database import watching

    monkeypatch.setattr(watching, "_AFTER_FAILURE", 0.1)
    database, hears = database_at(fresh_database), Hears()
    await bring(database, declare(FILES, 1))
    with psycopg.connect(fresh_database) as holder:
        holder.execute("LOCK TABLE a")
        running = asyncio.create_task(
            bring(database, declare(FILES, 2, timeouts=Timeouts(lock_timeout=60)), listener=hears)
        )
        await heard(hears.blockers)
        rows(
            fresh_database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            WATCHING,
        )
        await heard(hears.failures)
        hears.blockers.clear()
        await heard(hears.blockers)
    assert (await running).problem is None
    assert len(hears.failures) == 1
    await database.close()


def test_the_daemon_shows_who_is_in_the_way_and_the_journal_keeps_it(
    git_repository: Repository, fresh_database: str
) -> None:
    rows(fresh_database, "CREATE TABLE busy (id int)")
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1, "timeouts: {lock_timeout: 100ms}\n"),
            "migrations/1_a.sql": migration("ALTER TABLE busy ADD COLUMN a int;"),
        }
    )
    with (
        psycopg.connect(make_conninfo(fresh_database, application_name="worker")) as holder,
        Daemon(git_repository) as daemon,
    ):
        holder.execute("LOCK TABLE busy")
        pid = holder.info.backend_pid
        status = daemon.wait_for("dev", lambda status: status["running"] and status["running"]["blocked_by"])
        (blocker,) = status["running"]["blocked_by"]
        assert (blocker["pid"], blocker["application"], blocker["query"]) == (pid, "worker", None)
        assert status["running"]["phase"] is None
        assert f"blocked by pid {pid}" in next(
            each["message"] for each in status["conditions"] if each["type"] == "Reconciling"
        )
        problem = daemon.wait_problem("dev", "LockTimeout", timeout=60)
        assert f"blocked by pid {pid}" in problem["message"]
        assert f"pg_terminate_backend({pid})" in problem["remedy"]
        # said once, however often it was seen
        (logged,) = daemon.events("step blocked")
        assert logged["blocked_by"][0].startswith(f"pid {pid} (user ")
        assert 'reconciler_lock_wait_seconds_count{environment="dev",lock="ddl"}' in daemon.metrics()
        assert daemon.metrics()['reconciler_lock_wait_seconds_count{environment="dev",lock="ddl"}'] == 1
        assert daemon.metrics()['reconciler_lock_wait_seconds_sum{environment="dev",lock="ddl"}'] > 1
        finished = journal(fresh_database, "finished")[-1]
        assert json.loads(finished["blockers"])[0]["pid"] == pid


def test_the_daemon_logs_and_shows_how_far_an_index_has_come(
    git_repository: Repository, fresh_database: str
) -> None:
    rows(fresh_database, "CREATE TABLE a (id int)")
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1),
            "migrations/1_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);"),
        }
    )
    with psycopg.connect(fresh_database) as older, Daemon(git_repository) as daemon:
        older.execute("INSERT INTO a VALUES (1)")
        status = daemon.wait_for("dev", lambda status: status["running"] and status["running"]["phase"])
        assert status["running"]["phase"] == "waiting for writers before build"
        assert status["running"]["object"] == "public.a_id"
        older.rollback()
        daemon.wait_ready("dev", 1)
        (logged,) = daemon.events("step progress")
        assert logged["phase"] == "waiting for writers before build"
        assert logged["version"] == 1
