"""How a connection comes about: several hosts, how long it may take, how many there may be, and what is said when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.database import ConnectionLimit, ConnectionSettings
from reconciler.database.connecting import connect
from reconciler.model import Problem, ProblemError, Reason
from reconciler.redaction import Secret, redact
from tests.applying import bring, database_at, declare, migration, table
from tests.command_line import CommandLine
from tests.daemon import Daemon, manifest
from tests.git import Repository
from tests.servers import TestServer, free_port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


async def port_reached(dsn: str, timeout: float = 10.0) -> str:
    """The port of the server that a connection came to."""
    connection = await connect(ConnectionSettings(dsn=Secret(dsn), connect_timeout=timeout))
    try:
        row = await (await connection.execute("SELECT current_setting('port')")).fetchone()
        assert row is not None
        return str(row[0])
    finally:
        await connection.close()


async def refused(dsn: str, timeout: float = 10.0) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await port_reached(dsn, timeout)
    return caught.value.problem


# several hosts


async def test_the_first_host_that_answers_and_takes_writes_is_used(server: TestServer) -> None:
    standby, dead = server.standby(), free_port()
    hosts = f"/nowhere,{standby.socket_directory},{server.socket_directory}"
    dsn = f"host={hosts} port={dead},{standby.port},{server.port} user=postgres dbname=postgres"
    assert await port_reached(dsn) == str(server.port)
    # whoever asks for another gets another
    assert await port_reached(f"{dsn} target_session_attrs=standby") == str(standby.port)


async def test_the_environment_may_ask_for_another_session_too(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = server.standby()
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    monkeypatch.setenv("PGHOST", str(standby.socket_directory))
    monkeypatch.setenv("PGPORT", str(standby.port))
    assert await port_reached("user=postgres dbname=postgres") == str(standby.port)


async def test_each_host_is_told_with_what_came_of_it(server: TestServer) -> None:
    standby, dead = server.standby(), free_port()
    dsn = (
        f"host=127.0.0.1,{standby.socket_directory} port={dead},{standby.port} user=postgres dbname=postgres"
    )
    problem = await refused(dsn)
    # that the primary is missing says more than that one host is down
    assert problem.reason is Reason.READ_ONLY
    assert f"cannot connect to 127.0.0.1 or {standby.socket_directory} as postgres" in problem.message
    assert "127.0.0.1: Connection refused" in problem.message
    assert f"{standby.socket_directory}: session is read-only" in problem.message
    both = await refused(f"host=127.0.0.1,127.0.0.1 port={dead},{free_port()} user=x")
    assert both.reason is Reason.CONNECTION_FAILED
    assert both.message.count("Connection refused") == 1


async def test_hosts_and_ports_that_do_not_match_are_said(server: TestServer) -> None:
    problem = await refused("host=a,b port=1,2,3 user=x")
    assert problem.reason is Reason.CONNECTION_FAILED
    assert "3 port numbers to 2 hosts" in problem.message


# how long


async def test_the_time_to_connect_is_for_all_hosts_together(silent: int) -> None:
    began = time.monotonic()
    problem = await refused(f"host=127.0.0.1,127.0.0.2,127.0.0.3 port={silent} user=x", 1.0)
    assert time.monotonic() - began < 3
    assert problem.reason is Reason.CONNECTION_FAILED
    assert "no answer within 1s" in problem.message


async def test_a_host_that_does_not_answer_leaves_time_for_the_next(server: TestServer, silent: int) -> None:
    dsn = (
        f"host=127.0.0.1,{server.socket_directory} port={silent},{server.port} user=postgres dbname=postgres"
    )
    assert await port_reached(dsn, 5.0) == str(server.port)


async def test_the_dsns_own_time_is_for_each_host(silent: int) -> None:
    began = time.monotonic()
    problem = await refused(f"host=127.0.0.1 port={silent} user=x connect_timeout=2", 30.0)
    assert time.monotonic() - began < 10
    assert "no answer within 2s" in problem.message


def test_db_timeout_is_the_time_to_connect_of_a_command_without_a_manifest(
    silent: int, reconciler: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_TIMEOUT", "1s")
    began = time.monotonic()
    result = reconciler("history", "--dsn", f"host=127.0.0.1 port={silent} user=x")
    assert time.monotonic() - began < 8
    assert result.exit == 1
    assert "no answer within 1s" in result.err


async def test_a_name_that_does_not_resolve_is_said(server: TestServer) -> None:
    problem = await refused("host=nowhere.invalid user=x")
    assert problem.reason is Reason.CONNECTION_FAILED
    assert "nowhere.invalid" in problem.message
    assert "correct the host name" in problem.remedy
    dsn = f"host=nowhere.invalid,{server.socket_directory} port={server.port} user=postgres dbname=postgres"
    assert await port_reached(dsn) == str(server.port)


# what is known of whoever connects


async def test_a_password_of_the_environment_is_no_less_a_secret(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary-in-the-environment")
    problem = await refused(f"host=127.0.0.1 port={server.port} user=nobody_such dbname=postgres")
    assert "check the password of nobody_such" in problem.remedy
    assert redact("canary-in-the-environment") == "***"


# how many


@contextlib.contextmanager
def counted(server: TestServer, name: str) -> Iterator[list[int]]:
    """Inside, how many connections of ours there are is looked at all the time; the list holds each count."""
    import threading

    counts: list[int] = []
    over = threading.Event()

    def count() -> None:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            while not over.is_set():
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'reconciler%%'",
                    [name],
                ).fetchone()
                assert row is not None
                counts.append(row[0])
                time.sleep(0.02)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


_SLOW = {
    "1_a.sql": table("a"),
    "2_b.sql": migration("SELECT pg_sleep(1.6); CREATE TABLE b (id int);", "DROP TABLE b;"),
}


@pytest.mark.parametrize(
    ("lock", "most", "expected"), [("auto", 1, 1), ("auto", 2, 2), ("lease", 2, 2), ("lease", 3, 3)]
)
async def test_a_database_never_gets_more_connections_than_it_may(
    server: TestServer, fresh_database: str, lock: str, most: int, expected: int
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(fresh_database)["dbname"]
    database = database_at(fresh_database, limit=ConnectionLimit(most), lock=lock)
    with counted(server, str(name)) as counts:
        outcome = await bring(database, declare(_SLOW, 2))
        await database.close()
    assert outcome.problem is None
    assert max(counts) == expected


async def test_a_lease_takes_two_connections_and_says_so(fresh_database: str) -> None:
    database = database_at(fresh_database, limit=ConnectionLimit(1), lock="lease")
    outcome = await bring(database, declare(_SLOW, 1))
    await database.close()
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.CONNECTION_FAILED
    assert (
        "DB_MAX_CONNS allows 1 connection to a database at once, and this takes 2" in outcome.problem.message
    )
    assert "at least 2" in outcome.problem.remedy
    # and holds nothing: the next one has it
    database = database_at(fresh_database, limit=ConnectionLimit(2), lock="lease")
    assert (await bring(database, declare(_SLOW, 1))).problem is None
    await database.close()


async def test_a_connection_that_broke_or_never_came_about_takes_no_place(
    server: TestServer, fresh_database: str
) -> None:
    limit = ConnectionLimit(1)
    settings = ConnectionSettings(dsn=Secret(fresh_database), limit=limit)
    with pytest.raises(ProblemError):
        await connect(
            ConnectionSettings(dsn=Secret(make_conninfo(fresh_database, user="nobody_such")), limit=limit)
        )
    first = await connect(settings)
    with pytest.raises(ProblemError):
        await connect(settings)
    server.execute(f"SELECT pg_terminate_backend({first.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError):
        await first.execute("SELECT 1")
    second = await connect(settings)
    await second.close()
    opening = [asyncio.ensure_future(connect(settings)) for _ in range(3)]
    done = await asyncio.gather(*opening, return_exceptions=True)
    (third,) = [each for each in done if isinstance(each, psycopg.AsyncConnection)]
    await third.close()


def test_db_max_conns_holds_for_commands_and_daemon_alike(
    server: TestServer,
    fresh_database: str,
    git_repository: Repository,
    reconciler: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2),
            **{f"migrations/{name}": text for name, text in _SLOW.items()},
        }
    )
    name = str(psycopg.conninfo.conninfo_to_dict(fresh_database)["dbname"])
    with (
        counted(server, name) as counts,
        Daemon(git_repository, variables={"DB_MAX_CONNS": "1"}) as daemon,
    ):
        daemon.wait_ready("dev", 2)
        (event,) = daemon.events("step not watched")
    assert max(counts) == 1
    assert "DB_MAX_CONNS" in str(event)
    monkeypatch.setenv("DB_MAX_CONNS", "1")
    assert reconciler("status", "--repo", str(git_repository.path)).exit == 0
    monkeypatch.setenv("DB_MAX_CONNS", "none")
    result = reconciler("status", "--repo", str(git_repository.path))
    assert result.exit == 2
    assert "DB_MAX_CONNS" in result.err


def test_a_server_that_was_restarted_is_found_again(
    own_server: TestServer, git_repository: Repository
) -> None:
    name = own_server.create_database()
    git_repository.commit(
        files={"manifests/dev.yaml": manifest(own_server.dsn(name), 1), "migrations/1_a.sql": table("a")}
    )
    with Daemon(git_repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 1)
        own_server.stop()
        problem = daemon.wait_problem("dev", "ConnectionFailed")
        assert "tried again by itself" in problem["remedy"]
        own_server.start()
        git_repository.commit(
            files={"manifests/dev.yaml": manifest(own_server.dsn(name), 2), "migrations/2_b.sql": table("b")}
        )
        daemon.wait_ready("dev", 2, timeout=40)
