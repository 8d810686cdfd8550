"""Two real servers, one the standby of the other, in one DSN: the daemon goes on where the primary is now."""

from __future__ import annotations

import pytest

from tests.applying import migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.servers import TestServer

_LONG = 60.0
"""Seconds: what was lost is tried again after pauses that grow."""


class Servers:
    """A primary and its standby.

    Args:
        primary: the one that is the primary at first.
        database: of both.
    """

    def __init__(self, primary: TestServer, database: str) -> None:
        self.primary = primary
        self.standby = primary.standby()
        self.database = database

    @property
    def dsn(self) -> str:
        """Both of them; the standby comes first, so that the first host is never simply taken."""
        both = self.standby, self.primary
        hosts = ",".join(str(each.socket_directory) for each in both)
        ports = ",".join(str(each.port) for each in both)
        return f"host={hosts} port={ports} user=postgres dbname={self.database}"

    def fail_over(self) -> None:
        """The primary dies, and the standby becomes one."""
        self.primary.kill()
        self.standby.execute("SELECT pg_promote()")

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """What the new primary says."""
        return self.standby.execute(statement, self.database)


@pytest.fixture
def servers(own_server: TestServer) -> Servers:
    return Servers(own_server, own_server.create_database())


@pytest.fixture
def repository(git_repository: Repository, servers: Servers) -> Repository:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(servers.dsn, 2),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": migration(
                "CREATE TABLE b (id int); INSERT INTO b VALUES (1);", "DROP TABLE b;"
            ),
        }
    )
    return git_repository


def applied(servers: Servers) -> list[tuple[object, ...]]:
    return servers.rows("SELECT version, status FROM schema_migrations ORDER BY version")


def test_a_daemon_goes_on_at_the_new_primary_and_applies_nothing_twice(
    servers: Servers, repository: Repository
) -> None:
    with Daemon(repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 2)
        servers.primary.wait_for_standby()
        servers.fail_over()
        repository.commit(
            files={"manifests/dev.yaml": manifest(servers.dsn, 3), "migrations/3_c.sql": table("c")}
        )
        daemon.wait_ready("dev", 3, timeout=_LONG)
    assert applied(servers) == [(1, "success"), (2, "success"), (3, "success")]
    assert servers.rows("SELECT count(*) FROM b") == [(1,)]
    # the lock was taken anew, there
    ((fence,),) = servers.rows("SELECT fence FROM schema_migrations_lock")
    assert fence == 2
    finished = servers.rows(
        "SELECT version, count(*) FROM schema_migrations_journal WHERE event = 'finished' GROUP BY version ORDER BY version"
    )
    assert finished == [(1, 1), (2, 1), (3, 1)]


def test_a_step_that_the_failover_cut_off_is_run_at_the_new_primary(
    servers: Servers, repository: Repository
) -> None:
    script = f"""
        CREATE TABLE c (id int);
        SELECT pg_sleep(CASE current_setting('port') WHEN '{servers.primary.port}' THEN 600 ELSE 0 END);
        INSERT INTO b VALUES (2);"""
    with Daemon(repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 2)
        repository.commit(
            files={
                "manifests/dev.yaml": manifest(servers.dsn, 3),
                "migrations/3_c.sql": migration(script, "DROP TABLE c;"),
            }
        )
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: servers.primary.execute(sleeping) == [(1,)], "the step to run")
        servers.primary.wait_for_standby()
        servers.fail_over()
        daemon.wait_ready("dev", 3, timeout=_LONG)
    assert applied(servers) == [(1, "success"), (2, "success"), (3, "success")]
    assert servers.rows("SELECT id FROM b ORDER BY id") == [(1,), (2,)]
    # how the first attempt ended is told by the second
    ends = servers.rows(
        "SELECT outcome FROM schema_migrations_journal WHERE event = 'finished' AND version = 3 ORDER BY recorded_at"
    )
    assert ends == [("interrupted",), ("success",)]


def test_what_the_standby_never_received_is_applied_again(servers: Servers, repository: Repository) -> None:
    with Daemon(repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 2)
        servers.primary.wait_for_standby()
        servers.standby.kill()
        repository.commit(
            files={"manifests/dev.yaml": manifest(servers.dsn, 3), "migrations/3_c.sql": table("c")}
        )
        daemon.wait_ready("dev", 3)
        servers.primary.kill()
        servers.standby.start()
        servers.standby.execute("SELECT pg_promote()")
        daemon.wait_for("dev", lambda status: status["problem"] is None and _has_c(servers), timeout=_LONG)
    assert applied(servers) == [(1, "success"), (2, "success"), (3, "success")]
    assert servers.rows("SELECT count(*) FROM b") == [(1,)]


def _has_c(servers: Servers) -> bool:
    return servers.rows("SELECT to_regclass('c') IS NOT NULL") == [(True,)]


def test_while_there_is_only_a_standby_the_daemon_waits_and_says_so(
    servers: Servers, repository: Repository
) -> None:
    with Daemon(repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 2)
        servers.primary.wait_for_standby()
        servers.primary.kill()
        problem = daemon.wait_problem("dev", "ReadOnly", timeout=_LONG)
        assert "session is read-only" in problem["message"]
        assert str(servers.primary.socket_directory) in problem["message"]
        assert "point the DSN at the primary" in problem["remedy"]
        servers.primary.start()
        daemon.wait_ready("dev", 2, timeout=_LONG)
    assert "Traceback" not in daemon.text
