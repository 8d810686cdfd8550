"""What servers and operators do to a running migration: each has a named reason, loses nothing, and others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.embedded.cluster import SUPERUSER
from tests.applying import migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.faults.proxy import TO_CLIENT, TO_SERVER, Frame, Harm, Proxy
from tests.git import Repository
from tests.integration.pairs import Pair, made_pair
from tests.looking import applied, exists, journal, rows
from tests.servers import TestServer
from tests.wire import Loop


@pytest.fixture
def pair(git_repository: Repository, server: TestServer) -> Iterator[Pair]:
    with made_pair(git_repository, server) as pair:
        yield pair


def sleeping(dsn: str) -> int:
    """The backend of the step, once it sleeps."""
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    wait_until(lambda: rows(dsn, statement), "the step sleeps")
    return int(rows(dsn, statement)[0][0])


SLOW = migration("CREATE TABLE x (id int);\nSELECT pg_sleep(1.5);", "DROP TABLE x;")


def test_a_backend_ended_by_an_administrator_is_a_lost_connection(pair: Pair) -> None:
    pair.commit(SLOW)
    with Daemon(pair.repository) as daemon:
        rows(pair.dev, "SELECT pg_terminate_backend(%s)", sleeping(pair.dev))
        problem = daemon.wait_problem("dev", "ConnectionFailed")
        assert (problem["class"], problem["version"]) == ("temporary", 2)
        assert problem["remedy"]
        assert not exists(pair.dev, "x")
        pair.others_go_on(daemon)
        daemon.wait_ready("dev", 2, timeout=40)
    ends = [event for event in journal(pair.dev, "finished") if event["version"] == 2]
    assert [(event["outcome"], event["reason"]) for event in ends] == [
        ("interrupted", "ConnectionFailed"),
        ("success", None),
    ]
    # the daemon outlived its session, and says at the next chance what it knows
    assert "terminating connection due to administrator command" in ends[0]["message"]


def test_a_statement_cancelled_by_an_administrator_stalls_until_a_person_says_go_on(pair: Pair) -> None:
    pair.commit(SLOW)
    with Daemon(pair.repository) as daemon:
        rows(pair.dev, "SELECT pg_cancel_backend(%s)", sleeping(pair.dev))
        problem = daemon.wait_problem("dev", "StatementFailed")
        assert (problem["class"], problem["sqlstate"], problem["line"]) == ("permanent", "57014", 3)
        assert "reconciler retry" in problem["remedy"]
        assert not exists(pair.dev, "x")
        pair.others_go_on(daemon)
        assert applied(pair.dev) == [1]


def test_a_statement_timeout_stalls_and_says_how_long_it_was(pair: Pair) -> None:
    pair.commit(SLOW, "timeouts: {statement_timeout: 200ms}\n")
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "StatementTimeout")
        assert (problem["class"], problem["sqlstate"]) == ("permanent", "57014")
        assert "0.2 s" in problem["message"]
        assert not exists(pair.dev, "x")
        pair.others_go_on(daemon)


def test_a_deadlock_is_tried_again(pair: Pair) -> None:
    """Another session holds `u` and asks for `t`, of which the migration holds the one and asks for the other."""
    for name in ("t", "u"):
        rows(pair.dev, f"CREATE TABLE IF NOT EXISTS {name} (id int)")
    rows(pair.dev, "DROP TABLE t")
    pair.commit(
        migration(
            "SET deadlock_timeout = '100ms';\nLOCK TABLE t;\nSELECT pg_sleep(0.5);\nLOCK TABLE u;\nCREATE TABLE x (id int);",
            "DROP TABLE x;",
        ),
        "timeouts: {lock_timeout: 20s}\n",
    )
    with psycopg.connect(pair.dev) as other, Daemon(pair.repository) as daemon:
        # the one whose timeout ends first is the one that gives way
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("LOCK TABLE u")
        sleeping(pair.dev)
        other.execute("LOCK TABLE t")
        other.rollback()
        problem = daemon.wait_problem("dev", "Deadlock")
        assert (problem["class"], problem["sqlstate"], problem["statement_index"]) == (
            "temporary",
            "40P01",
            4,
        )
        pair.others_go_on(daemon)
        daemon.wait_ready("dev", 2, timeout=40)
    outcomes = [event["outcome"] for event in journal(pair.dev, "finished") if event["version"] == 2]
    assert outcomes == ["failed", "success"]


def test_a_serialization_failure_is_tried_again(pair: Pair) -> None:
    rows(pair.dev, "CREATE TABLE counter AS SELECT 0 AS value")
    pair.commit(
        migration(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nSELECT value FROM counter;\nSELECT pg_sleep(0.7);\n"
            "UPDATE counter SET value = value + 1;",
            "UPDATE counter SET value = value - 1;",
        )
    )
    with Daemon(pair.repository) as daemon:
        sleeping(pair.dev)
        rows(pair.dev, "UPDATE counter SET value = value + 100")
        problem = daemon.wait_problem("dev", "SerializationFailure")
        assert (problem["class"], problem["sqlstate"]) == ("temporary", "40001")
        pair.others_go_on(daemon)
        daemon.wait_ready("dev", 2, timeout=40)
    assert rows(pair.dev, "SELECT value FROM counter") == [(101,)]


def test_a_server_without_room_for_temporary_files_says_so_and_is_tried_again(pair: Pair) -> None:
    """The server's own limit on files: error 53400, of the class of a full disk."""
    pair.commit(
        migration(
            "CREATE TABLE x (id int);\nINSERT INTO x SELECT n FROM generate_series(1, 200000) n ORDER BY -n;",
            "DROP TABLE x;",
        )
    )
    name = str(rows(pair.dev, "SELECT current_database()")[0][0])
    for setting in ("temp_file_limit = '64kB'", "work_mem = '64kB'"):
        rows(pair.dev, f'ALTER DATABASE "{name}" SET {setting}')
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ResourceExhausted")
        assert (problem["class"], problem["sqlstate"]) == ("temporary", "53400")
        assert "temp_file_limit" in problem["message"]
        assert not exists(pair.dev, "x")
        pair.others_go_on(daemon)
        rows(pair.dev, f'ALTER DATABASE "{name}" RESET ALL')
        rows(
            pair.dev,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'reconciler'",
        )
        daemon.wait_ready("dev", 2, timeout=40)


class FullDisk:
    """A disk on which one table has no room: whoever opens its file anew gets the kernel's own `No space left on device`.

    Needs no privilege and no mount, since every Linux has /dev/full.
    """

    def __init__(self, server: TestServer, dsn: str, table: str) -> None:
        path = str(rows(dsn, "SELECT pg_relation_filepath(%s)", table)[0][0])
        self._file = server.cluster.data / path
        self._kept = self._file.with_name(self._file.name + "_kept")
        self._dsn = dsn

    def fill(self) -> None:
        """There is no room any more."""
        self._file.rename(self._kept)
        self._file.symlink_to("/dev/full")
        self._forget()

    def free(self) -> None:
        """There is room again."""
        self._kept.replace(self._file)
        self._forget()

    def _forget(self) -> None:
        """Backends that have opened the file would go on with what they have."""
        rows(
            self._dsn,
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: a full disk cannot be had here")
@pytest.mark.parametrize("directive", ["", "no-transaction"])
def test_a_full_disk_is_named_and_tried_again_until_there_is_room(
    pair: Pair, server: TestServer, directive: str
) -> None:
    step = migration(
        "CREATE TABLE x (id int);\nINSERT INTO t SELECT n FROM generate_series(1, 5000) n;",
        "DROP TABLE x;",
        directive,
    )
    files = {"dev/1_t.sql": table("t"), "dev/2_x.sql": step}
    pair.repository.commit(files={**files, "manifests/dev.yaml": manifest(pair.dev, 1, "migrations: dev\n")})
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 1)
        disk = FullDisk(server, pair.dev, "t")
        disk.fill()
        pair.repository.commit(files={"manifests/dev.yaml": manifest(pair.dev, 2, "migrations: dev\n")})
        problem = daemon.wait_problem("dev", "ResourceExhausted")
        assert (problem["class"], problem["sqlstate"], problem["line"]) == (
            "temporary",
            "53100",
            3 + bool(directive),
        )
        assert "No space left on device" in problem["message"]
        assert "disk" in problem["remedy"]
        assert exists(pair.dev, "x") is bool(directive)
        assert applied(pair.dev) == [1]
        pair.others_go_on(daemon)
        disk.free()
        daemon.wait_ready("dev", 2, timeout=60)
    assert rows(pair.dev, "SELECT count(*), count(DISTINCT id) FROM t") == [(5000, 5000)]
    assert exists(pair.dev, "x")


@pytest.fixture
def proxy(server: TestServer) -> Iterator[Proxy]:
    with Loop() as loop, Proxy(loop, Path(server.socket_directory) / f".s.PGSQL.{server.port}") as proxy:
        yield proxy


def _asks(frame: Frame) -> bool:
    return frame.way == TO_SERVER and b"CREATE TABLE x" in frame.data


def _step_commits() -> Callable[[Frame], bool]:
    """The answer to the COMMIT of the step that makes `x`: behind the one that says that it begins."""
    state = {"asked": False, "made": False}

    def when(frame: Frame) -> bool:
        state["asked"] = state["asked"] or _asks(frame)
        state["made"] = state["made"] or (
            state["asked"] and frame.way == TO_CLIENT and frame.data[5:] == b"CREATE TABLE\0"
        )
        return state["made"] and frame.is_commit

    return when


@pytest.mark.parametrize("portion", [0.0, 0.5])
def test_a_connection_lost_during_commit_is_settled_by_reading(
    pair: Pair, proxy: Proxy, portion: float
) -> None:
    """The step is in force, and nobody said so."""
    harm = Harm(_step_commits(), portion=portion)
    _lose(pair, proxy, harm)
    outcomes = [event["outcome"] for event in journal(pair.dev, "finished") if event["version"] == 2]
    assert outcomes == ["success"]
    started = [event for event in journal(pair.dev, "started") if event["version"] == 2]
    assert len(started) == 1


def test_a_connection_lost_before_commit_is_sent_whole_is_tried_again(pair: Pair, proxy: Proxy) -> None:
    """The server never had the whole message, and ran none of it."""
    harm = Harm(_asks, portion=0.9)
    _lose(pair, proxy, harm)
    ends = [event for event in journal(pair.dev, "finished") if event["version"] == 2]
    assert [(event["outcome"], event["reason"]) for event in ends] == [
        ("interrupted", "ConnectionFailed"),
        ("success", None),
    ]


def _lose(pair: Pair, proxy: Proxy, harm: Harm) -> None:
    name = str(rows(pair.dev, "SELECT current_database()")[0][0])
    dsn = make_conninfo(
        host="127.0.0.1", port=str(proxy.port), user=SUPERUSER, dbname=name, sslmode="disable"
    )
    proxy.arm(harm)
    pair.commit(migration("CREATE TABLE x (id int);", "DROP TABLE x;"), dsn=dsn)
    with Daemon(pair.repository) as daemon:
        pair.others_go_on(daemon)
        daemon.wait_ready("dev", 2, timeout=40)
        assert harm.done.is_set()
        (lost,) = [
            event
            for event in daemon.log
            if event.get("environment") == "dev"
            and event.get("problem", {}).get("reason") == "ConnectionFailed"
        ]
        assert lost["problem"]["class"] == "temporary"
    assert exists(pair.dev, "x")
    assert applied(pair.dev) == [1, 2]
