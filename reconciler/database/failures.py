"""Turning what the driver raises into problems: which reason, which message, which remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reconciler.model import Problem, ProblemError, Reason
from reconciler.redaction import redact

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

_BY_STATE = {
    "55P03": Reason.LOCK_TIMEOUT,
    "40001": Reason.SERIALIZATION_FAILURE,
    "40P01": Reason.DEADLOCK,
    "25006": Reason.READ_ONLY,
    "57P01": Reason.CONNECTION_FAILED,
    "57P02": Reason.CONNECTION_FAILED,
    "57P03": Reason.CONNECTION_FAILED,
    "57P05": Reason.CONNECTION_FAILED,
}
_BY_CLASS = {"08": Reason.CONNECTION_FAILED, "53": Reason.RESOURCE_EXHAUSTED, "58": Reason.RESOURCE_EXHAUSTED}

_REMEDIES = {
    Reason.LOCK_TIMEOUT: "end the transaction that holds the table, or raise `lock_timeout` for this migration",
    Reason.SERIALIZATION_FAILURE: "it is tried again by itself",
    Reason.DEADLOCK: "look for other work on the same tables when it happens often; it is tried again by itself",
    Reason.READ_ONLY: "point the DSN at the primary, or wait for the failover to end",
    Reason.CONNECTION_FAILED: "check that the server runs and can be reached; it is tried again by itself",
    Reason.RESOURCE_EXHAUSTED: "free what the message names (disk, memory, connections); it is tried again by itself",
    Reason.PERMISSION_DENIED: "grant the privilege that the message names, or connect as another role",
}

OUR_TABLES_LOCKED = "end the session that holds a lock on schema_migrations or the tables beside it; it is tried again by itself"
"""The remedy when somebody keeps schema_migrations or its companions locked."""

_KEY_VALUES = re.compile(r"(\)=\()(?:[^()]|\([^()]*\))*(\))")
_QUOTED_VALUE = re.compile(r': ".*"', re.DOTALL)
_COPY_LINE = re.compile(r"^COPY .*?, \D{1,20}?(\d+)", re.MULTILINE)
"""What a server says of a row that it could not take, in whatever language: `COPY orders, line 2, column id: "x"`."""
_QUOTED = re.compile(r"'(?:[^']|'')*'")


def mask_literals(text: str) -> str:
    """`text` with the content of quoted literals and of `(column)=(value)` replaced by stars, lengths kept where possible."""
    text = _KEY_VALUES.sub(r"\1***\2", text)
    return _QUOTED.sub(lambda match: "'" + "*" * (len(match[0]) - 2) + "'", text)


def reason_of(sqlstate: str, otherwise: Reason) -> Reason:
    """The reason for an error code; `otherwise` for errors that are about the SQL itself."""
    return _BY_STATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2]) or otherwise


def remedy_of(reason: Reason) -> str:
    """What a person should do about `reason`, or an empty string."""
    return _REMEDIES.get(reason, "")


def primary_message(result: PGresult) -> str:
    """The server's message, with row values masked."""
    return redact(
        _KEY_VALUES.sub(r"\1***\2", _field(result, "MESSAGE_PRIMARY")) or "the server gave no message"
    )


def detail_and_hint(result: PGresult) -> str:
    """The server's DETAIL and HINT, with row values masked."""
    detail = _KEY_VALUES.sub(r"\1***\2", _field(result, "MESSAGE_DETAIL"))
    hint = _field(result, "MESSAGE_HINT")
    context = _field(result, "CONTEXT")
    lines = [
        line
        for line in (detail, f"hint: {hint}" if hint else "", f"context: {context}" if context else "")
        if line
    ]
    return redact("\n".join(lines))


def sqlstate_of(result: PGresult) -> str:
    """The five characters of the error code."""
    return _field(result, "SQLSTATE")


def position_of(result: PGresult) -> int | None:
    """Where in the message the error was seen, in characters from 1, or None."""
    text = _field(result, "STATEMENT_POSITION")
    return int(text) if text else None


def copy_line_of(result: PGresult) -> int | None:
    """Which line of the rows of a COPY the error is about, from 1, or None."""
    found = _COPY_LINE.search(_field(result, "CONTEXT"))
    return int(found[1]) if found else None


def _field(result: PGresult, name: str) -> str:
    from psycopg.pq import DiagnosticField

    value = result.error_field(getattr(DiagnosticField, name))
    return value.decode("utf-8", "replace") if value else ""


def is_error(result: PGresult) -> bool:
    """True for the result of a statement that failed."""
    from psycopg.pq import ExecStatus

    return result.status in (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


def refused(result: PGresult, doing: str) -> ProblemError:
    """A `ProblemError` for an error result of one of our own statements; see `translate`."""
    return _own_failure(sqlstate_of(result), primary_message(result), doing)


def translate(error: psycopg.Error, doing: str) -> ProblemError:
    """A `ProblemError` for an error of one of our own statements or of the connection.

    Args:
        error: what the driver raised.
        doing: what we were about, for the message: `reading the history`.
    """
    message = redact(" ".join(str(error.diag.message_primary or error).split()))
    return _own_failure(error.sqlstate or "", message, doing)


def _own_failure(sqlstate: str, message: str, doing: str) -> ProblemError:
    remedy = ""
    if sqlstate == "42501":
        reason = Reason.PERMISSION_DENIED
        if "permission denied for schema" in message:
            remedy = "GRANT CREATE, USAGE ON that SCHEMA to this role, or set `history_schema` to one that it may write to"
    elif sqlstate in ("55P03", "57014"):
        # our own limits: somebody keeps our tables locked
        reason = Reason.LOCK_HELD
        remedy = OUR_TABLES_LOCKED
    elif sqlstate:
        reason = reason_of(sqlstate, Reason.INTERNAL_ERROR)
    else:
        reason = Reason.CONNECTION_FAILED
    return ProblemError(
        Problem(
            reason=reason,
            message=f"{doing} failed: {message}",
            remedy=remedy or remedy_of(reason),
            sqlstate=sqlstate,
        )
    )
