"""Opening a connection: what is added to a DSN, how long it may take, and how many there may be."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from reconciler.database.limiting import ConnectionLimit
from reconciler.database.parameters import Parameters, complete, hosts, read_dsn
from reconciler.database.tls import Certificates, refuse_encrypted_key, secured
from reconciler.model import Problem, Reason
from reconciler.model.value import value
from reconciler.redaction import Secret, redact

if TYPE_CHECKING:
    import psycopg

_CONNECTION_DEFAULTS = {
    "application_name": "reconciler",
    "client_encoding": "UTF8",
    "target_session_attrs": "read-write",
    # a migration may keep a connection silent for hours: notice within a minute or so when the other end is gone
    "tcp_user_timeout": "60000",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""A DSN, a service file or the environment may say otherwise for each but the encoding."""
_SHORTEST_ATTEMPT = 2
"""Seconds: libpq gives no host less."""


@value(kw_only=True)
class ConnectionSettings:
    """How to reach one database and who to be there.

    Args:
        dsn: a libpq URI or key=value string.
        connect_timeout: seconds for one connection, over all of its hosts; 0 for no limit of ours.
        role: `SET ROLE` to this, or None.
        history_schema: where our tables live.
        root_certificate: path of a PEM file to trust, `system` for whom the operating system trusts, or None for the
            DSN's own choice.
        client_certificate: path of a PEM file to show to the server, or None for the DSN's own choice.
        client_key: path of its private key, or None for the DSN's own choice.
        engine: what the server must be, `auto` for whatever it is.
        lock: `auto`, or `lease` also where the server has advisory locks.
        lease: seconds that a lease lasts unless it is renewed.
        limit: counts the database's connections; None when there may be any number.
        needs: this connection is for something that takes a `limit` of at least this: 1 for the work itself.
        show_queries: of whoever blocks a step, show the text of the query too: it may hold secrets and personal data.
    """

    dsn: Secret
    connect_timeout: float = 30.0
    role: str | None = None
    history_schema: str = "public"
    root_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    engine: str = "auto"
    lock: str = "auto"
    lease: float = 60.0
    limit: ConnectionLimit | None = None
    needs: int = 1
    show_queries: bool = False


async def connect(settings: ConnectionSettings) -> psycopg.AsyncConnection[Any]:
    """Open a connection.

    Raises:
        ProblemError: `ConnectionFailed`, `TlsFailed`, `PermissionDenied` or `ReadOnly`, naming host and user and never the DSN.
    """
    import psycopg

    said = complete(read_dsn(settings.dsn))
    parameters: dict[str, Any] = {
        **_CONNECTION_DEFAULTS,
        **said,
        **secured(said, _certificates(settings)),
        "client_encoding": "UTF8",
    }
    parameters.setdefault("connect_timeout", _for_each_host(settings.connect_timeout, said))
    refuse_encrypted_key(parameters)
    limit = settings.limit
    with limit.one_more(settings.needs) if limit is not None else nullcontext():
        try:
            async with asyncio.timeout(settings.connect_timeout or None):
                connection = await psycopg.AsyncConnection.connect(
                    autocommit=True,
                    prepare_threshold=None,
                    **parameters,
                )
        except (psycopg.Error, UnicodeError, TimeoutError) as error:
            from reconciler.database.unreachable import connection_problem

            raise await connection_problem(error, parameters, said, settings.connect_timeout) from None
        if limit is not None:
            limit.add(connection)
    return connection


def complete_dsn(settings: ConnectionSettings) -> Secret:
    """The DSN for programs of others, which must verify the server, and prove who they are, as we do.

    Raises:
        ProblemError: `ConnectionFailed`: libpq cannot read it.
    """
    from psycopg.conninfo import make_conninfo

    parameters = read_dsn(settings.dsn)
    added = secured(complete(parameters), _certificates(settings))
    if not added:
        return settings.dsn
    dsn = make_conninfo("", **{**parameters, **added})
    redact.add(dsn)
    return Secret(dsn)


def engine_mismatch(expected: str, found: str) -> Problem:
    """The problem of a server of another kind than was declared.

    Args:
        expected: what the manifest or `DB_DRIVER` says.
        found: what answered.
    """
    return Problem(
        reason=Reason.ENGINE_MISMATCH,
        message=f"the server is {found}, and engine says {expected}",
        remedy=f"correct the DSN, or set engine to {found} or auto",
    )


def _certificates(settings: ConnectionSettings) -> Certificates:
    return Certificates(
        authority=settings.root_certificate,
        client=settings.client_certificate,
        client_key=settings.client_key,
    )


def _for_each_host(timeout: float, said: Parameters) -> str:
    """libpq's `connect_timeout`, which is for each host: one that does not answer must leave time for the next."""
    if not timeout:
        return "0"
    return str(max(_SHORTEST_ATTEMPT, math.ceil(timeout / len(hosts(said)))))
