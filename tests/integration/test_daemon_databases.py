"""Databases that are down, shut, not ours, or not what they should be: said clearly, touched never, others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.applying import catalog_of, migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, attempts, exists, journal, rows
from tests.servers import TestServer

FILES = {"migrations/1_a.sql": table("a"), "migrations/2_b.sql": table("b")}


class Pair:
    """A repository with a healthy environment beside the one that a test is about."""

    def __init__(self, repository: Repository, healthy: str) -> None:
        self.repository = repository
        self._healthy = healthy
        self._target = 0

    def commit(self, files: dict[str, str | bytes | None]) -> str:
        """Commit `files` and move the healthy environment."""
        self._target = 1 if self._target != 1 else 2
        return self.repository.commit(
            files={"manifests/healthy.yaml": manifest(self._healthy, self._target), **files}
        )

    def others_go_on(self, daemon: Daemon) -> None:
        """The healthy environment follows the newest commit."""
        daemon.wait_ready("healthy", self._target)
        assert daemon.get("/healthz")[0] == 200


@pytest.fixture
def pair(git_repository: Repository, server: TestServer) -> Iterator[Pair]:
    name = server.create_database()
    git_repository.write(FILES)
    yield Pair(git_repository, server.dsn(name))
    server.drop_database(name)


def test_a_server_that_is_down_at_the_start_is_waited_for(pair: Pair, own_server: TestServer) -> None:
    name = own_server.create_database()
    dsn = own_server.dsn(name)
    own_server.stop()
    pair.commit({"manifests/dev.yaml": manifest(dsn, 1)})
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ConnectionFailed")
        assert problem["class"] == "temporary"
        assert problem["remedy"]
        status = daemon.status("dev", "dev")
        assert (status["state"], status["reachable"], status["current_version"]) == (
            "unreachable",
            False,
            None,
        )
        assert status["next_retry_at"] is not None
        pair.others_go_on(daemon)
        own_server.start()
        daemon.wait_ready("dev", 1, timeout=40)
        assert applied(dsn) == [1]


@pytest.mark.parametrize("end", [TestServer.stop, TestServer.kill], ids=["stop", "kill"])
def test_a_server_that_goes_away_in_the_middle_of_a_migration_is_settled_by_reading(
    pair: Pair, own_server: TestServer, end: Callable[[TestServer], None]
) -> None:
    name = own_server.create_database()
    dsn = own_server.dsn(name)
    slow = migration("CREATE TABLE c (id int); SELECT pg_sleep(2);", "DROP TABLE c;")
    pair.commit({"manifests/dev.yaml": manifest(dsn, 3), "migrations/3_c.sql": slow})
    with Daemon(pair.repository) as daemon:
        daemon.wait_for("dev", lambda status: status["running"] and status["running"]["version"] == 3)
        wait_until(
            lambda: rows(dsn, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), "the step runs"
        )
        end(own_server)
        status = daemon.wait_for("dev", lambda status: status["running"] is None and status["problem"])
        assert status["problem"]["class"] in ("temporary", "ambiguous")
        pair.others_go_on(daemon)
        own_server.start()
        daemon.wait_ready("dev", 3, timeout=40)
        assert rows(dsn, "SELECT version, status FROM schema_migrations ORDER BY 1") == [
            (1, "success"),
            (2, "success"),
            (3, "success"),
        ]
        assert attempts(dsn, 1) == 1


def test_a_wrong_password_is_told_and_never_shown(pair: Pair, server: TestServer) -> None:
    role = server.create_role(password="right-and-secret")
    name = server.create_database(owner=role.name)
    wrong = server.tcp_url(name, user=role.name, password="wrong-and-secret")
    pair.commit({"manifests/dev.yaml": manifest("{file: dsn}", 1)})
    (pair.repository.path / "dsn").write_text(wrong)
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ConnectionFailed")
        assert "password authentication failed" in problem["message"]
        assert "check the password" in problem["remedy"]
        pair.others_go_on(daemon)
        # the file is read again for every connection
        (pair.repository.path / "dsn").write_text(
            server.tcp_url(name, user=role.name, password=role.password)
        )
        daemon.wait_ready("dev", 1, timeout=40)
        everything = daemon.text + daemon.get("/api/v1/environments")[1] + daemon.get("/metrics")[1]
        assert "and-secret" not in everything
    server.drop_database(name)
    server.drop_role(role)


def test_a_secret_that_is_not_there_is_named_and_waited_for(pair: Pair, fresh_database: str) -> None:
    pair.commit({"manifests/dev.yaml": manifest("{env: NO_SUCH_VARIABLE_HERE}", 1)})
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "SecretUnavailable")
        assert "NO_SUCH_VARIABLE_HERE" in problem["message"]
        pair.others_go_on(daemon)
        pair.commit({"manifests/dev.yaml": manifest(fresh_database, 1)})
        daemon.wait_ready("dev", 1, timeout=3)


def test_a_role_that_may_not_create_is_told_so_until_it_may(pair: Pair, server: TestServer) -> None:
    role = server.create_role()
    name = server.create_database()
    pair.commit({"manifests/dev.yaml": manifest(server.dsn(name, user=role.name), 1)})
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "PermissionDenied")
        assert "permission denied" in problem["message"]
        assert problem["sqlstate"] == "42501"
        assert "GRANT" in problem["remedy"]
        pair.others_go_on(daemon)
        rows(server.dsn(name), f"GRANT CREATE ON SCHEMA public TO {role.name}")
        daemon.wait_ready("dev", 1, timeout=40)
    server.drop_database(name)
    server.drop_role(role)


def test_a_role_that_may_not_read_our_tables_is_told_so(pair: Pair, server: TestServer) -> None:
    role = server.create_role()
    name = server.create_database()
    dsn = server.dsn(name)
    pair.commit({"manifests/dev.yaml": manifest(dsn, 1)})
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 1)
        pair.commit({"manifests/dev.yaml": manifest(server.dsn(name, user=role.name), 1)})
        problem = daemon.wait_problem("dev", "PermissionDenied")
        assert "schema_migrations" in problem["message"]
        pair.others_go_on(daemon)
        assert attempts(dsn, 1) == 1
    server.drop_database(name)
    server.drop_role(role)


def test_a_standby_is_not_written_to(pair: Pair, own_server: TestServer) -> None:
    name = own_server.create_database()
    own_server.wait_for_standby()
    standby = own_server.standby()
    pair.commit({"manifests/dev.yaml": manifest(standby.dsn(name), 1)})
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ReadOnly")
        assert "primary" in problem["remedy"]
        assert problem["class"] == "temporary"
        pair.others_go_on(daemon)
        # after a failover
        standby.execute("SELECT pg_promote()")
        daemon.wait_ready("dev", 1, timeout=40)
        assert not exists(own_server.dsn(name), "a")


FOREIGN: dict[str, tuple[LiteralString, ...]] = {
    "golang-migrate": (
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
        "INSERT INTO schema_migrations VALUES (7, false)",
    ),
    "dbmate": (
        "CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)",
        "INSERT INTO schema_migrations VALUES ('20240101')",
    ),
    "view": ("CREATE VIEW schema_migrations AS SELECT 1::bigint AS version, 'x' AS name",),
    "elsewhere": (
        "CREATE SCHEMA other",
        "CREATE TABLE other.schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
        "INSERT INTO other.schema_migrations VALUES (7, false)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = other, public', current_database()); END $$",
    ),
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
def test_a_history_of_another_tool_is_left_untouched(
    pair: Pair, any_database: str, statements: tuple[LiteralString, ...]
) -> None:
    for statement in statements:
        rows(any_database, statement)
    before = _content(any_database)
    pair.commit({"manifests/dev.yaml": manifest(any_database, 1)})
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ForeignHistory")
        assert "schema_migrations" in problem["message"]
        assert ("search_path" if "also finds" in problem["message"] else "history_schema") in problem[
            "remedy"
        ]
        pair.others_go_on(daemon)
        assert _content(any_database) == before
        assert not exists(any_database, "a")
        # the remedy works
        if "other" not in problem["message"]:
            rows(any_database, "CREATE SCHEMA app")
            rows(
                any_database,
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = app', current_database()); END $$",
            )
            pair.commit({"manifests/dev.yaml": manifest(any_database, 1, "  history_schema: ours\n")})
            daemon.wait_ready("dev", 1)
            assert rows(any_database, "SELECT version FROM ours.schema_migrations") == [(1,)]
            assert _content(any_database) == before
            assert exists(any_database, "app.a")


def test_a_database_that_another_environment_claimed_is_not_touched(pair: Pair, any_database: str) -> None:
    pair.commit({"manifests/old.yaml": manifest(any_database, 1)})
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("old", 1)
        pair.commit({"manifests/old.yaml": None, "manifests/new.yaml": manifest(any_database, 2)})
        problem = daemon.wait_problem("new", "ClaimedByOther")
        assert "old/old" in problem["message"]
        pair.others_go_on(daemon)
        assert applied(any_database) == [1]
        assert rows(any_database, "SELECT environment FROM schema_migrations_lock") == [("old",)]
        # once the claim is given up, as the remedy says
        rows(
            any_database,
            "UPDATE schema_migrations_lock SET environment = NULL, database_name = NULL, repository = NULL",
        )
        daemon.wait_ready("new", 2, timeout=8)


def test_the_table_of_the_earlier_tool_is_adopted_in_place(pair: Pair, any_database: str) -> None:
    checksum = catalog_of({"1_a.sql": FILES["migrations/1_a.sql"]}).migrations[0].checksum
    rows(any_database, "CREATE TABLE a (id int)")
    rows(
        any_database,
        """CREATE TABLE schema_migrations (
            version BIGINT PRIMARY KEY, name VARCHAR(255) NOT NULL,
            applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp, checksum VARCHAR(64) NOT NULL,
            execution_time_ms INTEGER, status VARCHAR(20) DEFAULT 'success', error_message TEXT)""",
    )
    rows(
        any_database,
        "INSERT INTO schema_migrations VALUES (1, 'a', '2020-01-02 03:04:05', %s, 12, 'success', NULL)",
        checksum,
    )
    pair.commit({"manifests/dev.yaml": manifest(any_database, 2)})
    with Daemon(pair.repository) as daemon:
        daemon.wait_ready("dev", 2)
        adopted, new = rows(
            any_database,
            "SELECT version, applied_at::text, execution_time_ms, down_script, token_checksum IS NOT NULL FROM schema_migrations ORDER BY 1",
        )
        assert adopted == (1, "2020-01-02 03:04:05", 12, "DROP TABLE a;\n", True)
        assert new[0] == 2
        assert attempts(any_database, 1) == 0
        assert [event["outcome"] for event in journal(any_database, "repair")] == ["pinned"]
        # what was pinned serves to go down, without the file
        pair.commit({"manifests/dev.yaml": manifest(any_database, 0), "migrations/1_a.sql": None,
                     "migrations/2_b.sql": None, "manifests/healthy.yaml": None})  # fmt: skip
        daemon.wait_ready("dev", 0)
        assert not exists(any_database, "a")


def test_a_server_without_a_free_connection_is_waited_for(pair: Pair, server: TestServer) -> None:
    role = server.create_role(options="CONNECTION LIMIT 1")
    name = server.create_database(owner=role.name)
    dsn = server.dsn(name, user=role.name)
    with _connected(dsn) as other:
        pair.commit({"manifests/dev.yaml": manifest(dsn, 1)})
        with Daemon(pair.repository) as daemon:
            problem = daemon.wait_for("dev", lambda status: status["problem"])["problem"]
            assert "too many connections" in problem["message"]
            assert problem["class"] == "temporary"
            pair.others_go_on(daemon)
            other.close()
            daemon.wait_ready("dev", 1, timeout=40)
    server.drop_database(name)
    server.drop_role(role)


def test_what_a_server_runs_out_of_is_named_and_tried_again(pair: Pair, fresh_database: str) -> None:
    """A disk that is full has the same class of error, 53, and takes the same way."""
    rows(fresh_database, "CREATE TABLE full_disk (yes boolean)")
    rows(fresh_database, "INSERT INTO full_disk VALUES (true)")
    full = """DO $$ BEGIN
        IF (SELECT yes FROM full_disk) THEN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
        END IF;
    END $$;
    CREATE TABLE c (id int);"""
    pair.commit(
        {
            "manifests/dev.yaml": manifest(fresh_database, 3),
            "migrations/3_c.sql": migration(full, "DROP TABLE c;"),
        }
    )
    with Daemon(pair.repository) as daemon:
        problem = daemon.wait_problem("dev", "ResourceExhausted")
        assert (problem["sqlstate"], problem["class"]) == ("53100", "temporary")
        assert "No space left" in problem["message"]
        assert applied(fresh_database) == [1, 2]
        pair.others_go_on(daemon)
        rows(fresh_database, "UPDATE full_disk SET yes = false")
        daemon.wait_ready("dev", 3, timeout=40)


def _content(dsn: str) -> list[tuple[object, ...]]:
    """Every relation called schema_migrations outside our own schema, with its columns and rows."""
    found = rows(
        dsn,
        """SELECT n.nspname, c.oid, c.relkind, (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname LIKE 'schema\\_migrations%' AND c.relkind IN ('r', 'v') AND n.nspname <> 'ours' ORDER BY 1, 2""",
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [
            (*relation, *connection.execute(sql.SQL("TABLE {}").format(sql.Identifier(relation[0], "schema_migrations"))).fetchall())
            for relation in found
        ]  # fmt: skip


@contextmanager
def _connected(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection
