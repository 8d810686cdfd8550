"""The test servers themselves keep what they promise."""

from __future__ import annotations

import psycopg
import pytest

from tests.servers import TestServer


def test_each_database_is_new_and_empty(any_server: TestServer, any_database: str) -> None:
    with psycopg.connect(any_database) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert tables == (0,)
        assert connection.info.server_version // 10000 == any_server.major


def test_a_password_counts_by_tcp(server: TestServer) -> None:
    role = server.create_role(password="s3cret: &?")
    database = server.create_database(owner=role.name)
    with psycopg.connect(server.tcp_url(database, user=role.name, password=role.password)) as connection:
        connection.execute("CREATE TABLE t (i int)")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.tcp_dsn(database, user=role.name, password="wrong"))
    server.drop_database(database)
    server.drop_role(role)


def test_it_comes_back_after_a_stop_and_after_a_kill(own_server: TestServer) -> None:
    own_server.execute("CREATE TABLE t AS SELECT 7 AS i")
    for end in (own_server.stop, own_server.kill):
        end()
        with pytest.raises(psycopg.OperationalError):
            own_server.connect()
        own_server.start()
        assert own_server.execute("SELECT i FROM t") == [(7,)]


def test_a_standby_follows_and_takes_no_writes(any_server: TestServer) -> None:
    database = any_server.create_database()
    any_server.execute("CREATE TABLE t AS SELECT 7 AS i", database)
    standby = any_server.standby()
    any_server.wait_for_standby()
    assert standby.execute("SELECT i FROM t", database) == [(7,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        standby.execute("DELETE FROM t", database)
    any_server.drop_database(database)
