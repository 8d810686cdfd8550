"""A real PgBouncer in transaction mode before one of the tests' servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.embedded.account import choose_account
from reconciler.embedded.cluster import SUPERUSER
from tests.servers import TestServer, free_port

PROGRAM = Path("/usr/sbin/pgbouncer")


class Pooler:
    """PgBouncer, on a port of 127.0.0.1. Whoever connects is whom they say they are.

    Args:
        server: what it stands before.
        pool_size: connections to the server, for each user and database: few, so that clients share them.
    """

    def __init__(self, server: TestServer, *, pool_size: int = 2) -> None:
        self._server = server
        self._pool_size = pool_size
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="bouncer-", dir="/tmp"))
        self._account = choose_account(self._folder)

    def __enter__(self) -> Pooler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = self._folder / "pgbouncer.ini"
        users = self._folder / "users.txt"
        users.write_text(f'"{SUPERUSER}" ""\n')
        settings.write_text(
            f"[databases]\n* = host={self._server.socket_directory} port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            # roles that a test makes are found when they come
            f"auth_user = {SUPERUSER}\nauth_query = SELECT rolname::text, '' FROM pg_roles WHERE rolname = $1 AND rolcanlogin\n"
            f"default_pool_size = {self._pool_size}\nmax_client_conn = 1000\nserver_lifetime = 3600\n"
            f"admin_users = postgres\nlogfile = {self._folder}/log\npidfile = {self._folder}/pid\n"
        )
        if self._account.uid is not None and self._account.gid is not None:
            for path in (self._folder, settings, users):
                os.chown(path, self._account.uid, self._account.gid)
        with open(self._folder / "output", "ab") as output:
            self._process = self._account.start(
                [str(PROGRAM), str(settings)], output=output.fileno(), folder=self._folder
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.dsn(self._server.direct_dsn()), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder / "output").read_text(errors="replace")
                assert self._process.poll() is None, (self._folder / "output").read_text(errors="replace")
                time.sleep(0.05)

    def stop(self) -> None:
        """End it; its clients are cut off."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        """End it and start it again on the same port."""
        self.stop()
        self.start()

    def dsn(self, dsn: str) -> str:
        """`dsn`, a way to the server, through the pooler."""
        parameters = {key: value for key, value in conninfo_to_dict(dsn).items() if key != "password"}
        return make_conninfo("", **{**parameters, "host": "127.0.0.1", "port": str(self.port)})


def past_poolers(servers: Mapping[int, TestServer]) -> Callable[..., psycopg.Connection[Any]]:
    """What tests connect by, in place of `psycopg.connect`, when what they test goes through poolers: past them.

    They look into the databases and stand in the way there, with sessions of their own; what is tested connects asynchronously.

    Args:
        servers: by the port of the pooler before them, asked for with every connection.
    """
    connect = psycopg.connect

    def directly(conninfo: str = "", **parameters: Any) -> psycopg.Connection[Any]:
        found = conninfo_to_dict(conninfo)
        server = servers.get(int(str(found.get("port") or 0)))
        if server is not None:
            direct = {"host": str(server.socket_directory), "port": str(server.port)}
            conninfo = make_conninfo("", **{**found, **direct})
        return connect(conninfo, **parameters)

    return directly


def require_pgbouncer() -> None:
    """Skip the test where there is no PgBouncer; fail it in CI."""
    if not PROGRAM.exists():
        message = "PgBouncer is not installed (Debian: apt-get install pgbouncer): behind a pooler NOTHING is tested"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
