"""Statements that no transaction can hold: what tells, after a crash, whether such a statement took effect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.model import Statement
from reconciler.sqltext.checksum import token_checksum
from reconciler.sqltext.classification import is_concurrent, needs_autocommit
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import Token, tokens

REPEATABLE = "repeatable"
"""Running it once more does no harm: VACUUM, REINDEX, CLUSTER, ALTER SYSTEM, ..."""
REINDEX = "reindex"
"""As `REPEATABLE`, but when it is cut off it leaves an invalid index behind: REINDEX CONCURRENTLY."""
UNNAMED = "unnamed"
"""An index is made whose name the server makes up."""
OPAQUE = "opaque"
"""Nothing to look at tells whether it ran."""

_ENDS_TRANSACTIONS = re.compile(r"\b(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
_REPEATABLE_STARTS = frozenset({"VACUUM", "REINDEX", "CLUSTER", "DISCARD"})
_GLOBAL_OBJECTS = frozenset({"DATABASE", "TABLESPACE", "SUBSCRIPTION"})


class Intent(NamedTuple):
    """What a statement that stands alone is about to do.

    Args:
        kind: `index`, `database`, `tablespace`, `subscription`: one is made; the same after `no-`: one is dropped;
            `partition`: one is detached; `prepared`: a prepared transaction is ended; `unnamed`; `repeatable`; `reindex`;
            `opaque`.
        name: of the object, as the statement writes it; empty for the last four kinds.
        table: of an index that is made, as the statement writes it.
    """

    kind: str
    name: str = ""
    table: str = ""

    @property
    def is_repeatable(self) -> bool:
        """Running it once more does no harm."""
        return self.kind in (REPEATABLE, REINDEX)


def intent_of(statement: Statement, part: Sequence[Token] | None = None) -> Intent | None:
    """What to write down before `statement` is run by itself; None when a transaction can hold it and its record alike.

    Args:
        statement: what is to be run.
        part: its tokens, where they are known.
    """
    if part is None:
        part = list(tokens(statement.text))
    cursor = TokenCursor(part)
    if cursor.word == "CALL" or (cursor.word == "DO" and _ENDS_TRANSACTIONS.search(statement.text)):
        return Intent(OPAQUE)
    return _intent(part) if needs_autocommit(part) else None


def _intent(part: Sequence[Token]) -> Intent:
    cursor = TokenCursor(part)
    if cursor.word in _REPEATABLE_STARTS:
        return Intent(REINDEX if cursor.word == "REINDEX" and is_concurrent(part) else REPEATABLE)
    if cursor.take("CREATE"):
        return _creates(cursor)
    if cursor.take("DROP"):
        return _drops(cursor)
    if cursor.take_any(frozenset({"COMMIT", "ROLLBACK"})):
        cursor.take("PREPARED")
        return Intent("prepared", _text(cursor))
    if cursor.take("ALTER", "TABLE"):
        cursor.seek("DETACH")
        cursor.take("PARTITION")
        return Intent("partition", cursor.name())
    if cursor.take("ALTER", "SUBSCRIPTION"):
        cursor.name()
        # the two that fail when they are done again
        return Intent(OPAQUE if cursor.word in ("ADD", "DROP") else REPEATABLE)
    return Intent(REPEATABLE)


def _creates(cursor: TokenCursor) -> Intent:
    kind = cursor.take_any(_GLOBAL_OBJECTS)
    if kind:
        return Intent(kind.lower(), cursor.name())
    cursor.take("UNIQUE")
    cursor.take("INDEX", "CONCURRENTLY")
    cursor.take("IF", "NOT", "EXISTS")
    name = "" if cursor.word == "ON" else cursor.name()
    cursor.take("ON")
    cursor.take("ONLY")
    table = cursor.name()
    if not table:
        return Intent(OPAQUE)
    return Intent("index", name, table) if name else Intent(UNNAMED, table=table)


def _drops(cursor: TokenCursor) -> Intent:
    kind = cursor.take_any(_GLOBAL_OBJECTS | {"INDEX"})
    cursor.take("CONCURRENTLY")
    cursor.take("IF", "EXISTS")
    return Intent(f"no-{kind.lower()}", cursor.name())


def _text(cursor: TokenCursor) -> str:
    rest = cursor.rest()
    return rest[0].text if rest else ""


def intent_digest(statement: Statement) -> str:
    """SHA-256 hex over the tokens of one statement: what its intent is filed under."""
    return token_checksum(statement.text)
