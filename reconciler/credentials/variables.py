"""The database of a one-off command without a manifest, as environment variables describe it."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.errors import UsageError
from reconciler.manifest import DatabaseTarget, Embedded, Engine, EnvironmentReference, Reference, Timeouts
from reconciler.manifest.connection import is_connection_string
from reconciler.model.duration import parse_duration
from reconciler.model.value import value

_ENGINES = {
    "auto": Engine.AUTO,
    "postgres": Engine.POSTGRESQL,
    "postgresql": Engine.POSTGRESQL,
    "cockroach": Engine.COCKROACHDB,
    "cockroachdb": Engine.COCKROACHDB,
}


@value(kw_only=True)
class EnvironmentTarget:
    """The database of a one-off command that has no manifest.

    Args:
        database: from `DSN`, `CA` and `DB_DRIVER`; its references point at these variables.
        timeouts: the defaults, with `DB_TIMEOUT` as the time to connect.
        max_connections: from `DB_MAX_CONNS`; None when it does not say.
    """

    database: DatabaseTarget
    timeouts: Timeouts
    max_connections: int | None


def dsn_from_environment(environ: Mapping[str, str], name: str = "default") -> EnvironmentTarget | None:
    """The database that `DSN`, `CA`, `DB_DRIVER`, `DB_MAX_CONNS` and `DB_TIMEOUT` describe; None without `DSN`.

    An empty variable counts as one that is not set.

    Args:
        environ: the environment variables.
        name: what to call the database.

    Raises:
        UsageError: a variable has a value that makes no sense.
    """
    dsn = environ.get("DSN", "").strip()
    if not dsn:
        return None
    reference: Reference = Embedded() if dsn == "embedded" else EnvironmentReference("DSN")
    if reference != Embedded() and not is_connection_string(dsn):
        # not shown: it may be a password in the wrong place
        raise UsageError(
            "DSN is no connection string", remedy="write postgresql://user@host/database or key=value pairs"
        )
    database = DatabaseTarget(
        name=name,
        dsn=reference,
        ca=EnvironmentReference("CA") if environ.get("CA", "").strip() else None,
        engine=_engine(environ.get("DB_DRIVER", "").strip()),
    )
    timeouts = _timeouts(environ.get("DB_TIMEOUT", "").strip())
    return EnvironmentTarget(database=database, timeouts=timeouts, max_connections=max_connections(environ))


def _engine(text: str) -> Engine:
    if text and text.casefold() not in _ENGINES:
        raise UsageError(f"DB_DRIVER is {text[:60]!r}; expected one of {', '.join(_ENGINES)}")
    return _ENGINES[text.casefold() or "auto"]


def _timeouts(text: str) -> Timeouts:
    try:
        return Timeouts(connect=parse_duration(text)) if text else Timeouts()
    except ValueError as error:
        clause, _, remedy = str(error).partition(": ")
        raise UsageError(f"DB_TIMEOUT is {text[:60]!r}, which {clause}", remedy=remedy) from None


def max_connections(environ: Mapping[str, str]) -> int | None:
    """How many connections each database may get at once: `DB_MAX_CONNS`; None when it does not say.

    Raises:
        UsageError: it is no number of at least 1.
    """
    text = environ.get("DB_MAX_CONNS", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise UsageError(f"DB_MAX_CONNS is {text[:60]!r}; expected a whole number of at least 1")
    return int(text)
