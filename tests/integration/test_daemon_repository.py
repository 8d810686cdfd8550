"""Repositories that are empty, gone, rewritten, shallow or out of reach: the daemon waits, and loses no environment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.applying import table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository, git_environment
from tests.integration.source_support import HttpServer, run_git
from tests.looking import applied, rows

TOKEN = "right-token-and-secret"


def files(dsn: str, target: int) -> dict[str, str | bytes | None]:
    """One environment and two migrations."""
    return {
        "manifests/dev.yaml": manifest(dsn, target),
        "migrations/1_a.sql": table("a"),
        "migrations/2_b.sql": table("b"),
    }


def wait_source_problem(daemon: Daemon, reason: str) -> dict[str, object]:
    """Wait until the repository cannot be read for this reason, and return the problem."""

    def found() -> bool:
        problem = daemon.status()["source"]["problem"]
        return problem is not None and problem["reason"] == reason

    wait_until(found, f"{reason} is shown")
    problem = daemon.status()["source"]["problem"]
    assert problem["message"]
    assert problem["remedy"]
    return dict(problem)


def test_an_empty_repository_is_waited_for(git_repository: Repository, fresh_database: str) -> None:
    with Daemon(git_repository) as daemon:
        wait_source_problem(daemon, "RepositoryEmpty")
        code, body = daemon.get("/readyz")
        assert code == 503
        assert "no manifest was read yet" in body
        git_repository.commit(files=files(fresh_database, 1))
        daemon.wait_ready("dev", 1, timeout=4)
        assert daemon.status()["source"]["problem"] is None


def test_a_branch_that_does_not_exist_is_waited_for(git_repository: Repository, fresh_database: str) -> None:
    git_repository.commit(files=files(fresh_database, 1))
    with Daemon(git_repository, "--branch", "release/1") as daemon:
        problem = wait_source_problem(daemon, "BranchNotFound")
        assert "release/1" in str(problem["message"])
        git_repository.branch("release/1")
        daemon.wait_ready("dev", 1, timeout=4)


def test_a_repository_that_is_deleted_while_running_keeps_its_environments(
    git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    git_repository.commit(files=files(fresh_database, 1))
    with Daemon(git_repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 1)
        git_repository.path.rename(tmp_path / "away")
        wait_source_problem(daemon, "FetchFailed")
        # what was declared last goes on being looked after
        seen = daemon.status("dev", "dev")["last_reconcile_at"]
        daemon.wait_for("dev", lambda status: status["last_reconcile_at"] > seen and status["ready"])
        assert daemon.events("released") == []
        (tmp_path / "away").rename(git_repository.path)
        git_repository.commit(files=files(fresh_database, 2))
        daemon.wait_ready("dev", 2)
        assert daemon.status()["source"]["problem"] is None
        assert len(daemon.events("repository not readable")) == 1
        assert len(daemon.events("repository readable again")) == 1


def test_a_shallow_clone_is_followed_up_and_down(
    git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    git_repository.commit(files=files(fresh_database, 1))
    git_repository.commit("Unrelated", {"README.md": "Hello\n"})
    assert run_git("clone", "--quiet", "--depth=1", git_repository.url, str(tmp_path / "clone")) == 0
    clone = Repository(tmp_path / "clone")
    with Daemon(clone) as daemon:
        daemon.wait_ready("dev", 1)
        clone.commit(files=files(fresh_database, 2))
        daemon.wait_ready("dev", 2)
        clone.revert()
        daemon.wait_ready("dev", 1)


@pytest.fixture
def host(git_repository: Repository) -> Iterator[HttpServer]:
    """An HTTP server for the folder in which the test's repository lies."""
    server = HttpServer(git_repository.path.parent, token=TOKEN)
    yield server
    server.stop()


def test_a_remote_repository_is_followed_and_waited_for(
    git_repository: Repository, fresh_database: str, host: HttpServer, tmp_path: Path
) -> None:
    git_repository.commit(files=files(fresh_database, 1))
    remote = Daemon(
        f"{host.url}/repository/.git",
        *("--branch", "main", "--interval", "200ms", "--git-token", "env:GIT_TOKEN_OF_THIS_TEST"),
        variables={"GIT_TOKEN_OF_THIS_TEST": TOKEN, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    with remote as daemon:
        daemon.wait_ready("dev", 1)
        git_repository.commit(files=files(fresh_database, 2))
        daemon.wait_ready("dev", 2)
        git_repository.revert()
        daemon.wait_ready("dev", 1)

        host.stop()
        wait_source_problem(daemon, "FetchFailed")
        git_repository.commit(files=files(fresh_database, 2))
        assert daemon.status("dev", "dev")["ready"]
        host.start()
        daemon.wait_ready("dev", 2)
        assert len(daemon.events("repository not readable")) == 1
        assert TOKEN not in daemon.text + str(daemon.status())


def test_a_wrong_token_is_told_and_never_shown(
    git_repository: Repository, fresh_database: str, host: HttpServer, tmp_path: Path
) -> None:
    git_repository.commit(files=files(fresh_database, 1))
    remote = Daemon(
        f"{host.url}/repository/.git",
        *("--branch", "main", "--interval", "200ms", "--git-token", "env:GIT_TOKEN_OF_THIS_TEST"),
        variables={"GIT_TOKEN_OF_THIS_TEST": "wrong-and-secret", "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    with remote as daemon:
        wait_source_problem(daemon, "AuthenticationFailed")
        assert daemon.get("/healthz")[0] == 200
        assert applied(fresh_database) == []
        assert "and-secret" not in daemon.text + str(daemon.status()) + daemon.get("/metrics")[1]
        # as soon as the server takes it
        host.token = "wrong-and-secret"
        daemon.wait_ready("dev", 1)


def test_what_cannot_be_started_says_why_and_ends(git_repository: Repository, tmp_path: Path) -> None:
    import subprocess
    import sys

    for arguments, said in (
        (["--repo", str(tmp_path / "nowhere")], "nowhere"),
        (["--repo", str(git_repository.path), "--listen", "nonsense"], "nonsense"),
        (["--repo", str(git_repository.path), "--branch", "..", "--listen", "127.0.0.1:0"], ".."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", "run", *arguments],
            capture_output=True,
            text=True,
            env=git_environment(),
            timeout=20,
            check=False,
        )
        assert done.returncode in (1, 2), done
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(git_repository: Repository, fresh_database: str) -> None:
    git_repository.commit(files=files(fresh_database, 0))
    with Daemon(git_repository) as daemon:
        other = Daemon(git_repository, "--listen", daemon.url.removeprefix("http://"))
        other.start(wait=False)
        assert other.wait() == 1
        assert daemon.url.rpartition(":")[2] in other.text
        assert "Traceback" not in other.text


def test_a_clone_of_another_place_is_another_repository(
    git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    """A copy of the repository, without an origin, cannot take the database over."""
    git_repository.commit(files=files(fresh_database, 2))
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 2)
    shutil.copytree(git_repository.path, tmp_path / "copy")
    copy = Repository(tmp_path / "copy")
    copy.commit(files=files(fresh_database, 0))
    with Daemon(copy) as daemon:
        problem = daemon.wait_problem("dev", "ClaimedByOther")
        assert str(git_repository.path) in problem["message"]
        assert applied(fresh_database) == [1, 2]


def test_an_environment_that_does_not_exist_is_an_error_until_it_does(
    git_repository: Repository, fresh_database: str
) -> None:
    files = {"manifests/dev.yaml": manifest("{env: NOT_SET}", 1), "migrations/1_a.sql": table("a")}
    git_repository.commit(files=files)
    with Daemon(git_repository, "-e", "nope") as daemon:
        said = daemon.wait_for_log(lambda event: event["event"] == "no such environment")
        assert said["level"] == "error"
        assert "nope" in said["problem"]["message"]
        assert "dev" in said["problem"]["message"]
        wait_until(lambda: daemon.status()["problems"], "it is shown")
        code, body = daemon.get("/readyz")
        assert (code, "nope" in body) == (503, True)
        assert daemon.metrics()['reconciler_config_errors{environment=""}'] == 1

        git_repository.commit(files={"manifests/nope.yaml": manifest(fresh_database, 1)})
        daemon.wait_ready("nope", 1)
        assert daemon.get("/readyz")[0] == 200
        assert daemon.status()["problems"] == []


def test_the_daemon_names_the_clone_it_watches_and_not_its_origin(
    git_repository: Repository, fresh_database: str
) -> None:
    git_repository.run("remote", "add", "origin", "https://git.example.org/team/app.git")
    git_repository.commit(
        files={"manifests/dev.yaml": manifest(fresh_database, 1), "migrations/1_a.sql": table("a")}
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)
        place = str(git_repository.path)
        assert daemon.log[0]["event"].endswith(f"follows main of {place}")
        assert daemon.status()["source"]["repository"] == place
        assert place in daemon.get("/")[1]
        assert any(f'repository="{place}"' in series for series in daemon.metrics())
        # whom the database belongs to does not depend on where the clone is
        assert rows(fresh_database, "SELECT repository FROM schema_migrations_lock") == [
            ("git.example.org/team/app",)
        ]
