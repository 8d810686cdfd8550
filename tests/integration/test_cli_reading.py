"""`status`, `history`, `wait` and `retry` against real repositories, databases and daemons."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest

from tests.command_line import CommandLine, execute_on_terminal, manifest, migration, start, three_tables
from tests.git import Repository
from tests.servers import TestServer

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nowhere"


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, fresh_database: str) -> Repository:
    """A repository that declares version 2 of 3 for one database, and is the working directory."""
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    return git_repository


def break_second(repository: Repository) -> None:
    """Make the second migration fail."""
    repository.commit("Break", {"migrations/00002_create_b.sql": migration("SELECT 1/0;")})


def test_status_before_and_after(reconciler: CommandLine, declared: Repository) -> None:
    before = reconciler("status")
    assert before.exit == 3
    assert before.out.splitlines()[1].split()[:6] == ["dev", "dev", "pending", "2", "0", "2"]
    reconciler("up")
    after = reconciler("status")
    assert after.exit == 0
    assert after.out.splitlines()[1].split()[:6] == ["dev", "dev", "in", "sync", "2", "2"]


def test_status_after_a_down_says_when_that_was(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    declared.commit("Lower", {"manifests/dev.yaml": manifest(1)})
    reconciler("down", "--version", "1")
    with psycopg.connect(fresh_database) as connection:
        connection.execute(
            "UPDATE schema_migrations_journal SET recorded_at = '2020-01-02 03:04:05+00' WHERE direction = 'down'"
        )
        connection.execute(
            "UPDATE schema_migrations_journal SET recorded_at = '2019-01-01 00:00:00+00' WHERE direction = 'up'"
        )
    (environment,) = reconciler("status", "--output", "json").json["environments"]
    assert environment["databases"][0]["since"] == "2020-01-02T03:04:05.000Z"


def test_status_as_json_has_the_keys_of_the_api(reconciler: CommandLine, declared: Repository) -> None:
    reconciler("up")
    answer = reconciler("status", "--output", "json")
    (environment,) = answer.json["environments"]
    (database,) = environment["databases"]
    assert (environment["environment"], environment["target_version"]) == ("dev", 2)
    assert (database["state"], database["current_version"], database["ready"]) == ("in_sync", 2, True)
    assert database["since"] is not None
    assert answer.json["source"]["revision"]["commit"] == declared.head


def test_status_says_since_when_and_tells_the_last_error(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    break_second(declared)
    reconciler("up")
    with psycopg.connect(fresh_database) as connection:
        # the failure stays the newest event
        connection.execute("UPDATE schema_migrations_journal SET recorded_at = '2019-01-01 00:00:00+00'")
        connection.execute(
            "UPDATE schema_migrations_journal SET recorded_at = '2020-01-02 03:04:05+00' WHERE outcome = 'failed'"
        )
    answer = reconciler("status")
    assert answer.exit == 1
    assert "failed" in answer.out
    assert "2020-01-02 03:04:05Z" in answer.out
    assert "migrations/00002_create_b.sql:2:1" in answer.out
    assert "SQLSTATE 22012" in answer.out
    assert "remedy:" in answer.out


def test_status_goes_on_past_what_cannot_be_reached_or_read(
    reconciler: CommandLine, declared: Repository
) -> None:
    reconciler("up")
    declared.commit(
        "More",
        {
            "manifests/broken.yaml": "target_version: x\n",
            "manifests/far.yaml": manifest(1, environment="BILLING_DSN"),
            "manifests/resting.yaml": manifest(1, environment="NOT_SET", more="suspend: true\n"),
        },
    )
    reconciler.set(BILLING_DSN=UNREACHABLE)
    answer = reconciler("status")
    assert answer.exit == 1
    states = {line.split()[0]: " ".join(line.split()[2:4]) for line in answer.out.splitlines()[1:5]}
    assert states["dev"] == "in sync"
    assert states["far"].startswith("unreachable")
    assert states["resting"].startswith("suspended")
    assert states["broken"].startswith("blocked")
    assert "manifests/broken.yaml:1:" in answer.out
    assert reconciler("status", "-e", "dev").exit == 0
    assert reconciler("status", "-e", "resting").exit == 0


def test_status_of_a_secret_that_is_not_there_names_the_reference(
    reconciler: CommandLine, declared: Repository
) -> None:
    declared.commit("Far", {"manifests/dev.yaml": manifest(1, environment="NOT_SET")})
    answer = reconciler("status")
    assert answer.exit == 1
    assert "{env: NOT_SET}" in answer.out


def test_dsn_alone_needs_no_repository(
    reconciler: CommandLine, declared: Repository, tmp_path: Path, fresh_database: str
) -> None:
    reconciler("up")
    reconciler.enter(tmp_path)
    status = reconciler("status", "--dsn", fresh_database, "--output", "json")
    assert status.exit == 0
    assert status.json["environments"][0]["databases"][0]["current_version"] == 2
    assert reconciler("history", "--dsn", "env:ORDERS_DSN").exit == 0
    assert reconciler("wait", "--dsn", fresh_database, "--version", "2").exit == 0
    reconciler.set(DSN=fresh_database)
    assert reconciler("status").exit == 0
    assert reconciler("status", "-e", "dev").exit == 1


def test_dsn_of_a_failed_database_shows_the_failure(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    break_second(declared)
    reconciler("up")
    answer = reconciler("status", "--dsn", fresh_database)
    assert answer.exit == 1
    assert "division by zero" in answer.out


def test_dsn_with_migrations_compares_with_them(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    answer = reconciler("status", "--dsn", fresh_database, "--migrations", "migrations")
    assert answer.exit == 3
    assert "3 up" in answer.out


def test_terminal_gets_a_table_by_rich(declared: Repository, fresh_database: str) -> None:
    answer = execute_on_terminal("status", folder=declared.path, ORDERS_DSN=fresh_database)
    assert answer.exit == 3
    assert "───" in answer.out
    assert "\x1b[33mpending" in answer.out


def test_lines_of_a_terminal_are_not_broken(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    name = "add_a_column_with_a_rather_long_name"
    declared.commit("Add", {f"migrations/00004_{name}.sql": migration("SELECT 1;")})
    declared.commit("Raise", {"manifests/dev.yaml": manifest(4)})
    reconciler("up")
    escape = re.compile(r"\x1b\[[0-9;]*m")
    for verb in ("status", "history"):
        answer = execute_on_terminal(verb, folder=declared.path, ORDERS_DSN=fresh_database, COLUMNS="80")
        assert max(map(len, escape.sub("", answer.out).splitlines())) <= 80


def test_history_shows_rows_and_events(reconciler: CommandLine, declared: Repository) -> None:
    empty = reconciler("history")
    assert (empty.exit, empty.out) == (0, "dev: no migrations in its history\n")
    reconciler("up")
    answer = reconciler("history")
    assert answer.exit == 0
    assert "create_a" in answer.out
    assert "the newest 2 entries of its journal" in answer.out
    assert "up 2" in answer.out
    document = reconciler("history", "--output", "json", "--version", "2").json["databases"][0]
    assert [row["version"] for row in document["applied"]] == [2]
    assert {event["version"] for event in document["journal"]} == {2}
    limited = reconciler("history", "--limit", "1")
    assert "2 migrations in its history, the newest 1 shown" in limited.out
    assert "create_a" not in limited.out


def test_history_of_what_cannot_be_reached_is_an_error(reconciler: CommandLine, declared: Repository) -> None:
    reconciler.set(ORDERS_DSN=UNREACHABLE)
    answer = reconciler("history")
    assert answer.exit == 1
    assert "ConnectionFailed" in answer.err


def test_history_does_not_ask_a_daemon(reconciler: CommandLine, declared: Repository) -> None:
    assert reconciler("history", "--server", "http://127.0.0.1:1").exit == 2


def test_history_of_all_environments_says_which_are_suspended(
    reconciler: CommandLine, declared: Repository
) -> None:
    declared.commit("Suspend", {"manifests/dev.yaml": manifest(2, more="suspend: true\n")})
    answer = reconciler("history")
    assert (answer.exit, "Suspended" in answer.err, "--dsn" in answer.err) == (3, True, True)
    assert answer.err.startswith("dev: refused: the environment dev is suspended")
    answer = reconciler("history", "--output", "json")
    assert answer.exit == 3
    (told,) = answer.json["databases"]
    assert (told["environment"], told["applied"], told["problem"]["reason"]) == ("dev", [], "Suspended")
    # beside one that is not, it is no failure
    declared.commit("Another", {"manifests/test.yaml": manifest(2)})
    answer = reconciler("history")
    assert (answer.exit, "test: no migrations in its history" in answer.out) == (0, True)
    assert "dev: refused: the environment dev is suspended" in answer.err


def test_history_of_a_suspended_environment_is_refused(reconciler: CommandLine, declared: Repository) -> None:
    declared.commit("Suspend", {"manifests/dev.yaml": manifest(2, more="suspend: true\n")})
    answer = reconciler("history", "-e", "dev")
    assert answer.exit == 3
    assert "suspended" in answer.err


def test_wait_is_met_by_a_higher_version(reconciler: CommandLine, declared: Repository) -> None:
    reconciler("up")
    assert reconciler("wait", "--version", "1").exit == 0
    assert reconciler("wait").exit == 0
    answer = reconciler("wait", "--version", "2", "--output", "json")
    assert answer.exit == 0
    assert answer.json["reached"] is True
    assert answer.json["databases"][0]["current_version"] == 2


def test_wait_tells_what_it_saw_last(reconciler: CommandLine, declared: Repository) -> None:
    reconciler("up")
    answer = reconciler("wait", "--version", "3", "--timeout", "200ms", "--interval", "50ms", "-v")
    assert answer.exit == 3
    assert "not reached within 200ms" in answer.err
    assert "last seen: dev: at version 2, waiting for 3" in answer.err
    assert answer.err.count("dev: at version 2") == 2


def test_wait_is_not_met_while_something_runs(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    reconciler("up")
    with psycopg.connect(fresh_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(x'7265636F6E63696C'::bigint)")
        answer = reconciler("wait", "--version", "2", "--timeout", "200ms")
    assert answer.exit == 3
    assert "something runs on it" in answer.err


def test_wait_sees_a_version_arrive(
    declared: Repository, reconciler: CommandLine, fresh_database: str
) -> None:
    with start(
        "wait", "--version", "2", "--interval", "50ms", "-v", folder=declared.path, ORDERS_DSN=fresh_database
    ) as process:
        assert process.stderr is not None
        assert "at version 0, waiting for 2" in process.stderr.readline()
        assert reconciler("up").exit == 0
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == "dev: at version 2\n"


def test_wait_outlasts_a_server_that_is_down(
    declared: Repository, reconciler: CommandLine, own_server: TestServer
) -> None:
    dsn = own_server.dsn(own_server.create_database())
    reconciler.set(ORDERS_DSN=dsn)
    assert reconciler("up").exit == 0
    own_server.stop()
    with start(
        "wait", "--version", "2", "--interval", "50ms", "-v", folder=declared.path, ORDERS_DSN=dsn
    ) as process:
        assert process.stderr is not None
        assert "ConnectionFailed" in process.stderr.readline()
        own_server.start()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_wait_outlasts_a_repository_that_is_not_there_yet(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("wait", "--repo", str(tmp_path / "none"), "--version", "1", "--timeout", "100ms")
    assert answer.exit == 3
    assert "no folder" in answer.err


def test_wait_ends_at_once_where_there_is_no_repository(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("wait", "--version", "1", "--timeout", "60s", "--output", "json")
    assert answer.exit == 1
    assert "not in a git repository" in answer.err
    assert answer.json["problem"]["reason"] == "FetchFailed"


def test_wait_ends_at_once_when_all_is_suspended(reconciler: CommandLine, declared: Repository) -> None:
    declared.commit("Suspend", {"manifests/dev.yaml": manifest(2, more="suspend: true\n")})
    for arguments in ((), ("-e", "dev")):
        answer = reconciler("wait", "--timeout", "60s", *arguments)
        assert answer.exit == 3
        assert "suspended" in answer.err
    told = reconciler("status", "--output", "json").out.encode()
    with answering(told) as url:
        assert reconciler("wait", "--server", url, "--version", "2", "--timeout", "60s").exit == 3


def test_wait_ends_at_once_for_a_manifest_that_cannot_be_read(
    reconciler: CommandLine, declared: Repository
) -> None:
    declared.commit("Break", {"manifests/other.yaml": "]"})
    answer = reconciler("wait", "--version", "0", "--timeout", "60s")
    assert answer.exit == 1
    assert "ManifestInvalid" in answer.err


def test_wait_above_what_git_declares_says_so(reconciler: CommandLine, declared: Repository) -> None:
    answer = reconciler("wait", "--version", "3", "--timeout", "50ms")
    assert answer.exit == 3
    assert "git declares only 2" in answer.err


def test_wait_as_json_knows_no_empty_names(reconciler: CommandLine) -> None:
    arguments = ("--server", "http://127.0.0.1:1", "--version", "1", "--timeout", "50ms")
    (seen,) = reconciler("wait", *arguments, "--output", "json").json["databases"]
    assert (seen["environment"], seen["database"]) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "unreachable", "reachable": False},
        {"reachable": False},
        {"state": "pending", "pending": [{"direction": "down", "version": 2}]},
        {"lock_holder": {"owner": "somebody", "since": None}},
        {"running": {"direction": "down", "version": 2}},
    ],
)
def test_wait_does_not_take_a_daemons_last_known_version_for_the_present_one(
    changes: dict[str, object], reconciler: CommandLine
) -> None:
    database = {"environment": "dev", "database": "dev", "state": "in_sync", "current_version": 2}
    body = {"environments": [{"environment": "dev", "databases": [database | changes]}]}
    with answering(json.dumps(body).encode()) as url:
        answer = reconciler("wait", "--server", url, "--version", "2", "--timeout", "50ms")
    assert answer.exit == 3


def test_wait_with_a_dsn_needs_a_version(reconciler: CommandLine, fresh_database: str) -> None:
    assert reconciler("wait", "--dsn", fresh_database).exit == 2


def test_retry_rearms_what_failed(reconciler: CommandLine, declared: Repository) -> None:
    fine = reconciler("retry")
    assert fine.exit == 0
    assert "nothing to try again" in fine.out
    break_second(declared)
    reconciler("up")
    assert reconciler("status").exit == 1
    answer = reconciler("retry")
    assert answer.exit == 0
    assert "asked for another attempt at up 2" in answer.out
    assert reconciler("status").exit == 3
    assert '"event": "retry"' in reconciler("history", "--output", "json").out
    reconciler("up")
    document = reconciler("retry", "--output", "json").json["databases"][0]
    assert document["requested"] is True
    assert document["failure"]["sqlstate"] == "22012"


def test_retry_needs_one_environment_that_is_not_suspended(
    reconciler: CommandLine, declared: Repository
) -> None:
    declared.commit("Suspend", {"manifests/dev.yaml": manifest(2, more="suspend: true\n")})
    assert reconciler("retry").exit == 3
    declared.commit("More", {"manifests/other.yaml": manifest(2)})
    assert reconciler("retry").exit == 2


def test_retry_of_what_cannot_be_reached_is_an_error(reconciler: CommandLine, declared: Repository) -> None:
    reconciler.set(ORDERS_DSN=UNREACHABLE)
    assert reconciler("retry").exit == 1


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """A server that gives one answer to everything. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not to the terminal."""

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
    assert set(asked) <= {"/api/v1/environments"}


def test_server_is_asked_instead_of_the_database(
    reconciler: CommandLine, declared: Repository, tmp_path: Path
) -> None:
    reconciler("up")
    told = reconciler("status", "--output", "json").out.encode()
    reconciler.enter(tmp_path)
    reconciler.set(http_proxy="http://127.0.0.1:1")
    with answering(told) as url:
        answer = reconciler("status", "--server", url)
        assert answer.exit == 0
        assert "in sync" in answer.out
        assert reconciler("wait", "--server", url, "--version", "2").exit == 0
        assert reconciler("wait", "--server", url, "--version", "3", "--timeout", "100ms").exit == 3
        assert reconciler("status", "--server", f"{url}/", "-e", "dev", "-d", "dev").exit == 0
        assert reconciler("status", "--server", url, "-e", "nowhere").exit == 2
        assert reconciler("status", "--server", url, "-d", "nowhere").exit == 2


@pytest.mark.parametrize(("body", "status"), [(b"<html>", 200), (b"[]", 200), (b"{}", 404), (b"", 500)])
def test_server_that_is_something_else_is_an_error(reconciler: CommandLine, body: bytes, status: int) -> None:
    with answering(body, status) as url:
        answer = reconciler("status", "--server", url)
    assert answer.exit == 1
    assert "ConnectionFailed" in answer.err


def test_server_that_is_down_is_an_error_and_waited_for(reconciler: CommandLine) -> None:
    assert reconciler("status", "--server", "http://127.0.0.1:1").exit == 1
    answer = reconciler("wait", "--server", "http://127.0.0.1:1", "--version", "1", "--timeout", "100ms")
    assert answer.exit == 3


@pytest.mark.parametrize("url", ["127.0.0.1:9840", "ftp://x", "http://", "http://x:y", "file:///etc/passwd"])
def test_url_that_is_none_is_wrong_usage(reconciler: CommandLine, url: str) -> None:
    assert reconciler("status", "--server", url).exit == 2


def test_url_with_a_password_is_refused_and_not_repeated(reconciler: CommandLine) -> None:
    answer = reconciler("status", "--server", "http://me:hunter2@127.0.0.1")
    assert answer.exit == 2
    assert "hunter2" not in answer.err


def test_newer_daemon_does_not_confuse_us(reconciler: CommandLine) -> None:
    strange = {
        "environments": [
            {"environment": "dev", "databases": [{"environment": "dev", "database": "x", "state": "new"}]}
        ]
    }
    with answering(json.dumps(strange).encode()) as url:
        assert reconciler("status", "--server", url).exit == 3
        assert reconciler("wait", "--server", url, "--version", "1", "--timeout", "100ms").exit == 3
