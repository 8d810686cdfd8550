"""The databases themselves: the only package that speaks to the driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.database.certificates import PemFiles, PemUse
from reconciler.database.connecting import ConnectionSettings, complete_dsn
from reconciler.database.limiting import ConnectionLimit
from reconciler.model import Database

__all__ = [
    "ConnectionLimit",
    "ConnectionSettings",
    "PemFiles",
    "PemUse",
    "complete_dsn",
    "open_database",
]


def open_database(settings: Callable[[], Awaitable[ConnectionSettings]]) -> Database:
    """A database that connects at its first use.

    Args:
        settings: how to connect, called for each new connection, so that a rotated password is used at the next one.
    """
    from reconciler.database.postgresql import PostgresDatabase

    return PostgresDatabase(settings)
