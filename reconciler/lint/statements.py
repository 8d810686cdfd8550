"""The parts of a statement that rules are about: the actions of an ALTER TABLE, what stands in the parentheses of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import QUOTED_NAME, Token

_NOT_A_COLUMN = frozenset(
    {
        "CHECK",
        "CONSTRAINT",
        "EXCLUDE",
        "FAMILY",
        "FOREIGN",
        "INDEX",
        "INVERTED",
        "LIKE",
        "PRIMARY",
        "UNIQUE",
        "VECTOR",
    }
)


class Alteration(NamedTuple):
    """An ALTER TABLE: the table as written, and the tokens of each action."""

    table: str
    actions: tuple[Sequence[Token], ...]


def words(part: Sequence[Token]) -> tuple[str, ...]:
    """The tokens' texts, keywords in upper case; an empty text for a name in quotes, which is no keyword."""
    return tuple("" if token.kind == QUOTED_NAME else token.text.upper() for token in part)


def alteration(part: Sequence[Token]) -> Alteration | None:
    """What `part` alters, None when it is no ALTER TABLE."""
    cursor = TokenCursor(part)
    if not cursor.take("ALTER", "TABLE"):
        return None
    cursor.take("IF", "EXISTS")
    cursor.take("ONLY")
    table = cursor.name()
    cursor.take("*")
    return Alteration(table, tuple(_separated(cursor.rest())))


def table_elements(part: Sequence[Token]) -> tuple[Sequence[Token], ...] | None:
    """What stands in the parentheses of a CREATE TABLE, None for all else and for a table made from a query."""
    cursor = TokenCursor(part)
    if not cursor.take("CREATE"):
        return None
    while cursor.take_any(frozenset({"GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED"})):
        pass
    if not cursor.take("TABLE"):
        return None
    cursor.take("IF", "NOT", "EXISTS")
    cursor.name()
    start = cursor.position
    if not cursor.skip_parentheses() or cursor.word == "AS":
        return None
    return tuple(_separated(part[start + 1 : cursor.position - 1]))


def is_column(element: Sequence[Token]) -> bool:
    """Whether an element of a table is a column."""
    return len(element) > 1 and words(element)[0] not in _NOT_A_COLUMN


def name_of(token: Token) -> str:
    """A name as the server stores it."""
    return token.text[1:-1].replace('""', '"') if token.kind == QUOTED_NAME else token.text.lower()


def _separated(part: Sequence[Token]) -> list[Sequence[Token]]:
    """The parts between commas that stand outside parentheses."""
    pieces = []
    start = depth = 0
    for index, token in enumerate(part):
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and not depth:
            pieces.append(part[start:index])
            start = index + 1
    pieces.append(part[start:])
    return [piece for piece in pieces if piece]
