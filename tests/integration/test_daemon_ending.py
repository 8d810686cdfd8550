"""The daemon ends, is killed, has company, or is overtaken by a newer commit in the middle of its work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.applying import migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, attempts, connections, exists, journal, rows


def slow(seconds: float, name: str) -> str:
    """A migration that takes its time."""
    return migration(
        f"CREATE TABLE {name} (id int);\nSELECT pg_sleep({seconds});",
        f"SELECT pg_sleep({seconds});\nDROP TABLE {name};",
    )


@contextmanager
def held(dsn: str, table_name: str) -> Iterator[None]:
    """Keep a table locked by a transaction of somebody else's."""
    with psycopg.connect(dsn) as connection:
        connection.execute(psycopg.sql.SQL("LOCK TABLE {}").format(psycopg.sql.Identifier(table_name)))
        yield


def test_within_the_grace_a_running_transaction_finishes_and_no_other_begins(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 3),
            "migrations/1_a.sql": slow(1.0, "a"),
            "migrations/2_b.sql": slow(1.0, "b"),
            "migrations/3_c.sql": slow(1.0, "c"),
        }
    )
    with Daemon(git_repository, "--grace", "15s") as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 1)
        seconds = daemon.stop()
        assert applied(fresh_database) == [1]
        assert seconds < 3, "it began another step, or waited for nothing"
        assert daemon.events("interrupted") == []
        # what was left is taken up by the next one
        daemon.start()
        daemon.wait_ready("dev", 3)
        assert attempts(fresh_database, 1) == 1


def test_beyond_the_grace_a_running_transaction_is_rolled_back(
    git_repository: Repository, any_database: str
) -> None:
    git_repository.commit(
        files={"manifests/dev.yaml": manifest(any_database, 1), "migrations/1_a.sql": slow(30, "a")}
    )
    with Daemon(git_repository, "--grace", "500ms") as daemon:
        daemon.wait_for("dev", lambda status: status["running"] is not None)
        assert 0.4 < daemon.stop() < 5
        (interrupted,) = daemon.events("interrupted", "dev")
        assert (interrupted["database"], interrupted["version"], interrupted["direction"]) == ("dev", 1, "up")
        assert interrupted["outcome"].startswith("rolled back")
        (stopping,) = daemon.events("stopping")
        assert (stopping["running"], stopping["grace"]) == (["dev/dev"], "0.5s")
        assert "second signal" in stopping["hint"]
    assert not exists(any_database, "a")
    assert applied(any_database) == []
    wait_until(lambda: connections(any_database) == 0, "the server ends the statement")
    (finished,) = journal(any_database, "finished")
    assert (finished["outcome"], finished["reason"]) == ("interrupted", "Interrupted")
    # that was nobody's fault: the next one runs it again
    git_repository.commit(files={"migrations/1_a.sql": slow(0, "a")})
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)


def test_a_second_signal_cuts_the_grace_short_and_says_where_a_step_stopped(
    git_repository: Repository, fresh_database: str
) -> None:
    script = migration("SELECT 1;\nSELECT pg_sleep(30);", "SELECT 1;")
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1),
            "migrations/1_a.sql": f"-- reconciler: no-transaction\n{script}",
        }
    )
    with Daemon(git_repository, "--grace", "20s") as daemon:
        wait_until(
            lambda: rows(fresh_database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
            "the second statement runs",
        )
        daemon.send(signal.SIGTERM)
        daemon.wait_for_log(lambda event: event["event"] == "stopping")
        assert daemon.stop() < 5
        (interrupted,) = daemon.events("interrupted", "dev")
        assert interrupted["version"] == 1
        assert interrupted["outcome"].startswith("stopped after 1 of 2 statements")


def test_a_daemon_that_only_looks_ends_at_once(git_repository: Repository, fresh_database: str) -> None:
    """One database is in order, another accepts connections and says nothing."""
    with _silence() as port:
        git_repository.commit(
            files={
                "manifests/dev.yaml": manifest(fresh_database, 1),
                "manifests/mute.yaml": manifest(f"postgresql://127.0.0.1:{port}/x", 1),
                "migrations/1_a.sql": table("a"),
            }
        )
        with Daemon(git_repository, "--grace", "20s") as daemon:
            daemon.wait_ready("dev", 1)
            assert daemon.stop() < 3


def test_after_a_kill_in_the_middle_of_a_transaction_the_next_one_converges(
    git_repository: Repository, any_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(any_database, 2),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": slow(5, "b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 2)
        wait_until(
            lambda: rows(any_database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
            "the step runs",
        )
        daemon.kill()
        assert not exists(any_database, "b")
        daemon.start()
        # the server has not noticed yet that the old one is gone: its lock is a state that is shown, not an error
        status = daemon.wait_for("dev", lambda status: status["state"] in ("waiting", "migrating", "in_sync"))
        if status["state"] == "waiting":
            assert "pid" in status["lock_holder"]["owner"]
        daemon.wait_ready("dev", 2, timeout=30)
        assert rows(any_database, "SELECT version, status FROM schema_migrations ORDER BY 1") == [
            (1, "success"), (2, "success")
        ]  # fmt: skip


def test_two_daemons_on_one_database_run_each_migration_once(
    git_repository: Repository, fresh_database: str
) -> None:
    names = "abcdefgh"
    files = {f"migrations/{number}_{name}.sql": slow(0.1, name) for number, name in enumerate(names, 1)}
    git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 0), **files})
    with Daemon(git_repository) as one, Daemon(git_repository) as other:
        for daemon in (one, other):
            daemon.wait_ready("dev", 0)
        git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, len(names))})
        for daemon in (one, other):
            daemon.wait_ready("dev", len(names), timeout=30)
        assert [attempts(fresh_database, number) for number in range(1, len(names) + 1)] == [1] * len(names)
        for daemon in (one, other):
            assert not [event for event in daemon.log if event["level"] in ("error", "critical")]


def test_a_newer_target_stops_a_long_plan_at_the_step_boundary(
    git_repository: Repository, fresh_database: str
) -> None:
    files = {f"migrations/{number}_t{number}.sql": slow(0.7, f"t{number}") for number in range(1, 6)}
    git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 5), **files})
    with Daemon(git_repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 2)
        git_repository.commit("Not so far", {"manifests/dev.yaml": manifest(fresh_database, 1)})
        daemon.wait_ready("dev", 1)
        steps = [(event["version"], event["direction"]) for event in daemon.events("step finished", "dev")]
        # what ran is finished, and nothing begins that is not wanted any more
        assert steps == [(1, "up"), (2, "up"), (2, "down")]
        assert [attempts(fresh_database, version) for version in (1, 2, 3)] == [1, 2, 0]


def test_a_changed_file_of_a_later_step_is_picked_up_at_the_step_boundary(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2),
            "migrations/1_a.sql": slow(1, "a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 1)
        git_repository.commit(files={"migrations/2_b.sql": table("better")})
        daemon.wait_ready("dev", 2)
        assert (exists(fresh_database, "b"), exists(fresh_database, "better")) == (False, True)


def test_a_commit_of_something_else_disturbs_no_running_plan(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2),
            "migrations/1_a.sql": slow(1, "a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 1)
        readme = git_repository.commit(files={"README.md": "Hello\n"})
        daemon.wait_ready("dev", 2)
        daemon.wait_observed("dev", readme)
        assert len({event["attempt"] for event in journal(fresh_database, "started")}) == 2
        assert rows(fresh_database, "SELECT fence FROM schema_migrations_lock") == [(1,)]


def test_a_table_lock_of_somebody_else_is_waited_for(git_repository: Repository, fresh_database: str) -> None:
    rows(fresh_database, "CREATE TABLE busy (id int)")
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1, "timeouts: {lock_timeout: 200ms}\n"),
            "migrations/1_a.sql": migration(
                "ALTER TABLE busy ADD COLUMN a int;", "ALTER TABLE busy DROP COLUMN a;"
            ),
        }
    )
    with Daemon(git_repository) as daemon:
        with held(fresh_database, "busy"):
            daemon.wait_for("dev", lambda status: status["running"] is not None)
            tried: set[tuple[object, ...]] = set()
            waiting = "SELECT xact_start FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

            def tried_again() -> bool:
                tried.update(rows(fresh_database, waiting))
                return len(tried) > 1

            wait_until(tried_again, "it gives up and tries again")
        daemon.wait_ready("dev", 1)


@contextmanager
def _silence() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]
