"""A real PgBouncer in transaction mode before one of the tests' servers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.embedded.account import choose_account
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
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = self._folder / "pgbouncer.ini"
        users = self._folder / "users.txt"
        names = [row[0] for row in self._server.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin")]
        users.write_text("".join(f'"{name}" ""\n' for name in names))
        settings.write_text(
            f"[databases]\n* = host={self._server.socket_directory} port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {self._pool_size}\nmax_client_conn = 500\nserver_lifetime = 3600\n"
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
                psycopg.connect(self.dsn(self._server.dsn()), connect_timeout=2).close()
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
        except TimeoutError:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """End it and start it again on the same port."""
        self.stop()
        self.start()

    def dsn(self, dsn: str) -> str:
        """`dsn`, a way to the server, through the pooler."""
        parameters = {key: value for key, value in conninfo_to_dict(dsn).items() if key != "password"}
        return make_conninfo("", **{**parameters, "host": "127.0.0.1", "port": str(self.port)})


def require_pgbouncer() -> None:
    """Skip the test where there is no PgBouncer; fail it in CI."""
    if not PROGRAM.exists():
        message = "PgBouncer is not installed (Debian: apt-get install pgbouncer): behind a pooler NOTHING is tested"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
