"""The PostgreSQL that benchmarks run on: as the embedded one is started, with `fsync` on and default durability."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.embedded.account import choose_account
from reconciler.embedded.cluster import SUPERUSER, Cluster
from reconciler.embedded.installation import find_installation

_CONNECTIONS = 500
"""Enough for two connections to each of 200 databases. All other settings are PostgreSQL's defaults."""


class BenchmarkServer:
    """A throw-away server on a Unix socket. Use it as a context manager.

    Databases are not dropped one by one: to free the space of thousands of files keeps the file system busy long after,
    and slows down whatever is measured next.

    Args:
        folder: an existing folder for its data.
    """

    def __init__(self, folder: Path) -> None:
        self._installation = find_installation()
        self._cluster = Cluster(folder / "data", folder / "log", folder / "server.lock")
        # its path must be short
        self.socket_directory = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        self._numbers = itertools.count(1)

    def __enter__(self) -> BenchmarkServer:
        account = choose_account(self._cluster.data)
        self._cluster.initialise(self._installation, account)
        self._cluster.launch(
            self._installation,
            account,
            socket_directory=self.socket_directory,
            options={"max_connections": str(_CONNECTIONS)},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    @property
    def version(self) -> str:
        """The server's version."""
        with psycopg.connect(self.dsn("postgres")) as connection:
            return str(connection.execute("SHOW server_version").fetchall()[0][0])

    def program(self, name: str) -> str:
        """The path of a client program of the same version."""
        return str(self._installation.program(name))

    def dsn(self, database: str) -> str:
        """A DSN for the superuser."""
        return make_conninfo(host=str(self.socket_directory), user=SUPERUSER, dbname=database)

    def url(self, database: str, scheme: str = "postgresql", socket_parameter: str = "host") -> str:
        """The same as a URL, for tools that take no other form.

        Args:
            database: its name.
            scheme: of the URL.
            socket_parameter: what the tool calls the socket's folder.
        """
        return f"{scheme}://{SUPERUSER}@/{database}?{socket_parameter}={self.socket_directory}"

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"bench{next(self._numbers)}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def settle(self) -> None:
        """Write out what is still in memory, so that every measurement starts from the same state."""
        self._execute(sql.SQL("CHECKPOINT"))
        os.sync()

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement)
