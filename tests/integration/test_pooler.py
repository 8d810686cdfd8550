"""Behind a real PgBouncer in transaction mode: found out, held by a lease, and left as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from reconciler.model import ProblemError, Reason
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.command_line import CommandLine
from tests.daemon import manifest
from tests.git import Repository
from tests.looking import applied
from tests.poolers import Pooler, require_pgbouncer
from tests.servers import TestServer

pytestmark = pytest.mark.direct("brings a pooler of its own")


@pytest.fixture(scope="module")
def pooler(server: TestServer) -> Iterator[Pooler]:
    require_pgbouncer()
    with Pooler(server, pool_size=1) as pooler:
        yield pooler


@pytest.fixture
def pooled(pooler: Pooler, fresh_database: str) -> str:
    """The way to a fresh database through a pooler with a single connection for everybody."""
    return pooler.dsn(fresh_database)


FILES_AFTER = {"2_b.sql": table("b")}
FILES = {"1_a.sql": table("a"), "2_b.sql": table("b"), "3_c.sql": table("c")}


async def test_migrations_go_up_and_down_under_a_lease(pooled: str, fresh_database: str) -> None:
    database = database_at(pooled)
    outcome = await bring(database, declare(FILES, 3))
    assert outcome.problem is None
    assert outcome.observation is not None
    assert outcome.observation.pooled
    assert applied(fresh_database) == [1, 2, 3]
    outcome = await bring(database, declare(FILES, 1))
    assert outcome.problem is None
    assert applied(fresh_database) == [1]
    with psycopg.connect(fresh_database) as connection:
        row = connection.execute("SELECT mode, owner, fence FROM schema_migrations_lock").fetchone()
    assert row == ("lease", None, 2)
    await database.close()


LITTER = """
CREATE SCHEMA IF NOT EXISTS other;
SET search_path = other;
SET statement_timeout = '59s';
SET application_name = 'litter';
CREATE TEMP TABLE litter AS SELECT 1 AS id;
PREPARE litter_statement AS SELECT 1;
LISTEN litter_channel;
DECLARE litter_cursor CURSOR WITH HOLD FOR SELECT 1;
SELECT pg_advisory_lock(4711);
SET ROLE {role};
CREATE SEQUENCE other.numbers; SELECT nextval('other.numbers');
"""
LOOK = """
SELECT current_setting('search_path'), current_setting('statement_timeout'), current_user = session_user,
       (SELECT count(*) FROM pg_class WHERE relname = 'litter' AND relpersistence = 't'),
       (SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'litter%'), (SELECT count(*) FROM pg_listening_channels()),
       (SELECT count(*) FROM pg_cursors WHERE name = 'litter_cursor'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')
"""


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_of_a_migration_stays_with_the_server_for_other_clients(
    server: TestServer, pooler: Pooler, pooled: str, fails: bool
) -> None:
    role = server.create_role()
    pooler.restart()
    server.execute(f"GRANT {role.name} TO postgres; ALTER ROLE {role.name} SUPERUSER")
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
        before = other.execute(LOOK).fetchone()
        database = database_at(pooled)
        script = LITTER.format(role=role.name) + ("SELECT 1/0;" if fails else "")
        outcome = await bring(database, declare({"1_litter.sql": migration(script)}, 1))
        assert (outcome.problem is not None) == fails
        # the pool has a single connection: it is the one that the migration ran on
        assert other.execute(LOOK).fetchone() == before
        assert other.info.parameter_status("application_name") != "litter"
        if not fails:
            after = await bring(database, declare({"1_litter.sql": migration(script), **FILES_AFTER}, 2))
            assert after.problem is None
        await database.close()


async def test_concurrent_builds_run_behind_a_pooler_and_are_looked_after(
    pooled: str, fresh_database: str
) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_index.sql": migration(
            "CREATE INDEX CONCURRENTLY a_id ON a (id);", "DROP INDEX CONCURRENTLY a_id;"
        ),
        "3_mixed.sql": migration(
            "INSERT INTO a VALUES (1);\nBEGIN;\nINSERT INTO a VALUES (2);\nCOMMIT;\nVACUUM a;\nINSERT INTO a VALUES (3);",
            "DELETE FROM a;",
            "no-transaction",
        ),
    }
    database = database_at(pooled)
    outcome = await bring(database, declare(files, 3))
    assert outcome.problem is None
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT array_agg(id ORDER BY id) FROM a").fetchone() == ([1, 2, 3],)
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass"
        assert connection.execute(valid).fetchone() == (True,)
    outcome = await bring(database, declare(files, 0))
    assert outcome.problem is None
    assert applied(fresh_database) == []
    await database.close()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("SET search_path = public;\nCREATE TABLE b (id int);", "changes the session"),
        ("CREATE TABLE b (id int);\nPREPARE x AS SELECT 1;", "changes the session"),
    ],
)
async def test_what_needs_a_session_of_its_own_is_refused_before_anything_runs(
    pooled: str, fresh_database: str, script: str, told: str
) -> None:
    database = database_at(pooled)
    outcome = await bring(database, declare({"1_x.sql": migration(script, "", "no-transaction")}, 1))
    assert outcome.plan is not None
    (problem,) = outcome.plan.refusals
    assert problem.reason is Reason.MIGRATION_INVALID
    assert told in problem.message
    assert problem.place is not None
    assert problem.excerpt
    assert applied(fresh_database) == []
    await database.close()


async def test_a_role_is_put_on_for_each_transaction_and_for_nobody_else(
    server: TestServer, pooler: Pooler, fresh_database: str
) -> None:
    role = server.create_role()
    login = server.create_role()
    pooler.restart()
    server.execute(f"GRANT {role.name} TO {login.name}")
    with psycopg.connect(fresh_database) as connection:
        connection.execute(f"GRANT ALL ON SCHEMA public TO {role.name}".encode())
    dsn = pooler.dsn(f"{fresh_database} user={login.name}")
    database = database_at(dsn, role=role.name)
    assert (await bring(database, declare(FILES, 3))).problem is None
    await database.close()
    with psycopg.connect(fresh_database) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert owners == [(role.name,)]
    with psycopg.connect(dsn) as other:
        assert other.execute("SELECT current_user").fetchone() == (login.name,)


async def test_a_lease_and_an_advisory_lock_keep_each_other_out(pooled: str, fresh_database: str) -> None:
    slow = {"1_slow.sql": migration("CREATE TABLE slow (id int);\nSELECT pg_sleep(1.5);", "DROP TABLE slow;")}
    for first, second in ((pooled, fresh_database), (fresh_database, pooled)):
        working, waiting = database_at(first), database_at(second)
        task = asyncio.ensure_future(bring(working, declare(slow, 1)))
        with psycopg.connect(fresh_database, autocommit=True) as watcher:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            while watcher.execute(busy).fetchone() != (1,):
                assert not task.done()
                await asyncio.sleep(0.02)
        held = await bring(waiting, declare(slow, 1), acquire_timeout=0.3)
        assert held.problem is not None
        assert held.problem.reason is Reason.LOCK_HELD
        assert "reconciler run on test" in held.problem.message
        assert (await task).problem is None
        back = await bring(waiting, declare(slow, 0))
        assert back.problem is None
        await working.close()
        await waiting.close()


async def test_a_lease_is_used_without_a_pooler_where_it_is_wished(fresh_database: str) -> None:
    database = database_at(fresh_database, lock="lease")
    assert (await bring(database, declare(FILES, 2))).problem is None
    await database.close()
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT mode FROM schema_migrations_lock").fetchone() == ("lease",)
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (
            0,
        )


@pytest.mark.parametrize("through_pooler", [True, False])
async def test_whoever_lost_the_lease_writes_nothing_more(
    pooled: str, fresh_database: str, through_pooler: bool
) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_slow.sql": migration("SELECT pg_sleep(1);\nCREATE TABLE slow (id int);", "DROP TABLE slow;"),
        "3_c.sql": table("c"),
    }
    database = database_at(pooled if through_pooler else fresh_database, lock="lease")
    task = asyncio.ensure_future(bring(database, declare(files, 3)))
    with psycopg.connect(fresh_database, autocommit=True) as other:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while other.execute(busy).fetchone() != (1,):
            assert not task.done()
            await asyncio.sleep(0.02)
        other.execute(
            "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'a thief', fence = fence + 1"
        )
        outcome = await task
        assert outcome.problem is not None
        assert outcome.problem.reason is Reason.LOCK_LOST
        assert applied(fresh_database) == [1]
        assert other.execute("SELECT to_regclass('slow'), to_regclass('c')").fetchone() == (None, None)
        assert other.execute("SELECT holder FROM schema_migrations_lock").fetchone() == ("a thief",)
    await database.close()


async def test_a_lease_that_cannot_be_renewed_stops_before_the_next_statement(fresh_database: str) -> None:
    """Another session keeps the row locked, so that no renewal comes through, and does not let go before the lease is over."""
    files = {
        "1_a.sql": table("a"),
        "2_slow.sql": migration("SELECT pg_sleep(2.5);", "SELECT 1;", "no-transaction"),
        "3_c.sql": table("c"),
    }
    database = database_at(fresh_database, lock="lease", lease=2.0)
    task = asyncio.ensure_future(bring(database, declare(files, 3)))
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    with (
        psycopg.connect(fresh_database, autocommit=True) as watcher,
        psycopg.connect(fresh_database) as holder,
    ):
        while watcher.execute(busy).fetchone() != (1,):
            assert not task.done()
            await asyncio.sleep(0.02)
        holder.execute("SELECT 1 FROM schema_migrations_lock FOR UPDATE")
        await asyncio.sleep(4)
        holder.rollback()
    outcome = await task
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_LOST
    assert 3 not in applied(fresh_database)
    await database.close()
    again = database_at(fresh_database, lock="lease", lease=2.0)
    assert (await bring(again, declare(files, 3), acquire_timeout=10)).problem is None
    assert applied(fresh_database) == [1, 2, 3]
    await again.close()


async def test_an_expired_lease_is_not_taken_over_while_its_work_goes_on(
    pooled: str, fresh_database: str
) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);", "DROP INDEX a_id;"),
    }
    first = database_at(pooled)
    assert (await bring(first, declare(files, 1))).problem is None
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* reconciler at work */ CREATE INDEX%' AND state = 'active'"
    with (
        psycopg.connect(fresh_database, autocommit=True) as watcher,
        psycopg.connect(fresh_database) as older,
    ):
        older.execute("INSERT INTO a VALUES (1)")
        task = asyncio.ensure_future(bring(first, declare(files, 2)))
        while watcher.execute(busy).fetchone() != (1,):
            assert not task.done()
            await asyncio.sleep(0.02)
        # as if its process had been gone for long
        watcher.execute(
            "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), expires_at = now() - interval '1 day'"
        )
        second = database_at(fresh_database, lock="lease")
        looked = await bring(second, declare(files, 2), acquire_timeout=0.5)
        assert looked.plan is not None
        assert [problem.reason for problem in looked.plan.refusals] == [Reason.OUTCOME_UNKNOWN]
        with pytest.raises(ProblemError, match="another process holds the lock"):
            async with second.writer(actor(), acquire_timeout=0.5):
                pass
        older.commit()
        outcome = await task
        assert outcome.problem is not None
        assert outcome.problem.reason is Reason.LOCK_LOST
        settled = await bring(second, declare(files, 2), acquire_timeout=5)
        assert settled.problem is None
        assert applied(fresh_database) == [1, 2]
    await first.close()
    await second.close()


async def test_a_pooler_that_is_restarted_is_waited_out(
    pooler: Pooler, pooled: str, fresh_database: str
) -> None:
    files = {"1_slow.sql": migration("CREATE TABLE slow (id int);\nSELECT pg_sleep(1);", "DROP TABLE slow;")}
    database = database_at(pooled, lease=2.0)
    task = asyncio.ensure_future(bring(database, declare(files, 1)))
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    with psycopg.connect(fresh_database, autocommit=True) as watcher:
        while watcher.execute(busy).fetchone() != (1,):
            assert not task.done()
            await asyncio.sleep(0.02)
    pooler.restart()
    outcome = await task
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.CONNECTION_FAILED
    again = await bring(database, declare(files, 1), acquire_timeout=10)
    assert again.problem is None
    assert applied(fresh_database) == [1]
    await database.close()


def test_a_manifest_may_ask_for_a_lease(
    reconciler: CommandLine, git_repository: Repository, fresh_database: str
) -> None:
    declared = manifest(fresh_database, 1).replace("  dsn:", "  lock: lease\n  dsn:")
    git_repository.commit("Declare", {"manifests/dev.yaml": declared, "migrations/1_a.sql": table("a")})
    reconciler.enter(git_repository.path)
    assert reconciler("up").exit == 0
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT mode FROM schema_migrations_lock").fetchone() == ("lease",)
