"""Looking into a database from outside, past all code of ours."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg


def rows(dsn: str, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own and return its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def exists(dsn: str, relation: str) -> bool:
    """True when there is a table, view or index of this name."""
    return rows(dsn, "SELECT to_regclass(%s) IS NOT NULL", relation) == [(True,)]


def applied(dsn: str) -> list[int]:
    """The versions that count as applied."""
    if not exists(dsn, "public.schema_migrations"):
        return []
    found = rows(
        dsn, "SELECT version FROM public.schema_migrations WHERE status = 'success' ORDER BY version"
    )
    return [version for (version,) in found]


def attempts(dsn: str, version: int) -> int:
    """How many attempts at `version` the journal knows, without those that were announced and never made."""
    found = rows(
        dsn,
        "SELECT count(*) FILTER (WHERE event = 'started') - count(*) FILTER (WHERE outcome = 'not_run') "
        "FROM public.schema_migrations_journal WHERE version = %s",
        version,
    )
    return int(found[0][0])


def journal(dsn: str, event: str) -> list[dict[str, Any]]:
    """The events of one kind, oldest first."""
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(
            "SELECT * FROM public.schema_migrations_journal WHERE event = %s ORDER BY recorded_at, id",
            [event],
        ).fetchall()


def connections(dsn: str, application: str = "reconciler") -> int:
    """How many connections of `application` this database has."""
    found = rows(
        dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        application,
    )
    return int(found[0][0])
