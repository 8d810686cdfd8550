"""The command line and the daemon against CockroachDB, as far as a simulator of it tells: nothing is sent that it has not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cockroach.simulator import Simulator
from tests.command_line import CommandLine, manifest, migration, table, three_tables
from tests.git import Repository
from tests.looking import applied, rows

WHY = ("--reason", "because", "--yes")
_HELD = (
    "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'somebody', mode = 'lease', since = now(), "
    "expires_at = now() + interval '1 h'"
)


@pytest.fixture
def declared(
    reconciler: CommandLine, git_repository: Repository, simulator: Simulator
) -> Iterator[Repository]:
    """A repository that declares version 2 of 3 for one database, and is the working directory."""
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=simulator.dsn)
    yield git_repository
    assert (simulator.refusals, simulator.violations) == ([], [])


def test_plan_up_status_history_and_down(
    reconciler: CommandLine, declared: Repository, simulator: Simulator
) -> None:
    assert reconciler("status").exit == 3
    assert reconciler("plan").exit == 3
    assert reconciler("up", "--dry-run").exit == 3
    up = reconciler("up")
    assert (up.exit, up.err) == (0, "")
    assert applied(simulator.postgresql) == [1, 2]
    assert reconciler("status").exit == 0
    assert reconciler("plan").out == "dev: in sync at version 2\n"
    assert "nobody holds the lock" in reconciler("unlock", *WHY).out
    assert "create_b" in reconciler("history").out
    declared.commit("Back", {"manifests/dev.yaml": manifest(1)})
    assert reconciler("down", "--version", "1").exit == 0
    assert applied(simulator.postgresql) == [1]


def test_a_failure_is_kept_until_it_is_retried(
    reconciler: CommandLine, declared: Repository, simulator: Simulator
) -> None:
    twice = migration("CREATE TABLE c (id int);\nCREATE TABLE c (id int);", "DROP TABLE c;")
    declared.commit("Break", {"manifests/dev.yaml": manifest(3), "migrations/00003_create_c.sql": twice})
    failed = reconciler("up")
    assert failed.exit == 1
    assert "failed at statement 2 of 2" in failed.err
    assert "StatementFailed" in reconciler("status").out
    assert reconciler("retry").exit == 0
    assert simulator.jobs.find("CREATE TABLE c").status == "succeeded"
    assert reconciler("up").exit == 1


def test_baseline_and_repairs(reconciler: CommandLine, declared: Repository, simulator: Simulator) -> None:
    rows(simulator.postgresql, "CREATE TABLE a (id int)")
    rows(simulator.postgresql, "CREATE TABLE b (id int)")
    assert reconciler("baseline", "--version", "2", *WHY).exit == 0
    declared.commit("Change", {"migrations/00002_create_b.sql": table("other")})
    assert "ChecksumMismatch" in reconciler("plan").out
    assert reconciler("repair", "--accept-checksum", "2", *WHY).exit == 0
    rows(simulator.postgresql, "UPDATE schema_migrations SET status = 'running' WHERE version = 2")
    assert "OutcomeUnknown" in reconciler("plan").out
    assert reconciler("repair", "--mark-applied", "2", *WHY).exit == 0
    assert reconciler("plan").out == "dev: in sync at version 2\n"
    rows(simulator.postgresql, "UPDATE schema_migrations_lock SET environment = 'other'")
    assert "ClaimedByOther" in reconciler("plan").out
    assert reconciler("repair", "--claim", *WHY).exit == 0
    assert reconciler("plan").out == "dev: in sync at version 2\n"


def test_a_lease_is_shown_and_withdrawn(
    reconciler: CommandLine, declared: Repository, simulator: Simulator
) -> None:
    assert reconciler("up").exit == 0
    rows(simulator.postgresql, _HELD)
    declared.commit("More", {"manifests/dev.yaml": manifest(3)})
    (environment,) = reconciler("status", "--output", "json").json["environments"]
    assert environment["databases"][0]["lock_holder"]["owner"] == "somebody"
    answer = reconciler("unlock", *WHY)
    assert answer.exit == 0
    assert "withdrew the lease of somebody" in reconciler("history").out
    (environment,) = reconciler("status", "--output", "json").json["environments"]
    assert environment["databases"][0]["lock_holder"] is None
