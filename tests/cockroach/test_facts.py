"""What the adapter takes for granted about CockroachDB: seen in the simulator, and on a real server where there is one.

The real server is the one at COCKROACH_URL; its tests are marked `cockroach` and skip, with a word, when there is none. A fact that
holds in the simulator and not there is a fault of the simulator.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.cockroach.execution import AUTOCOMMIT_NOTICE
from tests.cockroach.simulator import Simulator

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(params=["simulator", pytest.param("server", marks=pytest.mark.cockroach)])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection whose tables are made in a schema of its own."""
    if request.param == "simulator":
        simulator: Simulator = request.getfixturevalue("simulator")
        # here the advisory lock functions are looked at, which no adapter may
        simulator.tolerant = True
        dsn = simulator.dsn
    else:
        dsn = request.getfixturevalue("cockroach_url")
    schema = sql.Identifier(f"facts_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        connection.execute(sql.SQL("SET search_path = {}").format(schema))
        yield connection
        if connection.info.transaction_status:
            connection.execute("ROLLBACK")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schema))


def value(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def notices(connection: Connection) -> list[str]:
    """What it says from now on."""
    said: list[str] = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    return said


def test_it_can_be_told(connection: Connection) -> None:
    assert connection.info.parameter_status("crdb_version")
    assert "CockroachDB" in value(connection, "SELECT version()")


def test_it_commits_before_a_schema_change_and_says_so(connection: Connection) -> None:
    connection.execute("SET autocommit_before_ddl = on")
    connection.execute("CREATE TABLE t (id INT8 PRIMARY KEY)")
    said = notices(connection)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("CREATE TABLE u (id INT8 PRIMARY KEY)")
    assert any(AUTOCOMMIT_NOTICE in text for text in said)
    connection.execute("ROLLBACK")
    assert value(connection, "SELECT count(*) FROM t") == 1


def test_a_schema_change_is_a_job_that_is_shown(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INT8 PRIMARY KEY, word TEXT)")
    connection.execute("CREATE INDEX t_word ON t (word)")
    query = (
        "SELECT status FROM [SHOW JOBS] WHERE job_type IN ('SCHEMA CHANGE', 'NEW SCHEMA CHANGE') "
        "AND description LIKE '%t_word%' ORDER BY created DESC LIMIT 1"
    )
    assert value(connection, query) == "succeeded"


def test_a_lease_is_taken_by_one_conditional_statement(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE lease (id INT8 PRIMARY KEY, owner TEXT NOT NULL, fence INT8 NOT NULL, expires_at TIMESTAMPTZ NOT NULL)"
    )
    take = (
        "INSERT INTO lease AS held (id, owner, fence, expires_at) VALUES (1, '{}', 1, now() + interval '60 s') "
        "ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, fence = held.fence + 1, expires_at = excluded.expires_at "
        "WHERE held.expires_at < now() RETURNING fence"
    )
    assert value(connection, take.format("a")) == 1
    assert value(connection, take.format("b")) is None
    connection.execute("UPDATE lease SET expires_at = now() - interval '1 s'")
    assert value(connection, take.format("b")) == 2


def test_retry_errors_are_injected_on_demand(connection: Connection) -> None:
    connection.execute("SET inject_retry_errors_enabled = true")
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.SerializationFailure, match="restart transaction"):
        connection.execute("SELECT 1")
    connection.execute("ROLLBACK")
    connection.execute("SET inject_retry_errors_enabled = false")


def test_session_locks_are_not_there(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("SELECT pg_advisory_lock(1)")
    assert value(connection, "SELECT pg_try_advisory_lock(1)") is True


@pytest.mark.parametrize("statement", ["LOCK TABLE t", "LISTEN x", "VACUUM", "SET CONSTRAINTS ALL IMMEDIATE"])
def test_what_has_no_grammar(connection: Connection, statement: str) -> None:
    with pytest.raises((psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported)):
        connection.execute(statement.encode())
