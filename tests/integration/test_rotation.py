"""Passwords that change while a daemon or a command runs, on a real server that asks for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from psycopg import sql

from reconciler.database import ConnectionSettings, open_database
from reconciler.model import ProblemError, Reason
from reconciler.redaction import Secret
from tests.canaries import token
from tests.command_line import CommandLine, commit, manifest, three_tables
from tests.daemon import Daemon
from tests.daemon import manifest as daemon_manifest
from tests.git import Repository
from tests.integration.source_support import serving
from tests.secret_manager import SecretManagerServer, secret_manager_server
from tests.servers import Role, TestServer

_NUMBERS = itertools.count()
SECRET = "projects/acme/secrets/orders"


class Orders:
    """A database that its owner reaches with a password."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.role: Role = server.create_role(password="first password/1")
        self.name = server.create_database(owner=self.role.name)

    def url(self, password: str) -> str:
        return self.server.tcp_url(self.name, user=self.role.name, password=password)

    def change_password(self, password: str) -> None:
        """Change it, and end the open connections, as whoever rotates a leaked password does."""
        with self.server.connect() as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(self.role.name), sql.Literal(password)
                )
            )
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [self.role.name]
            )


def look_again(repository: Repository) -> None:
    """Have the daemon look at its databases, whatever pause it is in: it does at every commit."""
    repository.commit("Look again", {"notes.txt": str(next(_NUMBERS))})


@pytest.fixture
def orders(server: TestServer) -> Iterator[Orders]:
    orders = Orders(server)
    yield orders
    server.drop_database(orders.name)
    server.drop_role(orders.role)


@pytest.fixture
def manager() -> Iterator[SecretManagerServer]:
    with secret_manager_server() as server:
        yield server


async def test_a_password_that_changed_after_it_was_read_is_read_again_at_once(orders: Orders) -> None:
    answers = [orders.url("old"), orders.url("first password/1"), orders.url("first password/1")]

    async def settings() -> ConnectionSettings:
        return ConnectionSettings(dsn=Secret(answers.pop(0)))

    database = open_database(settings)
    assert (await database.observe()).current_version == 0
    assert len(answers) == 1
    await database.close()


async def test_a_wrong_password_is_not_tried_twice(orders: Orders) -> None:
    asked = 0

    async def settings() -> ConnectionSettings:
        nonlocal asked
        asked += 1
        return ConnectionSettings(dsn=Secret(orders.url("wrong")))

    with pytest.raises(ProblemError) as caught:
        await open_database(settings).observe()
    assert caught.value.problem.reason is Reason.CONNECTION_FAILED
    assert asked == 2
    log = (orders.server.folder / "log").read_text(errors="replace")
    assert log.count(f'password authentication failed for user "{orders.role.name}"') == 1


def test_a_file_that_is_rotated_while_the_daemon_runs(
    orders: Orders, git_repository: Repository, tmp_path: Path
) -> None:
    secret = tmp_path / "dsn"
    secret.write_text(orders.url("first password/1") + "\n")
    commit(
        git_repository, {**three_tables(), "manifests/dev.yaml": daemon_manifest(f"{{file: {secret}}}", 1)}
    )
    with Daemon(git_repository, "--resync", "1s") as daemon:
        daemon.wait_ready("dev", 1)
        secret.write_text(orders.url("second:password@2") + "\n")
        orders.change_password("second:password@2")
        commit(git_repository, {"manifests/dev.yaml": daemon_manifest(f"{{file: {secret}}}", 2)})
        daemon.wait_ready("dev", 2)
        secret.write_text("\n")
        orders.change_password("third%2Fpassword")
        look_again(git_repository)
        problem = daemon.wait_problem("dev", "SecretUnavailable")
        assert problem["message"].endswith("is empty")
        secret.unlink()
        look_again(git_repository)
        daemon.wait_for("dev", lambda status: "does not exist" in str(status["problem"]))
        secret.write_text(orders.url("third%2Fpassword"))
        look_again(git_repository)
        daemon.wait_for("dev", lambda status: status["ready"])
        for password in ("first password/1", "second:password@2", "third%2Fpassword"):
            assert password not in daemon.text


def test_a_secret_manager_that_goes_away_and_comes_back(
    orders: Orders, manager: SecretManagerServer, git_repository: Repository
) -> None:
    manager.put(SECRET, orders.url("first password/1"))
    reference = f"{{gcp_secret: {SECRET}/versions/latest}}"
    commit(git_repository, {**three_tables(), "manifests/dev.yaml": daemon_manifest(reference, 1)})
    with Daemon(git_repository, "--resync", "1s", variables=manager.variables) as daemon:
        daemon.wait_ready("dev", 1)
        # out of reach: what was read before serves on, and everybody is told
        manager.stop()
        orders.change_password("first password/1")
        commit(git_repository, {"manifests/dev.yaml": daemon_manifest(reference, 2)})
        daemon.wait_ready("dev", 2)
        status = daemon.wait_for("dev", lambda status: status["warnings"])
        assert "the value that was read before serves on" in status["warnings"][0]["message"]
        assert len(daemon.events("secret may be old", "dev")) == 1
        # back again, with a new password
        manager.put(SECRET, orders.url("second:password@2"))
        manager.start()
        orders.change_password("second:password@2")
        look_again(git_repository)
        daemon.wait_for("dev", lambda status: status["ready"] and not status["warnings"], timeout=40)
        # a "no" is no outage
        manager.refusal = grpc.StatusCode.PERMISSION_DENIED
        orders.change_password("second:password@2")
        look_again(git_repository)
        problem = daemon.wait_problem("dev", "SecretUnavailable")
        assert "may not be read" in problem["message"]
        manager.refusal = None
        look_again(git_repository)
        daemon.wait_for("dev", lambda status: status["ready"])


def test_staging_cannot_name_the_secret_of_production(
    orders: Orders, git_repository: Repository, tmp_path: Path
) -> None:
    for name in ("staging", "production"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dsn").write_text(orders.url("first password/1"))
    production = f"{{file: {tmp_path}/production/dsn}}"
    commit(
        git_repository,
        {
            **three_tables(),
            "manifests/production.yaml": daemon_manifest(production, 1),
            "manifests/staging.yaml": daemon_manifest(production, 1),
            "manifests/dev.yaml": daemon_manifest("{command: [cat, /etc/passwd]}", 1),
        },
    )
    options = [
        f"--allow-secret=production=file:{tmp_path}/production/*",
        f"--allow-secret=staging=file:{tmp_path}/staging/*",
    ]
    with Daemon(git_repository, *options) as daemon:
        daemon.wait_ready("production", 1)
        problem = daemon.wait_problem("staging", "SecretNotAllowed")
        assert problem["class"] == "permanent"
        assert "which no --allow-secret allows staging" in problem["message"]
        assert "--allow-secret-commands" in daemon.wait_problem("dev", "SecretNotAllowed")["remedy"]
        commit(git_repository, {"manifests/staging.yaml": None, "manifests/dev.yaml": None})


def test_one_off_commands_resolve_the_same(
    orders: Orders, manager: SecretManagerServer, git_repository: Repository, reconciler: CommandLine
) -> None:
    manager.put(SECRET, orders.url("first password/1"))
    command = f"[echo, '{SECRET}']"
    commit(git_repository, {**three_tables(), "manifests/dev.yaml": manifest(1)})
    reconciler.enter(git_repository.path)
    reconciler.set(**manager.variables)
    text = manifest(1).replace("{env: ORDERS_DSN}", f"{{gcp_secret: {SECRET}/versions/1}}")
    commit(git_repository, {"manifests/dev.yaml": text})
    assert reconciler("up").exit == 0
    assert reconciler("status").exit == 0
    refused = reconciler("status", "--allow-secret", "dev=env:*")
    assert "SecretNotAllowed" in refused.err + refused.out
    assert reconciler("status", "--allow-secret", f"dev=gcp_secret:{SECRET}/versions/*").exit == 0
    assert reconciler("status", "--dsn", f"gcp_secret:{SECRET}/versions/1").exit == 0
    assert reconciler("history", "--dsn", f"command:echo '{orders.url('first password/1')}'").exit == 0
    commit(
        git_repository,
        {"manifests/dev.yaml": text.replace(f"gcp_secret: {SECRET}/versions/1", f"command: {command}")},
    )
    assert "--allow-secret-commands" in reconciler("up").err
    assert reconciler("up", "--allow-secret", "dev").exit == 2


def test_a_git_token_that_is_rotated_while_the_daemon_runs(
    orders: Orders, git_repository: Repository, tmp_path: Path
) -> None:
    git_repository.run("config", "uploadpack.allowFilter", "true")
    dsn = orders.server.dsn(orders.name)
    commit(git_repository, {**three_tables(), "manifests/dev.yaml": daemon_manifest(dsn, 1)})
    secret = tmp_path / "token"
    secret.write_text(token() + "\n")
    with serving(git_repository.path.parent, token=secret.read_text().strip()) as server:
        options = ["--branch", "main", "--git-token", f"file:{secret}", "--interval", "200ms"]
        url = f"{server.url}/{git_repository.path.name}/.git"
        with Daemon(url, *options, "--state-folder", str(tmp_path / "state")) as daemon:
            daemon.wait_ready("dev", 1)
            server.token = token()
            commit(git_repository, {"manifests/dev.yaml": daemon_manifest(dsn, 2)})
            daemon.wait_for_log(lambda event: "AuthenticationFailed" in str(event))
            secret.write_text(server.token)
            daemon.wait_ready("dev", 2)
