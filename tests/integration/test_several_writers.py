"""Many writers at once, one that is frozen, and statements that outlive their clients: still one writer at a time."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack

import psycopg

from tests.applying import migration, table
from tests.command_line import execute, start
from tests.daemon import PATIENCE, Daemon, Status, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, attempts, exists, journal, rows

_MANY = 5


def slow(name: str, seconds: float) -> str:
    """A migration that makes a table, then sleeps."""
    return migration(f"CREATE TABLE {name} (id int);\nSELECT pg_sleep({seconds});", f"DROP TABLE {name};")


def backend_that(dsn: str, waits: str) -> int | None:
    """The process id of our backend that waits for `waits`."""
    found = rows(
        dsn,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler' "
        "AND state = 'active' AND (wait_event = %s OR wait_event_type = %s)",
        waits,
        waits,
    )
    return int(found[0][0]) if found else None


def wait_for_backend(dsn: str, waits: str) -> int:
    """Wait for it."""
    wait_until(lambda: backend_that(dsn, waits), f"a statement waits for {waits}")
    pid = backend_that(dsn, waits)
    assert pid is not None
    return pid


def test_five_daemons_and_five_commands_apply_each_migration_once(
    git_repository: Repository, fresh_database: str
) -> None:
    versions = list(range(1, 7))
    files = {f"migrations/{number}_t{number}.sql": slow(f"t{number}", 0.4) for number in versions}
    git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 0), **files})
    with ExitStack() as stack:
        daemons = [stack.enter_context(Daemon(git_repository)) for _ in range(_MANY)]
        for daemon in daemons:
            daemon.wait_ready("dev", 0)
        git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, len(versions))})
        commands = [
            stack.enter_context(
                start(
                    "up", "--repo", str(git_repository.path), "--output", "json", folder=git_repository.path
                )
            )
            for _ in range(_MANY)
        ]
        # those that do not hold the lock say who does, and since when
        told = [_waiting_or_done(daemon, len(versions)) for daemon in daemons]
        documents = []
        for command in commands:
            out, err = command.communicate(timeout=60)
            assert command.returncode == 0, out + err
            documents.append(json.loads(out)["databases"][0])
        for daemon in daemons:
            daemon.wait_ready("dev", len(versions), timeout=30)
            assert not [event for event in daemon.log if event["level"] in ("error", "critical")]
        waiting = [status for status in told if status["state"] == "waiting"]
        assert len(waiting) >= _MANY - 1
        for status in waiting:
            assert "pid" in status["lock_holder"]["owner"]
            assert status["lock_holder"]["since"]
            assert status["problem"]["reason"] == "LockHeld"
            assert status["lock_holder"]["owner"] in status["problem"]["message"]
    assert applied(fresh_database) == versions
    assert [attempts(fresh_database, version) for version in versions] == [1] * len(versions)
    by_commands = [step["version"] for document in documents for step in document["applied"]]
    by_daemons = [event["version"] for daemon in daemons for event in daemon.events("step finished", "dev")]
    assert sorted(by_commands + by_daemons) == versions
    fences = [event["fence"] for event in journal(fresh_database, "finished")]
    assert fences == sorted(fences)


def _waiting_or_done(daemon: Daemon, target: int) -> Status:
    return daemon.wait_for(
        "dev",
        lambda status: status["state"] in ("waiting", "migrating") or status["current_version"] == target,
    )


def test_a_frozen_holder_never_commits_after_its_lock_is_gone(
    git_repository: Repository, any_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(any_database, 2),
            "migrations/1_a.sql": slow("a", 2),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        pid = wait_for_backend(any_database, "PgSleep")
        daemon.send(signal.SIGSTOP)
        try:
            rows(any_database, "SELECT pg_terminate_backend(%s)", pid)
            answer = execute("up", "--repo", str(git_repository.path), folder=git_repository.path)
            assert answer.exit == 0, answer.out + answer.err
            assert applied(any_database) == [1, 2]
            (before,) = rows(any_database, "SELECT fence FROM schema_migrations_lock")
        finally:
            daemon.send(signal.SIGCONT)
        daemon.wait_ready("dev", 2, timeout=40)
        # what it sent before is undone, and it found nothing left to do
        events = journal(any_database, "finished")
        assert [(event["version"], event["outcome"], event["verb"]) for event in events] == [
            (1, "interrupted", "run"),
            (1, "success", "up"),
            (2, "success", "up"),
        ]
        assert "who took the lock next: reconciler up on" in events[0]["message"]
        assert rows(any_database, "SELECT fence FROM schema_migrations_lock") == [before]
        assert not daemon.events("step finished")


def test_a_frozen_holder_outside_a_transaction_sends_no_further_statement(
    git_repository: Repository, any_database: str
) -> None:
    script = "SELECT pg_sleep(2);\nCREATE TABLE a (id int);\nINSERT INTO a VALUES (1);"
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(any_database, 1),
            "migrations/1_a.sql": migration(script, "DROP TABLE a;", "no-transaction"),
        }
    )
    with Daemon(git_repository) as daemon:
        pid = wait_for_backend(any_database, "PgSleep")
        daemon.send(signal.SIGSTOP)
        try:
            rows(any_database, "SELECT pg_terminate_backend(%s)", pid)
            answer = execute("up", "--repo", str(git_repository.path), folder=git_repository.path)
            assert answer.exit == 0, answer.out + answer.err
        finally:
            daemon.send(signal.SIGCONT)
        daemon.wait_ready("dev", 1, timeout=40)
        assert rows(any_database, "SELECT count(*) FROM a") == [(1,)]


def test_a_transaction_that_outlives_its_client_is_waited_for(
    git_repository: Repository, any_database: str
) -> None:
    _outlives(
        git_repository,
        any_database,
        slow("a", 2),
        lambda: wait_for_backend(any_database, "PgSleep"),
        lambda: None,
    )
    # it went on in the server to its commit: the next writer found it done
    assert [event["pid"] for event in journal(any_database, "finished")] == [
        event["pid"] for event in journal(any_database, "started")
    ]


def test_a_concurrent_index_that_outlives_its_client_is_waited_for(
    git_repository: Repository, any_database: str
) -> None:
    rows(any_database, "CREATE TABLE t (id int)")
    script = migration(
        "CREATE INDEX CONCURRENTLY t_id ON t (id);", "DROP INDEX CONCURRENTLY t_id;", "no-transaction"
    )
    with psycopg.connect(any_database) as blocker:
        blocker.execute("INSERT INTO t VALUES (1)")
        _outlives(
            git_repository,
            any_database,
            script,
            lambda: wait_for_backend(any_database, "Lock"),
            blocker.commit,
        )
    assert rows(
        any_database,
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 't'::regclass",
    ) == [("t_id", True)]


def _outlives(
    repository: Repository,
    dsn: str,
    script: str,
    until_it_runs: Callable[[], int],
    let_go: Callable[[], object],
) -> None:
    """Kill a command while its statement runs, and see that the next one waits for the server, and then is content."""
    repository.commit(files={"manifests/dev.yaml": manifest(dsn, 1), "migrations/1_a.sql": script})
    first = start("up", "--repo", str(repository.path), folder=repository.path)
    backend = until_it_runs()
    first.kill()
    first.communicate(timeout=PATIENCE)
    second = start("up", "--repo", str(repository.path), folder=repository.path)
    try:
        wait_until(lambda: _asks_for_the_lock(dsn, backend), "the next writer asks for the lock")
        # the server has not noticed that its client is gone, and nothing runs beside its statement
        assert backend_that(dsn, "PgSleep") == backend or backend_that(dsn, "Lock") == backend
        assert not exists(dsn, "schema_migrations") or applied(dsn) == []
        let_go()
        out, err = second.communicate(timeout=PATIENCE)
    finally:
        second.kill()
        second.communicate()
    assert second.returncode == 0, out + err
    assert applied(dsn) == [1]


def _asks_for_the_lock(dsn: str, backend: int) -> bool:
    found = rows(
        dsn,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler' AND pid <> %s "
        "AND query LIKE '%%schema_migrations%%'",
        backend,
    )
    return bool(found)
