"""Many environments and databases in one daemon: rollout, suspension, and what commits add and remove while it runs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.applying import migration, table
from tests.daemon import Daemon, Status, manifest, manifest_of_several, wait_until
from tests.git import Repository
from tests.looking import applied, attempts, connections, exists, rows
from tests.servers import TestServer

Databases = Callable[[int], list[str]]


@pytest.fixture
def databases(server: TestServer) -> Iterator[Databases]:
    """Makes so many new, empty databases and returns their DSNs."""
    names: list[str] = []

    def make(count: int) -> list[str]:
        made = [server.create_database() for _ in range(count)]
        names.extend(made)
        return [server.dsn(name) for name in made]

    yield make
    for name in names:
        server.drop_database(name)


def test_a_rollout_goes_one_by_one_and_stops_at_a_failure(
    git_repository: Repository, databases: Databases
) -> None:
    one, two, three = databases(3)
    # what the migration copies is there in the first database alone
    rows(one, "CREATE TABLE original (id int)")
    rows(three, "CREATE TABLE original (id int)")
    names = {"one": one, "two": two, "three": three}
    files = {
        "migrations/1_a.sql": table("a"),
        "migrations/2_copy.sql": migration(
            "CREATE TABLE copy AS SELECT * FROM original;", "DROP TABLE copy;"
        ),
    }
    git_repository.commit(files={"manifests/shop.yaml": manifest_of_several(names, 1), **files})
    with Daemon(git_repository) as daemon:
        for name in names:
            daemon.wait_ready("shop", 1, name)
        order = [
            (event["event"], event["database"]) for event in daemon.log if event["event"].startswith("step")
        ]
        assert order == [(what, name) for name in names for what in ("step started", "step finished")]

        git_repository.commit(files={"manifests/shop.yaml": manifest_of_several(names, 2)})
        daemon.wait_ready("shop", 2, "one")
        daemon.wait_problem("shop", "StatementFailed", "two")
        stopped = daemon.wait_problem("shop", "RolloutStopped", "three")
        assert "two" in stopped["message"]
        assert "on_failure: continue" in stopped["remedy"]
        assert applied(three) == [1]

        # the failure does not matter any more once the manifest says so
        proceed = "rollout: {on_failure: continue}\n"
        git_repository.commit(files={"manifests/shop.yaml": manifest_of_several(names, 2, proceed)})
        daemon.wait_ready("shop", 2, "three")
        assert daemon.wait_problem("shop", "StatementFailed", "two")["version"] == 2
        assert attempts(two, 2) == 1


def test_a_commit_of_something_else_starts_no_stopped_rollout_anew(
    git_repository: Repository, databases: Databases
) -> None:
    """The one that comes first could not be reached when a later one failed."""
    one, two = databases(2)
    place = git_repository.path / "one.dsn"
    names = {"one": "{file: one.dsn}", "two": two}
    git_repository.commit(
        files={
            "manifests/shop.yaml": manifest_of_several(names, 1),
            "migrations/1_copy.sql": migration(
                "CREATE TABLE copy AS SELECT * FROM original;", "DROP TABLE copy;"
            ),
        }
    )
    # a single worker takes them in their order
    with Daemon(git_repository, "--workers", "1") as daemon:
        daemon.wait_problem("shop", "SecretUnavailable", "one")
        daemon.wait_problem("shop", "StatementFailed", "two")
        place.write_text(one)
        daemon.wait_problem("shop", "RolloutStopped", "one")
        place.unlink()
        readme = git_repository.commit(files={"README.md": "Hello\n"})
        for name in names:
            daemon.wait_observed("shop", readme, name)
        daemon.wait_problem("shop", "RolloutStopped", "one")
        assert not exists(one, "schema_migrations_journal")
        # a change of what is rolled out does
        git_repository.commit(files={"migrations/1_copy.sql": table("copy")})
        for name in names:
            daemon.wait_ready("shop", 1, name)


def test_databases_of_a_wider_rollout_are_brought_up_together(
    git_repository: Repository, databases: Databases
) -> None:
    names = dict(zip(("one", "two", "three"), databases(3), strict=True))
    wide = "rollout: {max_parallel: 2}\n"
    git_repository.commit(
        files={
            "manifests/shop.yaml": manifest_of_several(names, 1, wide),
            "migrations/1_a.sql": migration("SELECT pg_sleep(1);\nCREATE TABLE a (id int);", "DROP TABLE a;"),
        }
    )
    with Daemon(git_repository) as daemon:
        for name in names:
            daemon.wait_ready("shop", 1, name)
        at_work = busiest = 0
        for event in daemon.log:
            at_work += {"step started": 1, "step finished": -1}.get(event["event"], 0)
            busiest = max(busiest, at_work)
        assert busiest == 2


def test_environments_and_databases_come_and_go_by_commits(
    git_repository: Repository, databases: Databases
) -> None:
    one, two, three = databases(3)
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(one, 1),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)
        git_repository.commit(files={"manifests/shop.yaml": manifest_of_several({"a": two, "b": three}, 1)})
        daemon.wait_ready("shop", 1, "a")
        daemon.wait_ready("shop", 1, "b")
        assert connections(three) == 1
        assert 'reconciler_current_version{database="b",environment="shop"}' in daemon.metrics()

        # one database of an environment leaves; nothing else happens to it
        git_repository.commit(files={"manifests/shop.yaml": manifest_of_several({"a": two}, 2)})
        daemon.wait_ready("shop", 2, "a")
        wait_until(lambda: connections(three) == 0, "its connection is closed")
        assert applied(three) == [1]
        assert [database["database"] for database in daemon.status("shop")["databases"]] == ["a"]
        (released,) = daemon.events("released")
        assert (released["environment"], released["database"]) == ("shop", "b")
        wait_until(lambda: not _series(daemon, 'database="b"'), "its series vanish")

        # a whole environment leaves
        git_repository.commit(files={"manifests/shop.yaml": None})
        wait_until(lambda: connections(two) == 0, "its connection is closed")
        assert daemon.get("/api/v1/environments/shop")[0] == 404
        assert [event["database"] for event in daemon.events("released")] == ["b", "a"]
        wait_until(lambda: not _series(daemon, 'environment="shop"'), "its series vanish")
        assert applied(two) == [1, 2]

        # the other one was there all the time, and the one that left may come back
        git_repository.commit(files={"manifests/shop.yaml": manifest_of_several({"a": two}, 1)})
        daemon.wait_ready("shop", 1, "a")
        daemon.wait_ready("dev", 1)
        assert attempts(one, 1) == 1


def test_an_environment_that_leaves_in_the_middle_of_a_plan_finishes_its_step(
    git_repository: Repository, databases: Databases
) -> None:
    (one, other) = databases(2)
    slow = migration("CREATE TABLE a (id int); SELECT pg_sleep(1);", "DROP TABLE a;")
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(one, 2),
            "manifests/stays.yaml": manifest(other, 0),
            "migrations/1_a.sql": slow,
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] is not None)
        git_repository.commit(files={"manifests/dev.yaml": None})
        daemon.wait_for_log(lambda event: event["event"] == "released")
        wait_until(lambda: applied(one) == [1], "the running step finishes")
        wait_until(lambda: connections(one) == 0, "its connection is closed")
        assert applied(one) == [1]
        assert daemon.status("dev") == {}
        assert not _series(daemon, 'environment="dev"')


def test_a_suspended_environment_is_left_alone_until_it_is_resumed(
    git_repository: Repository, databases: Databases
) -> None:
    (dsn,) = databases(1)
    suspended = "suspend: true\n"
    git_repository.commit(
        files={
            # the variable is not set: a suspended environment resolves no secret
            "manifests/dev.yaml": manifest("{env: DEV_DSN_OF_THIS_TEST}", 1, suspended),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        status = daemon.wait_for("dev", lambda status: status["state"] == "suspended")
        assert status["problem"] is None or status["problem"]["reason"] == "Suspended"
        assert daemon.get("/readyz")[0] == 200
        assert not [event for event in daemon.log if event["level"] in ("warning", "error")]

        git_repository.commit(files={"manifests/dev.yaml": manifest(dsn, 1)})
        daemon.wait_ready("dev", 1)
        assert connections(dsn) == 1

        git_repository.commit(files={"manifests/dev.yaml": manifest(dsn, 2, suspended)})
        status = daemon.wait_for("dev", lambda status: status["state"] == "suspended")
        assert (status["target_version"], status["ready"]) == (2, False)
        assert connections(dsn) == 0
        assert not exists(dsn, "b")

        git_repository.revert()
        git_repository.commit(files={"manifests/dev.yaml": manifest(dsn, 2)})
        daemon.wait_ready("dev", 2)


def test_two_keys_of_one_database_both_stall_until_one_is_changed(
    git_repository: Repository, databases: Databases
) -> None:
    one, other = databases(2)
    git_repository.commit(
        files={
            "manifests/blue.yaml": manifest(one, 1),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("blue", 1)
        git_repository.commit(
            files={"manifests/green.yaml": manifest(one, 2), "manifests/blue.yaml": manifest(one, 2)}
        )
        for mine, theirs in (("blue", "green"), ("green", "blue")):
            problem = daemon.wait_problem(mine, "DuplicateDatabase")
            assert theirs in problem["message"]
        git_repository.commit(files={"manifests/green.yaml": manifest(other, 2)})
        daemon.wait_ready("green", 2)
        daemon.wait_ready("blue", 2)

        # suspended, the other one touches nothing, and is no obstacle
        git_repository.commit(files={"manifests/green.yaml": manifest(one, 2)})
        daemon.wait_problem("green", "DuplicateDatabase")
        daemon.wait_problem("blue", "DuplicateDatabase")
        git_repository.commit(files={"manifests/green.yaml": manifest(one, 2, "suspend: true\n")})
        daemon.wait_ready("blue", 2)


def test_servers_that_never_answer_delay_nobody(git_repository: Repository, databases: Databases) -> None:
    """More of them than there are workers, and ahead of the others by name."""
    dsns = databases(2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        mute = f"postgresql://127.0.0.1:{listener.getsockname()[1]}/x"
        silent = {f"manifests/a{number}.yaml": manifest(mute, 1) for number in range(6)}
        healthy = {f"manifests/z{number}.yaml": manifest(dsn, 1) for number, dsn in enumerate(dsns)}
        git_repository.commit(
            files={**silent, **healthy, "migrations/1_a.sql": table("a"), "migrations/2_b.sql": table("b")}
        )
        with Daemon(git_repository, "--workers", "2") as daemon:
            for number in range(len(dsns)):
                daemon.wait_ready(f"z{number}", 1, timeout=5)
            git_repository.commit(
                files={f"manifests/z{number}.yaml": manifest(dsn, 2) for number, dsn in enumerate(dsns)}
            )
            for number in range(len(dsns)):
                daemon.wait_ready(f"z{number}", 2, timeout=2)
            silence: Status = daemon.status("a0", "a0")
            assert silence["current_version"] is None
            assert daemon.get("/readyz")[0] == 503
            # nor do they delay the end
            assert daemon.stop() < 3


def test_the_embedded_server_serves_an_environment(git_repository: Repository) -> None:
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest("embedded", 1),
            "migrations/1_a.sql": table("a"),
            ".gitignore": ".reconciler/\n",
        }
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1, timeout=60)
        (up,) = daemon.events("embedded PostgreSQL is up")
        assert up["psql"].startswith("psql ")
        git_repository.commit(files={"manifests/dev.yaml": manifest("embedded", 0)})
        daemon.wait_ready("dev", 0)
        daemon.stop()
        # its data stays
        daemon.start()
        daemon.wait_ready("dev", 0, timeout=60)
    assert not list(git_repository.path.glob(".reconciler/**/postmaster.pid"))


def _series(daemon: Daemon, label: str) -> list[str]:
    return [name for name in daemon.metrics() if label in name]
