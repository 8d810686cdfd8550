"""What may befall a lease: its heartbeat is cut or heard no more, clocks jump, the primary moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.model import LockHolder, Reason
from reconciler.operations import Silent
from tests.applying import bring, database_at, declare, migration, table
from tests.integration.test_failover import Servers
from tests.looking import applied, exists, rows
from tests.servers import TestServer

_HEARTBEAT = b"expires_at = pg_catalog.clock_timestamp()"
"""Only a renewal says this."""
LEASE = 3.0
FILES = {
    "1_a.sql": table("a"),
    "2_slow.sql": migration("INSERT INTO a VALUES (1);\nSELECT pg_sleep(4);", "DELETE FROM a;"),
    "3_c.sql": table("c"),
}


class Proxy:
    """Stands before a server, and does harm to connections that have renewed a lease.

    Args:
        dsn: a way to the server by its Unix socket.
    """

    def __init__(self, dsn: str) -> None:
        self._parts = conninfo_to_dict(dsn)
        self._heartbeats: list[asyncio.StreamWriter] = []
        self.renewals = 0
        self.silent = False
        """What heartbeats send from now on goes nowhere, and is not answered."""
        self.refusing = False
        """Whoever connects from now on is turned away."""
        self._streams: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Listen; the DSN through it."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        parts = {**self._parts, "host": "127.0.0.1", "port": str(listener.sockets[0].getsockname()[1])}
        try:
            yield make_conninfo("", **parts, sslmode="disable", gssencmode="disable")
        finally:
            listener.close()
            for stream in self._streams:
                stream.close()
            await asyncio.sleep(0.1)

    def cut(self) -> None:
        """End every connection that has renewed a lease."""
        for stream in self._heartbeats:
            stream.transport.abort()
        self._heartbeats.clear()

    async def until_renewed(self, times: int) -> None:
        """Wait until leases were renewed so often."""
        async with asyncio.timeout(20):
            while self.renewals < times:
                await asyncio.sleep(0.02)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        socket = Path(str(self._parts["host"])) / f".s.PGSQL.{self._parts['port']}"
        server_reader, server_writer = await asyncio.open_unix_connection(str(socket))
        self._streams += [writer, server_writer]
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await asyncio.gather(
                self._pass(reader, server_writer, client=writer), self._pass(server_reader, writer)
            )

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        try:
            while data := await reader.read(65536):
                if client is not None and _HEARTBEAT in data:
                    self.renewals += 1
                    if client not in self._heartbeats:
                        self._heartbeats.append(client)
                    if self.silent:
                        continue
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


async def test_a_heartbeat_that_is_cut_off_connects_again_and_work_goes_on(fresh_database: str) -> None:
    proxy = Proxy(fresh_database)
    async with proxy.open() as dsn:
        database = database_at(dsn, lock="lease", lease=LEASE)
        running = asyncio.create_task(bring(database, declare(FILES, 3)))
        for times in (1, 3):
            await proxy.until_renewed(times)
            proxy.cut()
        outcome = await running
        assert outcome.problem is None, outcome.problem
        assert proxy.renewals > 3
        await database.close()
    assert applied(fresh_database) == [1, 2, 3]


async def test_a_heartbeat_that_is_not_answered_is_made_on_a_new_connection(fresh_database: str) -> None:
    proxy = Proxy(fresh_database)
    async with proxy.open() as dsn:
        database = database_at(dsn, lock="lease", lease=LEASE)
        running = asyncio.create_task(bring(database, declare(FILES, 3)))
        await proxy.until_renewed(1)
        proxy.silent = True
        await proxy.until_renewed(2)
        proxy.silent = False
        outcome = await running
        assert outcome.problem is None, outcome.problem
        await database.close()
    assert applied(fresh_database) == [1, 2, 3]


async def test_a_heartbeat_that_does_not_come_back_in_time_stops_work_before_the_next_statement(
    fresh_database: str,
) -> None:
    proxy = Proxy(fresh_database)
    async with proxy.open() as dsn:
        database = database_at(dsn, lock="lease", lease=LEASE)
        running = asyncio.create_task(bring(database, declare(FILES, 3)))
        await proxy.until_renewed(1)
        proxy.refusing = True
        proxy.cut()
        outcome = await running
        assert outcome.problem is not None
        assert outcome.problem.reason is Reason.LOCK_LOST
        await database.close()
    # what was at the server already was ours to finish: nobody had taken the lease
    assert applied(fresh_database) == [1, 2]
    assert not exists(fresh_database, "c")
    again = database_at(fresh_database, lock="lease", lease=LEASE)
    assert (await bring(again, declare(FILES, 3), acquire_timeout=10)).problem is None
    assert rows(fresh_database, "SELECT * FROM a") == [(1,)]
    await again.close()


@pytest.mark.parametrize("table_gone", [True, False])
async def test_a_lease_that_was_stolen_is_noticed_by_its_heartbeat(
    fresh_database: str, table_gone: bool
) -> None:
    files = {
        "1_a.sql": table("a"),
        "2_slow.sql": migration("SELECT pg_sleep(2.5);\nSELECT 1;", "SELECT 1;", "no-transaction"),
    }
    database = database_at(fresh_database, lock="lease", lease=LEASE)
    running = asyncio.create_task(bring(database, declare(files, 2)))
    async with asyncio.timeout(20):
        while not rows(fresh_database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.sleep(0.02)
    if table_gone:
        rows(fresh_database, "ALTER TABLE schema_migrations_lock RENAME TO elsewhere")
    else:
        rows(fresh_database, "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), fence = fence + 1")
    outcome = await running
    assert outcome.problem is not None
    if not table_gone:
        assert outcome.problem.reason is Reason.LOCK_LOST
    assert applied(fresh_database) == [1]
    await database.close()


async def test_no_clock_of_ours_that_can_be_set_counts(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock jumps by years, either way, while a lease is held and while another waits for it."""
    real = time.time
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    first, second = (database_at(fresh_database, lock="lease", lease=LEASE) for _ in range(2))
    running = asyncio.create_task(bring(first, declare(FILES, 3), now=datetime(1999, 1, 1, tzinfo=UTC)))
    async with asyncio.timeout(20):
        while not rows(fresh_database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.sleep(0.02)
    waiting = asyncio.create_task(
        bring(second, declare(FILES, 3), now=datetime(2099, 1, 1, tzinfo=UTC), acquire_timeout=20)
    )
    for years in (70, -20, 0):
        shift = years * 365 * 86400.0
        await asyncio.sleep(0.5)
        ((left,),) = rows(
            fresh_database,
            "SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM schema_migrations_lock",
        )
        assert 0 < left <= LEASE
    outcomes = await asyncio.gather(running, waiting)
    assert [outcome.problem for outcome in outcomes] == [None, None]
    assert [len(outcome.applied) for outcome in outcomes] == [3, 0]
    assert rows(fresh_database, "SELECT * FROM a") == [(1,)]
    await first.close()
    await second.close()


async def test_the_new_primary_waits_until_the_lease_of_the_old_one_is_over(own_server: TestServer) -> None:
    servers = Servers(own_server, own_server.create_database())
    files = {
        "1_a.sql": table("a"),
        "2_slow.sql": migration(
            "INSERT INTO a VALUES (1);\n"
            f"SELECT pg_sleep(CASE current_setting('port') WHEN '{own_server.port}' THEN 600 ELSE 0 END);",
            "DELETE FROM a;",
        ),
    }
    # its holder never gets to the new primary: nobody gives the lease back
    first = database_at(own_server.dsn(servers.database), lock="lease", lease=6.0)
    running = asyncio.create_task(bring(first, declare(files, 2)))
    async with asyncio.timeout(20):
        while own_server.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != [
            (1,)
        ]:
            await asyncio.sleep(0.02)
    await asyncio.to_thread(servers.primary.wait_for_standby)
    await asyncio.to_thread(servers.fail_over)
    outcome = await running
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.CONNECTION_FAILED
    await first.close()
    async with asyncio.timeout(20):
        while servers.rows("SELECT pg_is_in_recovery()") != [(False,)]:
            await asyncio.sleep(0.05)
    ((until, left),) = servers.rows(
        "SELECT expires_at, extract(epoch FROM expires_at - clock_timestamp()) FROM schema_migrations_lock"
    )
    heard: list[LockHolder] = []

    class Hears(Silent):
        def waiting(self, holder: LockHolder) -> None:
            heard.append(holder)

    second = database_at(servers.dsn, lock="lease", lease=6.0)
    outcome = await bring(second, declare(files, 2), acquire_timeout=30, listener=Hears())
    assert outcome.problem is None, outcome.problem
    assert isinstance(until, datetime)
    ((at,),) = servers.rows(
        "SELECT min(recorded_at) FROM schema_migrations_journal WHERE event = 'started' AND fence = 2"
    )
    assert isinstance(at, datetime)
    assert at > until
    assert heard or float(str(left)) <= 0
    assert servers.rows("SELECT * FROM a") == [(1,)]
    assert servers.rows("SELECT version FROM schema_migrations ORDER BY version") == [(1,), (2,)]
    ends = servers.rows(
        "SELECT outcome FROM schema_migrations_journal WHERE event = 'finished' AND version = 2 ORDER BY recorded_at"
    )
    assert ends == [("interrupted",), ("success",)]
    await second.close()
