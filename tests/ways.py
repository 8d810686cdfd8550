"""The ways of working with a database: which server, what stands before it, and which lock. What holds for one holds for all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.database.dialect import COCKROACHDB_DIALECT, POSTGRESQL_DIALECT, Dialect
from reconciler.model import Database
from tests.applying import database_at
from tests.cockroach.simulator import Simulator
from tests.poolers import Pooler, require_pgbouncer

WAYS = (
    "postgresql15",
    "postgresql18",
    "lease",
    "pooler",
    "simulator",
    pytest.param("cockroachdb", marks=pytest.mark.cockroach),
)


@dataclass(frozen=True)
class Way:
    """One way of working with one new, empty database.

    Args:
        dsn: what we are given.
        direct: a way to the same database with nothing in between, to look into it from outside.
        dialect: what we are to find there.
        pooled: a pooler stands before it.
        settings: more of our connection's settings.
    """

    dsn: str
    direct: str
    dialect: Dialect
    pooled: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def leased(self) -> bool:
        """The lock is a lease here."""
        return self.pooled or not self.dialect.advisory_locks or self.settings.get("lock") == "lease"

    @property
    def lock_mode(self) -> str:
        """What a holder of the lock is said to have."""
        return "lease" if self.leased else "advisory"

    def database(self, **settings: Any) -> Database:
        """A database that is not connected yet."""
        return database_at(self.dsn, **{**self.settings, **settings})


@contextmanager
def way_of(name: str, request: pytest.FixtureRequest) -> Iterator[Way]:
    """The way of this name, to a new, empty database."""
    if name == "simulator":
        simulator: Simulator = request.getfixturevalue("simulator")
        yield Way(simulator.dsn, simulator.postgresql, COCKROACHDB_DIALECT)
    elif name == "cockroachdb":
        with _new_database(request.getfixturevalue("cockroach_url")) as dsn:
            yield Way(dsn, dsn, COCKROACHDB_DIALECT)
    elif name == "pooler":
        require_pgbouncer()
        pooler: Pooler = request.getfixturevalue("pooler")
        direct = request.getfixturevalue("fresh_database")
        yield Way(pooler.dsn(direct), direct, POSTGRESQL_DIALECT, pooled=True)
    elif name == "lease":
        direct = request.getfixturevalue("fresh_database")
        yield Way(direct, direct, POSTGRESQL_DIALECT, settings={"lock": "lease"})
    else:
        server = request.getfixturevalue("servers").get(int(name.removeprefix("postgresql")))
        database = server.create_database()
        yield Way(server.dsn(database), server.dsn(database), POSTGRESQL_DIALECT)
        server.drop_database(database)


@contextmanager
def _new_database(url: str) -> Iterator[str]:
    """A database on a server that is not ours alone."""
    name = f"reconciler_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield make_conninfo("", **{**conninfo_to_dict(url), "dbname": name})
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} CASCADE").format(sql.Identifier(name)))
