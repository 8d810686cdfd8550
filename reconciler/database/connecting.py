"""Opening a connection: what a DSN may say, what is added to it, and what its failures mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reconciler.database.failures import remedy_of
from reconciler.model import Problem, ProblemError, Reason
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
"""A DSN may say otherwise for each but the encoding."""

_AMBIGUOUS = re.compile(r"[a-z]+://(?:[^/?]*@[^/?]*@|[^/?@]*/[^?]*@|[^/?]*@[^/?]*/[^?]*@)", re.IGNORECASE)
"""A URI whose password holds an `@` or `/` that is not percent-encoded."""
_READ_ONLY_SERVER = (
    "session is read-only",
    "server is in hot standby mode",
    "server is not in hot standby mode",
)


_SAID_TWICE = re.compile(
    r'^connection failed: |connection to server (?:at|on socket) "[^"]*"(?:, port \d+)? failed: |\(".*?"\)'
)
_ADVICE = re.compile(r"\s*Is the server running .*$", re.DOTALL)


@value(kw_only=True)
class ConnectionSettings:
    """How to reach one database and who to be there.

    Args:
        dsn: a libpq URI or key=value string.
        connect_timeout: seconds.
        role: `SET ROLE` to this, or None.
        history_schema: where our tables live.
        root_certificate: path of a PEM file to trust, or None for the DSN's own choice.
        show_queries: of whoever blocks a step, show the text of the query too: it may hold secrets and personal data.
        lock: `auto`, or `lease` also where the server has advisory locks.
        lease: seconds that a lease lasts unless it is renewed.
    """

    dsn: Secret
    connect_timeout: float = 30.0
    role: str | None = None
    history_schema: str = "public"
    root_certificate: str | None = None
    show_queries: bool = False
    lock: str = "auto"
    lease: float = 60.0


async def connect(settings: ConnectionSettings) -> psycopg.AsyncConnection[Any]:
    """Open a connection.

    Raises:
        ProblemError: `ConnectionFailed`, `PermissionDenied` or `ReadOnly`, naming host and user and never the DSN.
    """
    import psycopg

    parameters: dict[str, Any] = {
        **_CONNECTION_DEFAULTS,
        **{key: str(given) for key, given in _parse(settings.dsn).items() if given is not None},
        "client_encoding": "UTF8",
    }
    timeout = max(1, round(settings.connect_timeout)) if settings.connect_timeout else 0
    parameters.setdefault("connect_timeout", str(timeout))
    if settings.root_certificate:
        parameters.setdefault("sslrootcert", settings.root_certificate)
        parameters.setdefault("sslmode", "verify-full")
    password = parameters.get("password")
    if isinstance(password, str):
        redact.add(password)
    try:
        return await psycopg.AsyncConnection.connect(
            autocommit=True,
            prepare_threshold=None,
            **parameters,
        )
    except (psycopg.Error, UnicodeError) as error:
        raise _connection_problem(error, parameters) from None


def complete_dsn(settings: ConnectionSettings) -> Secret:
    """The DSN for programs of others, which must verify the server as we do: with the certificate authority in it.

    Raises:
        ProblemError: `ConnectionFailed`: libpq cannot read it.
    """
    from psycopg.conninfo import make_conninfo

    if not settings.root_certificate:
        return settings.dsn
    parameters = {"sslrootcert": settings.root_certificate, "sslmode": "verify-full", **_parse(settings.dsn)}
    dsn = make_conninfo("", **parameters)
    redact.add(dsn)
    return Secret(dsn)


def _parse(secret: Secret) -> dict[str, Any]:
    """The parameters of a DSN. No error quotes any of it: what cannot be read may be the password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    dsn = secret.reveal()
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise _unreadable("is not a connection string that libpq can read") from None
    if not re.fullmatch(r"[\d, ]*", str(parameters.get("port") or "")):
        raise _unreadable("names a port that is no number")
    if _AMBIGUOUS.match(dsn):
        # libpq would take a part of the password for the host, and say so in its messages
        raise _unreadable("has a second `@`, or one behind a `/`")
    return dict(parameters)


def engine_unsupported(what: str) -> Problem:
    """The problem of a database server that this version cannot work with."""
    return Problem(
        reason=Reason.ENGINE_UNSUPPORTED,
        message=f"{what}, which this version of reconciler does not work with yet",
        remedy="use a PostgreSQL database, 13 or newer, and connect to it directly",
    )


def _connection_problem(error: Exception, parameters: dict[str, Any]) -> ProblemError:
    text = redact(str(error).strip())
    where = f"{parameters.get('host') or parameters.get('hostaddr') or 'the local socket'}"
    who = parameters.get("user") or "the login name"
    reason = Reason.READ_ONLY if any(sign in text for sign in _READ_ONLY_SERVER) else Reason.CONNECTION_FAILED
    if "password authentication failed" in text or "no password supplied" in text:
        remedy = f"check the password of {who} in the DSN's source; it is tried again by itself"
    elif "permission denied for database" in text:
        reason, remedy = Reason.PERMISSION_DENIED, f"GRANT CONNECT ON the DATABASE to {who}"
    elif re.search(r'database ".*" does not exist', text):
        remedy = "create the database, or correct its name in the DSN; it is tried again by itself"
    elif "failed to resolve host" in text or "could not translate host name" in text:
        remedy = "correct the host name in the DSN, or mend the name service; it is tried again by itself"
    else:
        remedy = remedy_of(reason)
    said = _ADVICE.sub("", _SAID_TWICE.sub("", text))
    return ProblemError(
        Problem(
            reason=reason,
            message=f"cannot connect to {where} as {who}: {' '.join(said.split())}",
            remedy=remedy,
            sqlstate=getattr(error, "sqlstate", None) or "",
        )
    )


def _unreadable(why: str) -> ProblemError:
    return ProblemError(
        Problem(
            reason=Reason.CONNECTION_FAILED,
            message=f"the DSN {why}",
            remedy="percent-encode `@`, `:` and `/` in the password of a URI, or write key=value pairs, "
            "host=db.example.com dbname=orders say",
        )
    )
