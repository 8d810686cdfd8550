"""What a statement is to CockroachDB: whether a transaction can hold it, and what no migration may hold there.

A change of the schema is a job of its own. Inside of `BEGIN ... COMMIT` it would commit what came before it, so it runs
by itself; and so does whatever this module does not know to be otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from reconciler.sqltext.classification import loses_track, sets_session
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import STRING, WORD, LexicalError, Token

_TRANSACTION_WORDS = frozenset(
    {"ABORT", "BEGIN", "COMMIT", "END", "RELEASE", "ROLLBACK", "SAVEPOINT", "START"}
)
_DATA_WORDS = frozenset(
    {
        "(",
        "CLOSE",
        "COPY",
        "DECLARE",
        "DELETE",
        "FETCH",
        "INSERT",
        "MERGE",
        "MOVE",
        "SELECT",
        "SHOW",
        "TABLE",
        "UPDATE",
        "UPSERT",
        "VALUES",
        "WITH",
    }
)
_EXPLAIN_WORDS = frozenset({"ANALYSE", "ANALYZE", "VERBOSE"})
_CHANGES_SCHEMA = re.compile(
    r"\b(?:ALTER|CALL|COMMENT|COMMIT|CREATE|DROP|EXECUTE|GRANT|REVOKE|ROLLBACK|TRUNCATE)\b", re.IGNORECASE
)
"""What a block of PL/pgSQL may hold that does not go with a transaction around it. EXECUTE: there is no telling."""


class StatementKind(StrEnum):
    """What a statement does to the transaction it stands in."""

    DATA = "data"
    """Reads or changes rows: a transaction can hold it."""
    SCHEMA = "schema"
    """Changes the schema, the cluster, or nobody knows what: runs by itself, in a transaction of its own."""
    SESSION = "session"
    """Sets something for the session, or for the rest of the transaction."""
    TRANSACTION = "transaction"
    """Begins, ends or divides a transaction."""


def kind_of(statement: Sequence[Token]) -> StatementKind:
    """Which kind `statement`, which is not empty, is of."""
    cursor = TokenCursor(statement)
    word = cursor.word
    if word in ("INSERT", "UPDATE", "DELETE", "UPSERT"):
        # nearly all of a long script
        return StatementKind.DATA
    if word in _TRANSACTION_WORDS or (word in ("PREPARE", "SET") and _following(statement) == "TRANSACTION"):
        return StatementKind.TRANSACTION
    if word == "EXPLAIN":
        return _explained(cursor)
    if word == "DO":
        return StatementKind.SCHEMA if _block_changes_schema(statement) else StatementKind.DATA
    if word in ("SET", "RESET") and _following(statement) == "CLUSTER":
        return StatementKind.SCHEMA
    if word in ("SET", "USE") or sets_session(statement):
        return StatementKind.SESSION
    return StatementKind.DATA if word in _DATA_WORDS else StatementKind.SCHEMA


def untracked(statement: Sequence[Token]) -> str:
    """What to write instead of a statement after which our own tables would not be found, or nobody could tell what is in
    force; empty for any other."""
    cursor = TokenCursor(statement)
    if cursor.take("SET"):
        cursor.take_any(frozenset({"SESSION", "LOCAL"}))
        other = cursor.word == "DATABASE"
    else:
        other = cursor.word == "USE"
    if other:
        return (
            "the name of the database before that of the table, as in other.public.t: in another database the history "
            "of this migration would not be found"
        )
    return loses_track(statement)


def refuse_byte_escapes(statement: Sequence[Token]) -> None:
    r"""Raise for a backslash in `b'...'`.

    There CockroachDB alone reads `\'` as a quote, so that others see the end of the literal elsewhere.

    Raises:
        LexicalError: there is one.
    """
    for token in statement:
        if token.kind == STRING and token.text[0] == "b" and "\\" in token.text:
            raise LexicalError(
                token.start,
                "the literal b'...' that opens here holds a backslash",
                r"write it in hexadecimal, as in x'636174', or as E'...'::BYTES",
            )


def _following(statement: Sequence[Token]) -> str:
    """The second word, in upper case."""
    return statement[1].text.upper() if len(statement) > 1 and statement[1].kind == WORD else ""


def _explained(cursor: TokenCursor) -> StatementKind:
    """The kind of what is explained, since ANALYZE also runs it."""
    cursor.take("EXPLAIN")
    while cursor.take_any(_EXPLAIN_WORDS):
        pass
    cursor.skip_parentheses()
    rest = cursor.rest()
    if not rest:
        return StatementKind.DATA
    return StatementKind.SCHEMA if kind_of(rest) is StatementKind.SCHEMA else StatementKind.DATA


def _block_changes_schema(statement: Sequence[Token]) -> bool:
    return any(token.kind == STRING and _CHANGES_SCHEMA.search(token.text) for token in statement)
