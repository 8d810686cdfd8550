"""Which data a statement throws away, told by its words and in words.

What only the server can know is not claimed: whether a new column type is narrower, whether a function deletes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import Token

_STARTS = frozenset({"ALTER", "DELETE", "DROP", "EXPLAIN", "TRUNCATE", "WITH"})
_DROPPED_WHOLE = frozenset({"TABLE", "SCHEMA", "DATABASE"})
_DROPPED_WITH_COLUMNS = frozenset({"TYPE", "DOMAIN", "EXTENSION"})
_NOT_A_COLUMN = frozenset({"CONSTRAINT"})


def data_loss(statement: Sequence[Token]) -> tuple[str, ...]:
    """Return what `statement` throws away, one phrase for each thing: `drops column users.email`."""
    cursor = TokenCursor(statement)
    match cursor.take_any(_STARTS):
        case "DROP":
            return tuple(_drops(cursor))
        case "TRUNCATE":
            cursor.take("TABLE")
            return tuple(f"truncates {name}" for name in _names(cursor))
        case "ALTER":
            return tuple(_alters(cursor))
        case "DELETE" | "WITH" | "EXPLAIN":
            return tuple(_deletes(statement))
        case _:
            return ()


def _drops(cursor: TokenCursor) -> Iterator[str]:
    if cursor.take("OWNED", "BY"):
        for name in _names(cursor):
            yield f"drops everything owned by {name}"
        return
    if cursor.take("MATERIALIZED", "VIEW"):
        kind = "MATERIALIZED VIEW"
    elif not (kind := cursor.take_any(_DROPPED_WHOLE | _DROPPED_WITH_COLUMNS)):
        return
    cursor.take("IF", "EXISTS")
    names = list(_names(cursor))
    if kind not in _DROPPED_WITH_COLUMNS:
        for name in names:
            yield f"drops {kind.lower()} {name}"
    elif cursor.take("CASCADE"):
        for name in names:
            yield f"drops {kind.lower()} {name} and every column that uses it"


def _alters(cursor: TokenCursor) -> Iterator[str]:
    if cursor.take("TABLE"):
        thing, optional = "column", "COLUMN"
    elif cursor.take("TYPE"):
        thing, optional = "attribute", "ATTRIBUTE"
    else:
        return
    cursor.take("IF", "EXISTS")
    cursor.take("ONLY")
    owner = cursor.name()
    cursor.take("*")
    while not cursor.at_end:
        if cursor.take("DROP") and cursor.word not in _NOT_A_COLUMN:
            named = cursor.take(optional)
            cursor.take("IF", "EXISTS")
            column = cursor.name()
            if column and (named or thing == "column"):
                yield f"drops {thing} {owner}.{column}"
        if not cursor.seek(","):
            return


def _deletes(statement: Sequence[Token]) -> Iterator[str]:
    """Every DELETE of the statement, in whatever WITH query it stands, that has no condition of its own."""
    cursor = TokenCursor(statement)
    while not cursor.at_end:
        if not cursor.take("DELETE", "FROM"):
            cursor.position += 1
            continue
        cursor.take("ONLY")
        name = cursor.name()
        if not _has_condition(cursor):
            yield f"deletes every row of {name}"


def _has_condition(cursor: TokenCursor) -> bool:
    """True when a WHERE that says something follows before the end of the query the cursor is in. Moves nothing."""
    start = cursor.position
    try:
        while not cursor.at_end and cursor.word != ")":
            if cursor.take("WHERE"):
                if cursor.take("TRUE"):
                    return cursor.word not in ("", ")", "RETURNING")
                return True
            if not cursor.skip_parentheses():
                cursor.position += 1
        return False
    finally:
        cursor.position = start


def _names(cursor: TokenCursor) -> Iterator[str]:
    """The names of a list: `ONLY a.b *, c`."""
    while True:
        cursor.take("ONLY")
        name = cursor.name()
        if not name:
            return
        yield name
        cursor.take("*")
        if not cursor.take(","):
            return
