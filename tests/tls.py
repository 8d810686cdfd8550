"""A real PostgreSQL that speaks TLS, with certificates made for it."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.certificates import Authority, Certificate
from tests.servers import Role, TestServer

NAME = "db.test"
"""What the server's certificate is for; it resolves to nothing."""
ANYWHERE = "0.0.0.0"
"""Reaches this machine on Linux and is no loopback address: to us, a server somewhere else."""
CERTIFIED = "certified"
"""A role that logs in by a client certificate alone."""
_ACCESS = f"""
local all all trust
hostssl all {CERTIFIED} 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
"""


class TlsServer:
    """A server that takes connections by TLS only.

    Args:
        server: a running server of a build that knows TLS, to be had for ourselves.
        folder: takes certificates and keys.
    """

    def __init__(self, server: TestServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.authority = Authority("the right authority")
        self.stranger = Authority("another authority")
        self.role: Role = server.create_role(options="SUPERUSER")
        server.execute(f"CREATE ROLE {CERTIFIED} LOGIN SUPERUSER")
        clients = folder / "clients.pem"
        clients.write_text(self.authority.text)
        (server.cluster.data / "pg_hba.conf").write_text(_ACCESS)
        self.good = self.authority.issue(NAME, NAME, ANYWHERE, "127.0.0.1")
        self._install(self.good)
        self._configure(ssl="on", ssl_ca_file=str(clients))
        self.until(self.good)

    def dsn(self, **parameters: str) -> str:
        """A DSN to the server as if it were somewhere else, by its name."""
        known = {
            "host": NAME,
            "hostaddr": ANYWHERE,
            "port": str(self.server.port),
            "user": self.role.name,
            "password": self.role.password,
            "dbname": "postgres",
        }
        return make_conninfo(**{**known, **parameters})

    def certified_dsn(self, **parameters: str) -> str:
        """A DSN of the role that needs a client certificate."""
        return make_conninfo(self.dsn(**parameters), user=CERTIFIED, password=None)

    @contextmanager
    def showing(self, certificate: Certificate) -> Iterator[None]:
        """Inside, the server shows another certificate."""
        try:
            self._install(certificate)
            self.until(certificate)
            yield
        finally:
            self._install(self.good)
            self.until(self.good)

    @contextmanager
    def configured(self, **settings: str) -> Iterator[None]:
        """Inside, the server has these settings."""
        try:
            self._configure(**settings)
            yield
        finally:
            self._configure(**dict.fromkeys(settings, ""))

    def until(self, certificate: Certificate) -> None:
        """Have the server read its files again, and wait until it shows `certificate`."""
        self.server.execute("SELECT pg_reload_conf()")
        wanted = ssl.PEM_cert_to_DER_cert(certificate.text)
        deadline = time.monotonic() + 10
        while self._shown() != wanted:
            assert time.monotonic() < deadline, "the server does not show its new certificate"
            time.sleep(0.01)

    def _shown(self) -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as plain:
            plain.sendall(struct.pack("!ii", 8, 80877103))
            if plain.recv(1) != b"S":
                return None
            with context.wrap_socket(plain) as secure:
                return secure.getpeercert(binary_form=True)

    def _install(self, certificate: Certificate) -> None:
        for path, name in zip(
            certificate.write(self.folder, "server"), ("server.crt", "server.key"), strict=True
        ):
            target = self.server.cluster.data / name
            owner = self.server.cluster.data.stat()
            shutil.copy(path, target)
            shutil.chown(target, owner.st_uid, owner.st_gid)
            target.chmod(0o600)

    def _configure(self, **settings: str) -> None:
        with self.server.connect() as connection:
            for name, setting in settings.items():
                change = sql.SQL("ALTER SYSTEM SET {} = {}") if setting else sql.SQL("ALTER SYSTEM RESET {}")
                parts = [sql.Identifier(name), sql.Literal(setting)] if setting else [sql.Identifier(name)]
                connection.execute(change.format(*parts))
            connection.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 10
            # the postmaster tells its children in its own time
            while any(
                setting
                and connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
                != (setting,)
                for name, setting in settings.items()
            ):
                assert time.monotonic() < deadline
                time.sleep(0.01)
