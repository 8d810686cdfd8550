"""Downs that fail, and files that differ from what was applied: each has a named reason, loses nothing, and others go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.applying import migration, table
from tests.daemon import Daemon, manifest
from tests.git import Repository
from tests.integration.pairs import Pair, made_pair
from tests.looking import applied, exists, journal, rows
from tests.servers import TestServer


@pytest.fixture
def pair(git_repository: Repository, server: TestServer) -> Iterator[Pair]:
    with made_pair(git_repository, server) as pair:
        yield pair


def declare(pair: Pair, target: int, extra: str = "", **scripts: str | None) -> str:
    """Commit another target of `dev`, and its migration 2 anew where one is given."""
    files: dict[str, str | bytes | None] = {f"dev/2_{name}.sql": text for name, text in scripts.items()}
    files["manifests/dev.yaml"] = manifest(pair.dev, target, f"migrations: dev\n{extra}")
    return pair.repository.commit(files=files)


def history(pair: Pair) -> list[tuple[Any, ...]]:
    """Everything that the history says of migration 2."""
    return rows(pair.dev, "SELECT * FROM schema_migrations WHERE version = 2")


@pytest.mark.parametrize("directive", ["", "no-transaction"])
def test_a_down_that_fails_stalls_and_is_finished_by_a_retry(pair: Pair, directive: str) -> None:
    down = "DROP TABLE x;\nSELECT 1 / (SELECT count(*) FROM t);"
    pair.commit(migration("CREATE TABLE x (id int);", down, directive))
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        declare(pair, 1)
        problem = daemon.wait_problem("dev", "DownFailed")
        assert (problem["class"], problem["version"], problem["direction"]) == ("permanent", 2, "down")
        assert (problem["sqlstate"], problem["statement_index"]) == ("22012", 2)
        assert problem["line"] == 5 + bool(directive)
        assert problem["remedy"]
        if directive:
            # the first statement is in force, and on record as that
            assert not exists(pair.dev, "x")
            found = rows(
                pair.dev,
                "SELECT status, direction, statements_done FROM schema_migrations WHERE version = 2",
            )
            assert found == [("failed", "down", 1)]
        else:
            assert exists(pair.dev, "x")
            assert history(pair) == before
        pair.others_go_on(daemon)
        rows(pair.dev, "INSERT INTO t VALUES (1)")
        # the commit of others is no reason to try again
        assert daemon.status("dev", "dev")["problem"]["reason"] == "DownFailed"
        declare(pair, 1, "policy: {on_drift: report, destructive: allow, max_down_steps: 4}\n")
        daemon.wait_ready("dev", 1)
    assert not exists(pair.dev, "x")
    assert applied(pair.dev) == [1]
    downs = [event for event in journal(pair.dev, "finished") if event["direction"] == "down"]
    assert [event["outcome"] for event in downs] == ["failed", "success"]


@pytest.mark.parametrize("policy", ["stored", "checkout"])
def test_a_down_that_differs_from_the_stored_one_is_chosen_by_the_policy_and_named(
    pair: Pair, policy: str
) -> None:
    def script(which: str) -> str:
        return migration("CREATE TABLE x (id int);", f"DROP TABLE x;\nCREATE TABLE by_{which} (id int);")

    pair.commit(script("stored"))
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        commit = declare(pair, 2, x=script("checkout"))
        daemon.wait_observed("dev", commit)
        daemon.wait_ready("dev", 2)
        assert history(pair) == before
        declare(pair, 1, f"policy: {{changed_down: {policy}}}\n")
        daemon.wait_ready("dev", 1)
        # what is logged comes by another way than the status
        told = daemon.wait_for_log(
            lambda event: event["event"] == "plan warning" and "changed_down" in event["problem"]["message"]
        )
        assert (told["environment"], told["problem"]["version"]) == ("dev", 2)
        finished = daemon.wait_for_log(
            lambda event: event["event"] == "step finished" and event["direction"] == "down"
        )
        assert (finished["environment"], finished["source"]) == ("dev", policy)
        pair.others_go_on(daemon)
    assert exists(pair.dev, f"by_{policy}")
    assert not exists(pair.dev, "x")
    assert rows(pair.dev, "SELECT count(*) FROM pg_class WHERE relname LIKE 'by\\_%'") == [(1,)]
    assert journal(pair.dev, "started")[-1]["script_source"] == policy


X = migration("CREATE TABLE x (id int);", "DROP TABLE x;")


def test_an_applied_file_edited_by_a_comment_only_is_a_warning(pair: Pair) -> None:
    pair.commit(X)
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        pair.repository.write({"dev/3_y.sql": table("y")})
        declare(pair, 3, x="-- why x is there\n" + X.replace("(id", "( /* key */ id"))
        daemon.wait_ready("dev", 3)
        warning = daemon.wait_for_log(lambda event: event["event"] == "plan warning")["problem"]
        assert (warning["reason"], warning["version"]) == ("ChecksumMismatch", 2)
        assert "only comments" in warning["message"]
        pair.others_go_on(daemon)
    assert history(pair) == before
    assert applied(pair.dev) == [1, 2, 3]


def test_an_applied_file_edited_by_content_is_refused_until_it_is_restored(pair: Pair) -> None:
    pair.commit(X)
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        pair.repository.write({"dev/3_y.sql": table("y")})
        declare(pair, 3, x=X.replace("int", "bigint"))
        problem = daemon.wait_problem("dev", "ChecksumMismatch")
        assert (problem["version"], problem["file"]) == (2, "dev/2_x.sql")
        assert "restore" in problem["remedy"]
        assert daemon.status("dev", "dev")["state"] == "blocked"
        pair.others_go_on(daemon)
        # not even what comes after it runs
        assert applied(pair.dev) == [1, 2]
        assert history(pair) == before
        declare(pair, 3, x=X)
        daemon.wait_ready("dev", 3)
    assert history(pair) == before


def test_two_files_with_one_version_on_two_branches_are_refused_once_they_are_merged(pair: Pair) -> None:
    """Each branch is in order by itself; git merges them without a conflict."""
    pair.repository.commit(
        files={"manifests/dev.yaml": manifest(pair.dev, 1, "migrations: dev\n"), "dev/1_t.sql": table("t")}
    )
    pair.repository.branch("other")
    pair.repository.checkout("other")
    declare(pair, 2, y=table("y"))
    pair.repository.checkout("main")
    declare(pair, 2, x=X)
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        pair.repository.run("merge", "--quiet", "--no-edit", "other")
        problem = daemon.wait_problem("dev", "MigrationInvalid")
        assert "2_x.sql" in str(problem)
        assert "2_y.sql" in str(problem)
        assert problem["remedy"]
        pair.others_go_on(daemon)
        assert (history(pair), exists(pair.dev, "y")) == (before, False)
        pair.repository.run("mv", "dev/2_y.sql", "dev/3_y.sql")
        declare(pair, 3)
        daemon.wait_ready("dev", 3)
    assert history(pair) == before
    assert exists(pair.dev, "y")


def test_a_version_that_another_branch_has_used_for_another_file_is_refused(pair: Pair) -> None:
    """The database followed one branch, and the one that is followed now gives the number to something else."""
    pair.commit(X)
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        before = history(pair)
        declare(pair, 2, x=None, y=table("y"))
        problem = daemon.wait_problem("dev", "ChecksumMismatch")
        assert problem["version"] == 2
        assert "2_y.sql" in problem["message"]
        assert "(x)" in problem["message"]
        assert "accept" not in problem["remedy"]
        pair.others_go_on(daemon)
        assert (history(pair), exists(pair.dev, "x"), exists(pair.dev, "y")) == (before, True, False)
