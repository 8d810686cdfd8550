"""The daemon follows git: up, down, and what it says when a migration is broken."""

from __future__ import annotations

import json

import pytest

from tests.applying import migration, table
from tests.command_line import execute
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, attempts, connections, exists, journal, rows

BROKEN = """-- UP MIGRATION
CREATE TABLE b (id int);
INSERT INTO b VALUES (1);
SELECT * FROM nowhere_to_be_found;

-- DOWN MIGRATION
DROP TABLE b;
"""


@pytest.mark.direct("counts connections at the server, which are the pool's")
def test_a_bump_goes_up_and_a_revert_goes_down(git_repository: Repository, any_database: str) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(any_database, 1),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)
        assert (exists(any_database, "a"), exists(any_database, "b")) == (True, False)

        bump = git_repository.commit("Bump", {"manifests/dev.yaml": manifest(any_database, 2)})
        status = daemon.wait_ready("dev", 2)
        assert status["observed_revision"] == f"main@sha1:{bump}"
        assert applied(any_database) == [1, 2]
        assert rows(any_database, "SELECT git_revision FROM schema_migrations WHERE version = 2") == [(bump,)]

        git_repository.revert()
        daemon.wait_ready("dev", 1)
        assert applied(any_database) == [1]
        assert (exists(any_database, "a"), exists(any_database, "b")) == (True, False)

        code, body = daemon.get("/readyz")
        assert (code, json.loads(body)["ready"]) == (200, True)
        samples = daemon.metrics()
        assert samples['reconciler_current_version{database="dev",environment="dev"}'] == 1
        steps = [
            (event["event"], event["version"], event["direction"])
            for event in daemon.log
            if event["event"] in ("step started", "step finished")
        ]
        assert steps == [
            ("step started", 1, "up"), ("step finished", 1, "up"),
            ("step started", 2, "up"), ("step finished", 2, "up"),
            ("step started", 2, "down"), ("step finished", 2, "down"),
        ]  # fmt: skip
    assert connections(any_database) == 0


def test_a_removed_file_goes_down_by_the_stored_script_and_says_so(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 2)
        git_repository.commit(
            "Give the feature up",
            {"manifests/dev.yaml": manifest(fresh_database, 1), "migrations/2_b.sql": None},
        )
        daemon.wait_ready("dev", 1)
        assert not exists(fresh_database, "b")
        finished = daemon.events("step finished")[-1]
        assert (finished["version"], finished["direction"], finished["source"]) == (2, "down", "stored")
        (warning,) = daemon.events("plan warning", "dev")
        assert "stored" in warning["problem"]["message"]
        assert warning["problem"]["version"] == 2
        assert journal(fresh_database, "started")[-1]["script_source"] == "stored"


def test_a_stored_down_that_waits_is_announced_in_the_plan(
    git_repository: Repository, fresh_database: str
) -> None:
    denied = "policy: {down: deny}\n"
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2, denied),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 2)
        git_repository.commit(
            files={"manifests/dev.yaml": manifest(fresh_database, 1, denied), "migrations/2_b.sql": None}
        )
        problem = daemon.wait_problem("dev", "DownDenied")
        assert "allow" in problem["remedy"]
        status = daemon.status("dev", "dev")
        assert [(step["version"], step["direction"], step["source"]) for step in status["pending"]] == [
            (2, "down", "stored")
        ]
        assert status["state"] == "ahead"
        assert any("stored" in warning["message"] for warning in status["warnings"])
        assert applied(fresh_database) == [1, 2]
        # a changed policy lets it
        git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 1)})
        daemon.wait_ready("dev", 1)


def test_a_broken_migration_is_told_in_full_and_not_run_again(
    git_repository: Repository, any_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(any_database, 2),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": BROKEN,
        }
    )
    with Daemon(git_repository, "--resync", "1s") as daemon:
        problem = daemon.wait_problem("dev", "StatementFailed")
        place = (problem["file"], problem["line"], problem["column"])
        assert place == ("migrations/2_b.sql", 4, 15)
        assert problem["sqlstate"] == "42P01"
        assert problem["excerpt"] == "SELECT * FROM nowhere_to_be_found;\n              ^"
        assert "nowhere_to_be_found" in problem["message"]
        assert "2_b.sql" in problem["remedy"]
        assert (problem["version"], problem["direction"], problem["statement_index"]) == (2, "up", 3)

        (logged,) = daemon.events("step failed", "dev")
        for key in ("file", "line", "column", "sqlstate", "excerpt", "remedy"):
            assert logged["problem"][key] == problem[key], key
        (failed,) = [event for event in journal(any_database, "finished") if event["outcome"] == "failed"]
        assert (failed["path"], failed["line"], failed["column_number"]) == place
        assert (failed["sqlstate"], failed["excerpt"]) == ("42P01", problem["excerpt"])
        assert failed["remedy"] == problem["remedy"]

        # nothing half applied
        assert applied(any_database) == [1]
        assert not exists(any_database, "b")

        # not run again: not by later passes ...
        passes = daemon.status("dev", "dev")["last_reconcile_at"]
        daemon.wait_for("dev", lambda status: status["last_reconcile_at"] > passes)
        # ... not by a commit of something else ...
        readme = git_repository.commit("Explain", {"README.md": "Hello\n"})
        daemon.wait_observed("dev", readme)
        assert daemon.wait_problem("dev", "StatementFailed") == problem
        assert attempts(any_database, 2) == 1
        assert len(daemon.events("step failed", "dev")) == 1
        # ... and not by a restart, which tells it again as it was
        daemon.stop()
        daemon.start()
        again = daemon.wait_problem("dev", "StatementFailed")
        assert (again["file"], again["line"], again["column"]) == place
        assert (again["excerpt"], again["sqlstate"]) == (problem["excerpt"], "42P01")
        assert attempts(any_database, 2) == 1

        # each attempt that a person asks for is told, and counted, although it ends alike
        failures = 'reconciler_migration_failures_total{database="dev",environment="dev",reason="sql_error"}'
        before = daemon.metrics()[failures], len(daemon.events("step failed", "dev"))
        assert execute("retry", "-e", "dev", folder=git_repository.path).exit == 0
        wait_until(lambda: attempts(any_database, 2) == 2, "it is tried again")
        wait_until(
            lambda: (
                (daemon.metrics()[failures], len(daemon.events("step failed", "dev")))
                == (before[0] + 1, before[1] + 1)
            ),
            "the second failure is told",
        )

        # a fix in git re-arms it at once
        git_repository.commit("Mend", {"migrations/2_b.sql": table("b")})
        daemon.wait_ready("dev", 2, timeout=3)
        assert exists(any_database, "b")
        assert attempts(any_database, 2) == 3
        assert rows(any_database, "SELECT version, status FROM schema_migrations ORDER BY 1") == [
            (1, "success"), (2, "success")
        ]  # fmt: skip


def test_a_retry_event_and_a_changed_policy_re_arm_a_stalled_migration(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1),
            "migrations/1_copy.sql": migration(
                "CREATE TABLE copy AS SELECT * FROM original;", "DROP TABLE copy;"
            ),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_problem("dev", "StatementFailed")
        assert attempts(fresh_database, 1) == 1
        # another policy is another attempt, and fails again
        git_repository.commit(
            files={"manifests/dev.yaml": manifest(fresh_database, 1, "policy: {max_down_steps: 7}\n")}
        )
        daemon.wait_for("dev", lambda _: attempts(fresh_database, 1) == 2, timeout=3)
        daemon.wait_problem("dev", "StatementFailed")
        # a person mends the database and asks for another attempt, as `reconciler retry` does
        rows(fresh_database, "CREATE TABLE original AS SELECT 7 AS id")
        rows(
            fresh_database,
            "INSERT INTO schema_migrations_journal (attempt, event) VALUES (gen_random_uuid(), 'retry')",
        )
        daemon.wait_ready("dev", 1, timeout=8)
        assert rows(fresh_database, "SELECT id FROM copy") == [(7,)]
        assert attempts(fresh_database, 1) == 3
        in_sync = daemon.events("in sync", "dev")
        assert in_sync[-1]["version"] == 1


def test_checking_another_branch_out_moves_no_database(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 2),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 2)
        git_repository.branch("other")
        git_repository.checkout("other")
        git_repository.commit("Elsewhere", {"manifests/dev.yaml": manifest(fresh_database, 0)})
        # a commit to the branch that is followed proves that the daemon has looked since
        git_repository.checkout("main")
        seen = git_repository.commit("Here", {"README.md": "Hello\n"})
        git_repository.checkout("other")
        daemon.wait_observed("dev", seen)
        assert daemon.status()["source"]["branch"] == "main"
        assert applied(fresh_database) == [1, 2]
        assert [event["branch"] for event in map(_revision, daemon.events("revision"))] == ["main", "main"]


def test_a_rewritten_branch_takes_no_database_down_until_that_is_approved(
    git_repository: Repository, fresh_database: str
) -> None:
    first = git_repository.commit(
        files={"manifests/dev.yaml": manifest(fresh_database, 1), "migrations/1_a.sql": table("a")}
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)
        git_repository.commit(
            files={"manifests/dev.yaml": manifest(fresh_database, 2), "migrations/2_b.sql": table("b")}
        )
        daemon.wait_ready("dev", 2)
        git_repository.reset(first)
        problem = daemon.wait_problem("dev", "HistoryRewritten")
        assert "approve_down_to: 1" in problem["remedy"]
        assert daemon.status("dev", "dev")["state"] == "blocked"
        assert applied(fresh_database) == [1, 2]
        git_repository.commit(
            files={"manifests/dev.yaml": manifest(fresh_database, 1, "policy: {approve_down_to: 1}\n")}
        )
        daemon.wait_ready("dev", 1)
        assert not exists(fresh_database, "b")


def _revision(event: dict[str, object]) -> dict[str, str]:
    branch, _, commit = str(event["revision"]).partition("@sha1:")
    return {"branch": branch, "commit": commit}
