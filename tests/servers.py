"""Throw-away PostgreSQL servers for tests: real ones, started and stopped within the test session.

They are run by the same code as the embedded server (`reconciler.embedded`), with `fsync` off and a TCP port that asks
for passwords beside the Unix socket that does not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.embedded.account import Account, choose_account
from reconciler.embedded.cluster import SUPERUSER, Cluster, PidFile
from reconciler.embedded.installation import Installation, find_installation
from tests.canaries import WATCH
from tests.canaries import password as canary_password

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "log_checkpoints": "off",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "password_encryption": "scram-sha-256",
}
_HOST_ACCESS = """
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
"""


def debian_installation(major: int) -> Installation | None:
    """The PostgreSQL of that version where Debian puts it, None when it is not installed."""
    programs = Path(f"/usr/lib/postgresql/{major}/bin")
    return Installation(programs, major) if (programs / "postgres").exists() else None


def installation(major: int) -> Installation | None:
    """The PostgreSQL of that version: the wheel's or Debian's, None when there is none."""
    found = debian_installation(major)
    if found is None and find_installation().major == major:
        found = find_installation(major)
    return found


@dataclass(frozen=True)
class Role:
    """A login role made for a test."""

    name: str
    password: str


class TestServer:
    """One server with a folder of its own. Use it as a context manager, or call `start` and `close`.

    Args:
        installation: the programs to run.
        folder: an empty or missing folder for data and log; removed by `close`.
        account: as whom to run it.
        settings: server settings instead of those for tests.
    """

    __test__ = False  # not a test class, whatever its name says

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        *,
        account: Account | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = {**_SETTINGS, **(settings or {})}
        self.installation = installation
        self.major = installation.major
        self.folder = folder
        self.cluster = Cluster(folder / "data", folder / "log", folder / "server.lock")
        # its path must be short, which pytest's folders are not
        self.socket_directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.port = free_port()
        self._account = account or choose_account(self.cluster.data)
        self._found: PidFile | None = None
        self._numbers = itertools.count(1)
        self._unique = f"{os.getpid()}_{self.port}"
        self._standby: TestServer | None = None
        self.pooler_port: int | None = None
        """Where a pooler stands before this server on 127.0.0.1, through which all that ask for `dsn` are sent."""

    def __enter__(self) -> TestServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # its life

    def start(self) -> None:
        """Start it, making the data folder first if need be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.cluster.exists:
            self.cluster.initialise(self.installation, self._account, sync=False)
            (self.cluster.data / "pg_hba.conf").write_text(_HOST_ACCESS)
        settings = {**self._settings, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        self._found = self.cluster.launch(
            self.installation, self._account, socket_directory=self.socket_directory, options=settings
        )

    def stop(self) -> None:
        """Shut it down in an orderly way; clients are disconnected. `start` brings it back, with its data."""
        self.cluster.stop()

    def kill(self) -> None:
        """End it by SIGKILL, as a power failure would. `start` brings it back through crash recovery."""
        self.cluster.kill()

    def restart(self) -> None:
        """Stop it and start it again on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its data."""
        if self._standby is not None:
            self._standby.close()
            self._standby = None
        self.cluster.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    def standby(self) -> TestServer:
        """A hot standby that follows this server, made when first asked for: it can be read and not written."""
        if self._standby is None:
            standby = TestServer(self.installation, self.folder / "standby", account=self._account)
            standby.folder.mkdir()
            standby.cluster.data.mkdir(mode=0o700)
            self._run(
                "pg_basebackup",
                f"--pgdata={standby.cluster.data}",
                "--write-recovery-conf",
                "--checkpoint=fast",
            )
            standby.start()
            self._standby = standby
        return self._standby

    def wait_for_standby(self, timeout: float = 30.0) -> None:
        """Wait until the standby has replayed everything committed so far."""
        # a commit of our own brings what is still in memory to the log that is sent
        self.execute("SELECT pg_logical_emit_message(true, 'test', '')")
        position = self.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        deadline = time.monotonic() + timeout
        with self.standby().connect() as connection:
            while connection.execute(
                "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]
            ).fetchone() != (True,):
                assert time.monotonic() < deadline, (
                    f"the standby did not reach {position} within {timeout:g} s"
                )
                time.sleep(0.01)

    def _run(self, program: str, *arguments: str) -> None:
        """Run a client program of this server's version against it."""
        command = [
            self.installation.program(program),
            f"--host={self.socket_directory}",
            f"--port={self.port}",
        ]
        log = self.folder / f"{program}.log"
        with log.open("wb") as output:
            process = self._account.start(
                [*command, f"--username={SUPERUSER}", *arguments], output=output.fileno(), folder=self.folder
            )
            assert process.wait() == 0, log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        found = self.cluster.pid_file()
        assert found is not None, "the server does not run"
        return found.pid

    # ways in

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, **parameters: str) -> str:
        """A DSN that trusts everybody, by default the superuser's: by Unix socket, or through the pooler where there is one."""
        if self.pooler_port is None:
            return self.direct_dsn(database, user=user, **parameters)
        return make_conninfo(
            host="127.0.0.1", port=str(self.pooler_port), user=user, dbname=database, **parameters
        )

    def direct_dsn(self, database: str = "postgres", *, user: str = SUPERUSER, **parameters: str) -> str:
        """A DSN by Unix socket, where everybody is trusted, whatever else stands before the server."""
        return make_conninfo(
            host=str(self.socket_directory), port=str(self.port), user=user, dbname=database, **parameters
        )

    def tcp_dsn(self, database: str, *, user: str, password: str, **parameters: str) -> str:
        """A DSN by TCP on 127.0.0.1, where the password counts."""
        return make_conninfo(
            host="127.0.0.1", port=str(self.port), user=user, password=password, dbname=database, **parameters
        )

    def tcp_url(self, database: str, *, user: str, password: str) -> str:
        """The same as a URL."""
        from urllib.parse import quote

        return (
            f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"
        )

    @property
    def superuser_dsn(self) -> str:
        """The superuser's DSN of the maintenance database."""
        return self.direct_dsn()

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection in autocommit mode."""
        return psycopg.connect(self.direct_dsn(database), autocommit=True)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as superuser on a connection of its own and return its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    # what tests need in it

    def create_database(
        self, name: str | None = None, *, owner: str | None = None, template: str = "template0"
    ) -> str:
        """Make a database, empty or a copy of `template`, and return its name."""
        name = name or f"test_{self._unique}_{next(self._numbers)}"
        # copying the template's files beats logging them when fsync is off
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        with self.connect() as connection:
            connection.execute(statement)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it. A server that is down keeps it."""
        if not self.cluster.alive:
            return
        with self.connect() as connection:
            if (
                connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s AND datallowconn", [name]
                ).fetchone()
                is None
            ):
                return
            with self.connect(name) as inside:
                WATCH.see_tables(inside)
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def create_role(self, *, password: str | None = None, options: LiteralString = "") -> Role:
        """Make a login role without any privilege and return its name and password.

        Args:
            password: what it logs in with by TCP; a canary when None.
            options: more of CREATE ROLE's options, such as `CREATEDB`.
        """
        role = Role(f"role_{self._unique}_{next(self._numbers)}", password or canary_password())
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                    sql.Identifier(role.name), sql.Literal(role.password), sql.SQL(options)
                )
            )
        return role

    def drop_role(self, role: Role) -> None:
        """Drop a role made by `create_role`; databases it owns must be gone."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role.name)))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
