"""Behind a real PgBouncer in transaction mode, as its other clients see it: nothing of ours, and nobody waits for us for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from time import monotonic

import psycopg
import pytest

from reconciler.model import Database, Reason
from tests.applying import bring, database_at, declare, migration, table
from tests.looking import applied, rows
from tests.poolers import Pooler, require_pgbouncer
from tests.servers import TestServer

pytestmark = pytest.mark.direct("brings poolers of its own")

_POOL_SIZE = 3

# What PgBouncer itself keeps track of for each of its clients is not looked at. `SELECT` in one message: one transaction.
SEEN = """
SELECT current_user::text, session_user::text, pg_backend_pid(),
       (SELECT jsonb_object_agg(name, setting) FROM pg_settings WHERE context IN ('user', 'superuser') AND setting IS DISTINCT FROM reset_val
        AND name NOT IN ('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name')
        AND name NOT LIKE 'transaction\\_%'),
       current_setting('search_path'), current_setting('statement_timeout'), current_setting('lock_timeout'),
       current_setting('idle_in_transaction_session_timeout'), current_setting('synchronous_commit'), current_setting('row_security'),
       current_setting('application_name'), current_setting('standard_conforming_strings'), current_setting('transaction_read_only'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name <> ''),
       (SELECT count(*) FROM pg_listening_channels()),
       (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid))
"""
_PID = 2


@pytest.fixture
def pooler(server: TestServer) -> Iterator[Pooler]:
    require_pgbouncer()
    with Pooler(server, pool_size=_POOL_SIZE) as pooler:
        yield pooler


class _Application:
    """Clients of the pool that look, as often as they can, at what they find in the connection they are given."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.looks: dict[tuple[object, ...], int] = {}
        self.pids: set[object] = set()

    async def __aenter__(self) -> _Application:
        self._ended = False
        self._clients = [asyncio.ensure_future(self._look()) for _ in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await asyncio.gather(*self._clients)

    async def _look(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, prepare_threshold=None, application_name="application"
        )
        async with connection:
            while not self._ended:
                row = await (await connection.execute(SEEN)).fetchone()
                self._note(row)
                await asyncio.sleep(0)

    def _note(self, row: tuple[object, ...] | None) -> None:
        assert row is not None
        self.pids.add(row[_PID])
        seen = tuple(str(value) for index, value in enumerate(row) if index != _PID)
        self.looks[seen] = self.looks.get(seen, 0) + 1

    def look_everywhere(self) -> None:
        """Look at every connection of the pool: all are kept busy at once."""
        with ExitStack() as stack:
            for _ in range(_POOL_SIZE):
                connection = psycopg.connect(
                    self._dsn, prepare_threshold=None, application_name="application"
                )
                stack.enter_context(connection)
                self._note(connection.execute(SEEN).fetchone())


def files(role: str, *, stand_alone: bool = True) -> dict[str, str | bytes]:
    """Migrations of every kind, some of which change the session they run in.

    Args:
        role: what they make of themselves.
        stand_alone: also such as cannot be in a transaction.
    """
    change = (
        f"SET search_path = other, public; SET statement_timeout = '50s'; SET SESSION row_security = off; SET ROLE {role};"
        "SET TIME ZONE 'Asia/Tokyo'; SELECT set_config('my.setting', 'x', false);"
    )
    made = {
        "1_a.sql": table("a"),
        "2_litter.sql": migration(
            f"CREATE SCHEMA other; GRANT ALL ON SCHEMA other TO {role}; {change}\n"
            "CREATE TEMP TABLE litter (id int); PREPARE p AS SELECT 1; LISTEN l; SELECT pg_advisory_lock(4711);\n"
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1; SELECT pg_sleep(0.2);",
            f"{change} SELECT pg_advisory_lock_shared(4712); SET ROLE NONE; DROP SCHEMA other CASCADE;",
        ),
    }
    if stand_alone:
        made["3_index.sql"] = migration(
            "CREATE INDEX CONCURRENTLY a_id ON a (id);", "DROP INDEX CONCURRENTLY a_id;"
        )
        made["4_block.sql"] = migration(
            "INSERT INTO a VALUES (1);\nBEGIN;\nSET LOCAL statement_timeout = '40s';\nINSERT INTO a VALUES (2);\nCOMMIT;\nVACUUM a;",
            "DELETE FROM a;",
            "no-transaction",
        )
    return {**made, **{f"{number}_t.sql": table(f"t{number}") for number in range(5, 12)}}


@pytest.mark.parametrize("puts_role_on", [False, True], ids=["as_login", "with_role"])
async def test_an_application_in_the_same_pool_sees_nothing_of_ours_while_we_migrate_and_afterwards(
    server: TestServer, pooler: Pooler, fresh_database: str, puts_role_on: bool
) -> None:
    role = server.create_role(options="SUPERUSER" if puts_role_on else "")
    pooled = pooler.dsn(fresh_database)
    database = database_at(pooled, role=role.name if puts_role_on else None)
    async with _Application(pooled) as application:
        while not application.looks:
            await asyncio.sleep(0.01)
        changes = files(role.name, stand_alone=not puts_role_on)
        up = await bring(database, declare(changes, 11))
        assert (up.problem, up.plan and up.plan.refusals) == (None, ())
        failing = {**changes, "12_bad.sql": migration(f"SET ROLE {role.name};\nSELECT 1/0;")}
        assert (await bring(database, declare(failing, 12))).problem is not None
        down = await bring(database, declare(changes, 0, retry=True))
        assert down.problem is None
    assert applied(fresh_database) == []
    await database.close()
    application.look_everywhere()
    # the same connections served both
    assert len(application.pids) >= _POOL_SIZE
    assert len(application.looks) == 1, "an application saw settings, locks or a role of ours"
    assert next(iter(application.looks))[:3] == ("postgres", "postgres", "None")


async def test_a_concurrent_build_waits_for_older_transactions_and_never_for_connections_of_ours(
    pooler: Pooler, fresh_database: str
) -> None:
    """Beside it, its lease is renewed, two more wait for the lock, through the pooler and directly, and others look on."""
    changes = {
        "1_a.sql": migration("CREATE TABLE a AS SELECT generate_series(1, 1000) AS id;", "DROP TABLE a;"),
        "2_index.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);", "DROP INDEX a_id;"),
    }
    pooled = pooler.dsn(fresh_database)
    async with AsyncExitStack() as stack:

        def database(dsn: str, **settings: object) -> Database:
            opened = database_at(dsn, **settings)
            stack.push_async_callback(opened.close)
            return opened

        builder = database(pooled, lease=2.0)
        assert (await bring(builder, declare(changes, 1))).problem is None
        with psycopg.connect(fresh_database) as older:
            older.execute("INSERT INTO a VALUES (0)")
            building = asyncio.ensure_future(bring(builder, declare(changes, 2), acquire_timeout=1))
            busy = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%CREATE INDEX%a_id%' AND wait_event = 'virtualxid'"
            while not rows(fresh_database, busy):
                assert not building.done(), building.result()
                await asyncio.sleep(0.02)
            others = [
                asyncio.ensure_future(bring(database(dsn), declare(changes, 2), acquire_timeout=20))
                for dsn in (pooled, fresh_database)
            ]
            onlooker = database(pooled)
            # for longer than the lease lasts
            over = monotonic() + 3
            while monotonic() < over:
                assert (await onlooker.observe()).holder is not None
                assert not building.done()
                await asyncio.sleep(0.05)
        released = monotonic()
        built = await building
        assert built.problem is None
        assert monotonic() - released < 5
        for outcome in await asyncio.gather(*others):
            assert outcome.problem is None or outcome.problem.reason is Reason.OUTCOME_UNKNOWN, (
                outcome.problem
            )
    assert applied(fresh_database) == [1, 2]
    assert rows(fresh_database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass") == [
        (True,)
    ]
