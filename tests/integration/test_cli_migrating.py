"""`plan`, `up` and `down` against real repositories and real databases."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from tests.command_line import (
    CommandLine,
    execute,
    execute_on_terminal,
    manifest,
    migration,
    start,
    table,
    three_tables,
)
from tests.git import Repository
from tests.servers import TestServer


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, fresh_database: str) -> Repository:
    """A repository that declares version 2 of 3 for one database, and is the working directory."""
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    return git_repository


def tables(dsn: str) -> list[str]:
    """The tables that migrations made."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'schema_migrations%' ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows]


def test_up_goes_to_the_declared_version_and_then_has_nothing_to_do(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    first = reconciler("up")
    assert (first.exit, first.err) == (0, "")
    assert "dev: up 1 create_a [checkout]" in first.out
    assert "dev: in sync at version 2, 2 migrations in" in first.out
    assert tables(fresh_database) == ["a", "b"]
    again = reconciler("up")
    assert (again.exit, again.out) == (0, "dev: in sync at version 2, nothing to do\n")


def test_up_as_json_is_one_document(reconciler: CommandLine, declared: Repository) -> None:
    answer = reconciler("up", "--output", "json")
    assert answer.exit == 0
    (database,) = answer.json["databases"]
    assert (database["environment"], database["database"]) == ("dev", "dev")
    assert [step["version"] for step in database["applied"]] == [1, 2]
    assert database["in_sync"] is True
    assert database["problem"] is None


def test_plan_and_dry_run_send_nothing(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    plan = reconciler("plan")
    assert plan.exit == 3
    assert "dev: from version 0 to 2, 2 steps" in plan.out
    dry = reconciler("up", "--dry-run")
    assert dry.exit == 3
    assert "CREATE TABLE a (id int);" in dry.out
    assert "-- BEGIN" in dry.out
    statements = reconciler("up", "--dry-run", "--output", "json").json["databases"][0]["plan"]["steps"]
    assert statements[1]["statements"][0]["text"] == "CREATE TABLE b (id int)"
    assert tables(fresh_database) == []
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,)


def test_plan_of_another_version_is_allowed_since_it_changes_nothing(
    reconciler: CommandLine, declared: Repository
) -> None:
    answer = reconciler("plan", "--version", "3", "--output", "json")
    assert answer.exit == 3
    assert [step["version"] for step in answer.json["databases"][0]["plan"]["steps"]] == [1, 2, 3]


def test_plan_in_sync_exits_with_0(reconciler: CommandLine, declared: Repository) -> None:
    reconciler("up")
    answer = reconciler("plan")
    assert (answer.exit, answer.out) == (0, "dev: in sync at version 2\n")


def test_version_that_git_does_not_declare_is_refused(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    for verb, version in (("up", "3"), ("down", "1")):
        answer = reconciler(verb, "--version", version)
        assert answer.exit == 3
        assert "VersionNotDeclared" in answer.err
        assert "manifests/dev.yaml" in answer.err
    assert tables(fresh_database) == ["a", "b"]
    assert reconciler("up", "--version", "2").exit == 0


def test_down_follows_a_lowered_target_and_up_does_not(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    declared.commit("Lower", {"manifests/dev.yaml": manifest(1)})
    refused = reconciler("up")
    assert refused.exit == 3
    assert "reconciler down --version 1" in refused.err
    assert refused.out == "dev: refused at version 2, on the way to 1\n"
    assert tables(fresh_database) == ["a", "b"]
    answer = reconciler("down", "--version", "1")
    assert answer.exit == 0
    assert "dev: down 2 create_b [checkout]" in answer.out
    assert tables(fresh_database) == ["a"]


def test_down_uses_the_stored_script_when_the_file_is_gone(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    declared.commit("Revert", {"manifests/dev.yaml": manifest(1), "migrations/00002_create_b.sql": None})
    dry = reconciler("down", "--version", "1", "--dry-run")
    assert "from the database, as stored when it was applied" in dry.out
    answer = reconciler("down", "--version", "1")
    assert answer.exit == 0
    assert "[stored]" in answer.out
    assert tables(fresh_database) == ["a"]


def test_down_to_a_higher_version_is_refused(reconciler: CommandLine, declared: Repository) -> None:
    answer = reconciler("down", "--version", "2")
    assert answer.exit == 3
    assert "reconciler up --version 2" in answer.err


def test_down_without_a_version_is_wrong_usage(reconciler: CommandLine, declared: Repository) -> None:
    assert reconciler("down").exit == 2


def test_broken_migration_shows_the_place_and_undoes_itself(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    broken = migration("CREATE TABLE x (id int);\nCREATE TABLE a (id int);", "DROP TABLE x;")
    declared.commit("Break", {"migrations/00002_create_b.sql": broken})
    answer = reconciler("up")
    assert answer.exit == 1
    assert "migrations/00002_create_b.sql:3:" in answer.err
    assert "SQLSTATE 42P07" in answer.err
    assert "\n    CREATE TABLE a (id int);\n" in answer.err
    assert "remedy:" in answer.err
    assert "dev: failed at version 1, on the way to 2; 1 migration in" in answer.out
    assert tables(fresh_database) == ["a"]
    # the daemon would leave it alone; a person who asks gets another attempt
    assert reconciler("plan").exit == 3
    assert "refused" in reconciler("plan").out
    assert reconciler("up").exit == 1
    declared.commit("Mend", {"migrations/00002_create_b.sql": table("b")})
    assert reconciler("up").exit == 0


def test_suspended_environment_is_left_alone_unless_a_person_names_the_version(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit("Suspend", {"manifests/dev.yaml": manifest(2, more="suspend: true\n")})
    answer = reconciler("up")
    assert answer.exit == 3
    assert "suspended" in answer.err
    assert reconciler("plan", "-e", "dev").exit == 3
    assert tables(fresh_database) == []
    assert reconciler("up", "--version", "3").exit == 0
    assert tables(fresh_database) == ["a", "b", "c"]
    assert reconciler("down", "--version", "1").exit == 0


def test_writing_needs_one_environment_of_several(reconciler: CommandLine, declared: Repository) -> None:
    declared.commit("Second", {"manifests/staging.yaml": manifest(1)})
    answer = reconciler("up")
    assert answer.exit == 2
    assert "dev, staging" in answer.err
    assert reconciler("-e", "dev", "up").exit == 0
    assert reconciler("up", "-e", "nowhere").exit == 2


def test_environment_that_cannot_be_read_is_an_error(reconciler: CommandLine, declared: Repository) -> None:
    declared.commit("Break", {"manifests/dev.yaml": "target_version: many\n"})
    answer = reconciler("up")
    assert answer.exit == 1
    assert "manifests/dev.yaml:1:" in answer.err


SEVERAL = "target_version: 1\ndatabases:\n  orders: {dsn: {env: ORDERS_DSN}}\n  billing: {dsn: {env: BILLING_DSN}}\n"


def test_failure_of_one_database_stops_the_rollout_unless_told_otherwise(
    reconciler: CommandLine, declared: Repository, fresh_database: str, server: TestServer
) -> None:
    other = server.create_database()
    with psycopg.connect(fresh_database) as connection:
        connection.execute("CREATE TABLE a (id int)")
    reconciler.set(BILLING_DSN=server.dsn(other))
    declared.commit("Two", {"manifests/dev.yaml": SEVERAL})
    answer = reconciler("up")
    assert answer.exit == 1
    assert "dev/billing: refused: left alone, since dev/orders did not get there" in answer.err
    assert tables(server.dsn(other)) == []
    assert reconciler("up", "-d", "billing").exit == 0
    assert reconciler("down", "-d", "nothing", "--version", "1").exit == 2
    declared.commit("On", {"manifests/dev.yaml": SEVERAL + "rollout: {on_failure: continue}\n"})
    going_on = reconciler("up")
    assert going_on.exit == 1
    assert "dev/billing: in sync at version 1" in going_on.out
    server.drop_database(other)


def test_dsn_alone_takes_all_files_of_the_repository(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    assert (
        reconciler("plan", "--dsn", fresh_database, "--output", "json").json["databases"][0]["plan"][
            "target_version"
        ]
        == 3
    )
    answer = reconciler("up", "--dsn", "env:ORDERS_DSN")
    assert answer.exit == 0
    assert "default: in sync at version 3" in answer.out
    assert reconciler("down", "--dsn", fresh_database, "--version", "0").exit == 0
    assert tables(fresh_database) == []


def test_dsn_outside_a_repository_takes_the_files_on_disk(
    reconciler: CommandLine, tmp_path: Path, fresh_database: str
) -> None:
    folder = tmp_path / "db" / "schema"
    folder.mkdir(parents=True)
    (folder / "1_a.sql").write_text(table("a"))
    reconciler.enter(tmp_path)
    reconciler.set(DSN=fresh_database)
    missing = reconciler("up")
    assert missing.exit == 3
    assert "no migration in migrations/" in missing.err
    assert reconciler("up", "--migrations", "db/schema").exit == 0
    assert tables(fresh_database) == ["a"]
    assert reconciler("status").exit == 0


def test_variable_counts_only_without_manifests(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler.set(DSN="postgresql://nobody@127.0.0.1:1/nowhere")
    assert reconciler("up").exit == 0
    declared.commit("Drop manifests", {"manifests/dev.yaml": None})
    answer = reconciler("up")
    assert answer.exit == 1
    assert "ConnectionFailed" in answer.err
    reconciler.set(DSN=fresh_database, DB_TIMEOUT="soon")
    assert reconciler("up").exit == 2


def test_claimed_database_is_not_touched_by_a_bare_dsn(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    answer = reconciler("up", "--dsn", fresh_database)
    assert answer.exit == 3
    assert "ClaimedByOther" in answer.err


def test_password_is_shown_nowhere(reconciler: CommandLine, declared: Repository) -> None:
    answer = reconciler("up", "--dsn", "postgresql://me:pass-word-77@127.0.0.1:1/x", "-v")
    assert answer.exit == 1
    assert "pass-word-77" not in answer.out + answer.err


def test_working_tree_reads_uncommitted_files(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.write({"manifests/dev.yaml": manifest(3)})
    assert reconciler("up").exit == 0
    assert tables(fresh_database) == ["a", "b"]
    assert reconciler("up", "--working-tree").exit == 0
    assert tables(fresh_database) == ["a", "b", "c"]


@pytest.mark.direct("looks at how the lock of a bare session is told")
def test_held_lock_is_waited_for_and_then_reported(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit("Patience", {"manifests/dev.yaml": manifest(2, more="timeouts: {acquire: 200ms}\n")})
    with psycopg.connect(fresh_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(x'7265636F6E63696C'::bigint)")
        answer = reconciler("up")
    assert answer.exit == 3
    assert "LockHeld" in answer.err
    assert "waiting for the lock" in answer.err


def test_plan_that_turns_round_while_the_lock_is_awaited_does_not_run(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit("All", {"manifests/dev.yaml": manifest(3)})
    reconciler("up")
    with psycopg.connect(fresh_database, autocommit=True) as other:
        other.execute("CREATE TABLE saved AS SELECT * FROM schema_migrations WHERE version = 3")
        declared.commit("Back", {"manifests/dev.yaml": manifest(1)})
        assert reconciler("down", "--version", "1").exit == 0
        declared.commit("Up", {"manifests/dev.yaml": manifest(2)})
        other.execute("SELECT pg_advisory_lock(x'7265636F6E63696C'::bigint)")
        with start("up", folder=declared.path, ORDERS_DSN=fresh_database) as process:
            assert process.stderr is not None
            assert "waiting for the lock" in process.stderr.readline()
            # somebody went on to version 3 meanwhile: from there, version 2 is down
            other.execute("INSERT INTO schema_migrations SELECT * FROM saved")
            other.execute("SELECT pg_advisory_unlock(x'7265636F6E63696C'::bigint)")
            _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "DownDenied" in err
    assert tables(fresh_database) == ["a", "saved"]


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_rolls_back_and_lets_go_of_the_lock(
    declared: Repository, fresh_database: str, sent: signal.Signals, expected: int
) -> None:
    slow = migration("CREATE TABLE slow (id int);\nSELECT pg_sleep(60);", "DROP TABLE slow;")
    declared.commit("Slow", {"migrations/00002_slow.sql": slow, "migrations/00002_create_b.sql": None})
    with (
        start("up", folder=declared.path, ORDERS_DSN=fresh_database) as process,
        psycopg.connect(fresh_database, autocommit=True) as watcher,
    ):
        deadline = time.monotonic() + 30
        busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while watcher.execute(busy).fetchone() != (1,):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, sent)
        out, err = process.communicate(timeout=30)
        assert process.returncode == expected
        assert "Traceback" not in err
        held = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database()"
        assert watcher.execute(held).fetchone() == (0,)
    assert "dev: up 1 create_a" in out
    assert tables(fresh_database) == ["a"]


def test_terminal_shows_what_runs_and_colours(declared: Repository, fresh_database: str) -> None:
    answer = execute_on_terminal("up", folder=declared.path, ORDERS_DSN=fresh_database)
    assert answer.exit == 0
    assert "dev: running up 1 create_a …" in answer.out
    assert "\r\x1b[2K" in answer.out
    plain = execute("up", folder=declared.path, ORDERS_DSN=fresh_database)
    assert "\x1b" not in plain.out
