"""`reconciler status` of a database that another process is at work on, asked of the database itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.command_line import CommandLine, manifest, migration, start, table
from tests.daemon import wait_until
from tests.git import Repository
from tests.looking import rows
from tests.servers import TestServer

_LOCK = "SELECT pg_advisory_lock(x'7265636F6E63696C'::bigint)"
_SLOW = (
    "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_sleep(0.004); RETURN n; END $$;"
)


@pytest.fixture
def reconciler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs commands in this process."""
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, fresh_database: str) -> Repository:
    """A repository whose first migration, a table, is applied."""
    git_repository.commit("Begin", {"manifests/dev.yaml": manifest(1), "migrations/1_a.sql": table("a")})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    assert reconciler("up").exit == 0
    return git_repository


@contextmanager
def running(repository: Repository, dsn: str) -> Iterator[subprocess.Popen[str]]:
    """`reconciler up` in a process of its own, which goes well once the block is over."""
    with start("up", folder=repository.path, ORDERS_DSN=dsn) as process:
        try:
            yield process
        finally:
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err


def seen(
    reconciler: CommandLine, until: Callable[[dict[str, Any]], object], *arguments: str
) -> dict[str, Any]:
    """The status of the only database, as soon as it is as it should be."""
    found: dict[str, Any] = {}

    def look() -> object:
        answer = reconciler("status", *arguments, "--output", "json")
        ((database,),) = [environment["databases"] for environment in answer.json["environments"]]
        found.clear()
        found.update(database, exit=answer.exit)
        return until(database)

    wait_until(look, "the status tells it", timeout=20)
    return found


def test_somebody_elses_migration_is_told_with_phase_and_blockers(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    index = migration("CREATE INDEX CONCURRENTLY a_id ON a (id);", "DROP INDEX a_id;")
    declared.commit("Index", {"manifests/dev.yaml": manifest(2), "migrations/2_index.sql": index})
    with running(declared, fresh_database), psycopg.connect(fresh_database, application_name="old") as older:
        older.execute("INSERT INTO a VALUES (1)")
        status = seen(reconciler, lambda status: status["running"] and status["running"]["phase"])
        assert (status["state"], status["exit"], status["problem"]) == ("migrating", 3, None)
        step = status["running"]
        assert (step["version"], step["name"], step["direction"]) == (2, "index", "up")
        assert (step["source"], step["transactional"]) == ("checkout", False)
        assert step["since"] == status["since"]
        assert step["since"] is not None
        assert (step["phase"], step["percent"]) == ("waiting for writers before build", None)
        assert step["object"] == "public.a_id"
        (blocker,) = step["blocked_by"]
        assert (blocker["pid"], blocker["application"]) == (older.info.backend_pid, "old")
        assert blocker["query"] is None
        assert status["lock_holder"]["owner"].startswith("reconciler up on ")
        (reconciling,) = [
            each for each in status["conditions"] if each["status"] and each["type"] == "Reconciling"
        ]
        assert "runs the up of migration 2 (index), blocked by pid " in reconciling["message"]
        text = reconciler("status").out
        assert "dev: running up 2 index since " in text
        assert ": waiting for writers before build (public.a_id)" in text
        assert f"dev: blocked by pid {older.info.backend_pid} (user " in text
        assert "dev: the lock is held by reconciler up on " in text
        # a DSN alone tells it, too
        bare = seen(reconciler, lambda status: status["running"], "--dsn", fresh_database)
        assert (bare["state"], bare["running"]["version"], bare["exit"]) == ("migrating", 2, 3)
    assert seen(reconciler, lambda status: True)["state"] == "in_sync"


def test_somebody_elses_build_is_told_with_percent(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit(
        "Index",
        {
            "manifests/dev.yaml": manifest(3),
            "migrations/2_big.sql": migration(
                f"{_SLOW}\nCREATE TABLE big (n int, filler text);\n"
                "INSERT INTO big SELECT n, repeat('x', 400) FROM generate_series(1, 700) n;"
            ),
            "migrations/3_index.sql": migration("CREATE INDEX big_n ON big (slow(n));"),
        },
    )
    with running(declared, fresh_database):
        status = seen(reconciler, lambda status: status["running"] and status["running"]["percent"])
        assert (status["state"], status["running"]["version"], status["current_version"]) == (
            "migrating",
            3,
            2,
        )
        assert status["running"]["transactional"] is True
        assert status["running"]["phase"] == "building index: scanning table"
        assert status["running"]["object"] == "public.big"
        assert 0 < status["running"]["percent"] < 100
        assert status["running"]["blocked_by"] == []


def test_a_holder_that_runs_nothing_is_waited_for(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit("More", {"manifests/dev.yaml": manifest(2), "migrations/2_b.sql": table("b")})
    # an attempt of somebody who died over it, and who still stands in the lock's row
    rows(
        fresh_database,
        "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'somebody', since = now() - interval '1 hour'",
    )
    rows(
        fresh_database,
        "INSERT INTO schema_migrations_journal (attempt, event, version, name, direction, script_source, fence) "
        "SELECT gen_random_uuid(), 'started', 2, 'b', 'up', 'checkout', fence FROM schema_migrations_lock",
    )
    with psycopg.connect(fresh_database, autocommit=True) as holder:
        holder.execute(_LOCK)
        status = seen(reconciler, lambda status: True)
        assert (status["state"], status["running"]) == ("waiting", None)
    assert seen(reconciler, lambda status: True)["state"] == "pending"


def test_of_another_role_it_is_told_as_far_as_it_may_be_seen(
    reconciler: CommandLine, git_repository: Repository, server: TestServer
) -> None:
    owner, reader = server.create_role(), server.create_role()
    name = server.create_database(owner=owner.name)
    git_repository.commit(
        "Begin",
        {
            "manifests/dev.yaml": manifest(1),
            "migrations/1_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);"),
        },
    )
    reconciler.enter(git_repository.path)
    dsn = server.dsn(name, user=owner.name)
    rows(dsn, "CREATE TABLE a (id int)")
    reconciler.set(ORDERS_DSN=server.dsn(name, user=reader.name))
    with running(git_repository, dsn), psycopg.connect(dsn, application_name="old") as older:
        older.execute("INSERT INTO a VALUES (1)")
        wait_until(
            lambda: rows(server.dsn(name), "SELECT 1 FROM pg_locks WHERE NOT granted AND database IS NULL"),
            "it waits for the older transaction",
        )
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC", name)
        status = seen(reconciler, lambda status: status["running"] and status["running"]["blocked_by"])
        assert status["running"]["phase"] is None, "of other roles the server tells no phase"
        (blocker,) = status["running"]["blocked_by"]
        assert (blocker["pid"], blocker["user"]) == (older.info.backend_pid, owner.name)
        assert (blocker["state"], blocker["transaction_age_seconds"]) == (None, None)
    server.drop_database(name)
    for each in (owner, reader):
        server.drop_role(each)
