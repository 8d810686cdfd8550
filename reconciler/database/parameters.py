"""What a DSN says, and what libpq itself adds to it from a service file and the environment."""

from __future__ import annotations

import os
import re

from reconciler.model import Problem, ProblemError, Reason
from reconciler.redaction import Secret, redact

Parameters = dict[str, str]
"""libpq's connection parameters by keyword."""

_AMBIGUOUS = re.compile(r"[a-z]+://(?:[^/?]*@[^/?]*@|[^/?@]*/[^?]*@|[^/?]*@[^/?]*/[^?]*@)", re.IGNORECASE)
"""A URI whose password holds an `@` or `/` that is not percent-encoded."""
_STOP = "channel_binding"
"""libpq gathers all parameters before it looks at this one's value, and goes no further when that makes no sense."""
_NO_SUCH_VALUE = "?"
_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def read_dsn(dsn: Secret) -> Parameters:
    """The parameters that stand in a DSN.

    Raises:
        ProblemError: `ConnectionFailed`: libpq cannot read it. No error quotes any of it: what cannot be read may be the
            password.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    text = dsn.reveal()
    try:
        parameters = conninfo_to_dict(text)
    except psycopg.Error:
        raise _unreadable("is not a connection string that libpq can read") from None
    if not re.fullmatch(r"[\d, ]*", str(parameters.get("port") or "")):
        raise _unreadable("names a port that is no number")
    if _AMBIGUOUS.match(text):
        # libpq would take a part of the password for the host, and say so in its messages
        raise _unreadable("has a second `@`, or one behind a `/`")
    found = {key: str(given) for key, given in parameters.items() if given is not None}
    for key in _SECRETS:
        if found.get(key):
            redact.add(found[key])
    return found


def complete(parameters: Parameters) -> Parameters:
    """`parameters`, and those that a service file or the environment (`PGHOST`, `PGSSLMODE`, ...) gives beside them.

    libpq is asked for them: nothing is opened, resolved or connected.

    Raises:
        ProblemError: `ConnectionFailed`: there is no such service, or its file cannot be read.
    """
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    probe = PGconn.connect_start(make_conninfo("", **{**parameters, _STOP: _NO_SUCH_VALUE}).encode())
    try:
        options = {option.keyword.decode(): option for option in probe.info}
        said = probe.error_message.decode("utf-8", "replace")
    finally:
        probe.finish()
    if options[_STOP].val != _NO_SUCH_VALUE.encode():
        raise ProblemError(
            Problem(
                reason=Reason.CONNECTION_FAILED,
                message=f"the DSN cannot be used: {redact(' '.join(said.split()))}",
                remedy="correct the service that the DSN or PGSERVICE names, or the file where libpq looks for it",
            )
        )
    found = dict(parameters)
    for key, option in options.items():
        if key == _STOP or option.val is None:
            continue
        named = option.envvar is not None and option.envvar.decode() in os.environ
        if named or option.val != option.compiled:
            found.setdefault(key, option.val.decode())
    for key in _SECRETS:
        if found.get(key):
            redact.add(found[key])
    return found


def hosts(parameters: Parameters) -> list[tuple[str, str]]:
    """Each host of the connection in turn: its name, socket folder or address, and the address given for it, or empty."""
    names = parameters.get("host", "").split(",")
    addresses = parameters.get("hostaddr", "").split(",")
    most = max(len(names), len(addresses))
    return list(
        zip(names + [""] * (most - len(names)), addresses + [""] * (most - len(addresses)), strict=True)
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
