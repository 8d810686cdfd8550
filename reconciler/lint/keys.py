"""Keys that only grow. CockroachDB keeps rows in the order of their key, so new ones all go to the same range of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.lint.statements import alteration, is_column, name_of, table_elements, words
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import Token

_SERIAL = frozenset({"BIGSERIAL", "SERIAL", "SERIAL2", "SERIAL4", "SERIAL8", "SMALLSERIAL"})
_GROWS = frozenset(
    {"CLOCK_TIMESTAMP", "CURRENT_TIMESTAMP", "NEXTVAL", "NOW", "STATEMENT_TIMESTAMP", "UNIQUE_ROWID"}
)
_REMEDY = (
    "make it `UUID DEFAULT gen_random_uuid()`, or spread it over the cluster: `PRIMARY KEY (...) USING HASH`"
)


class SequentialKey(NamedTuple):
    """What is wrong, what to do about it, and the index of its first character in the statement."""

    what: str
    remedy: str
    offset: int


def sequential_keys(part: Sequence[Token]) -> Iterator[SequentialKey]:
    """Yield each column of the statement `part` that is SERIAL, or a key that otherwise only grows."""
    altered = alteration(part)
    if altered is not None:
        for action in altered.actions:
            cursor = TokenCursor(action)
            if cursor.take("ADD"):
                cursor.take("COLUMN")
                cursor.take("IF", "NOT", "EXISTS")
                yield from _of_columns([cursor.rest()])
        return
    elements = table_elements(part)
    if elements is None:
        return
    yield from _of_columns(elements)
    if not _has_key(elements) and any(is_column(element) for element in elements):
        yield SequentialKey(
            "the table has no primary key and gets a hidden one, rowid, that only grows",
            "give it one: `id UUID PRIMARY KEY DEFAULT gen_random_uuid()`",
            part[0].start,
        )


def _of_columns(elements: Sequence[Sequence[Token]]) -> Iterator[SequentialKey]:
    leading, hashed, others = _table_key(elements)
    for element in elements:
        if not is_column(element):
            continue
        column, said = name_of(element[0]), words(element)
        key = column == leading or _follow(said, "PRIMARY", "KEY")
        if (key and (hashed or _follow(said, "USING", "HASH"))) or column in others:
            continue
        serial = said[1] in _SERIAL
        if not serial and not (key and _grows(said)):
            continue
        grows = f"is {said[1]}, a number that only grows" if serial else "only grows"
        yield SequentialKey(
            f"the {'key' if key else 'column'} {element[0].text} {grows}", _REMEDY, element[0].start
        )


def _table_key(elements: Sequence[Sequence[Token]]) -> tuple[str, bool, frozenset[str]]:
    """Of a primary key that is written apart: its first column, whether it is sharded, and the columns after the first."""
    for element in elements:
        cursor = TokenCursor(element)
        if cursor.take("CONSTRAINT"):
            cursor.take("IF", "NOT", "EXISTS")
            cursor.name()
        if cursor.take("PRIMARY", "KEY") and cursor.take("("):
            columns = []
            while name := cursor.name():
                columns.append(name[1:-1] if name[0] == '"' else name.lower())
                while not cursor.at_end and cursor.word not in (",", ")"):
                    # ASC, DESC
                    cursor.position += 1
                if not cursor.take(","):
                    break
            return (
                columns[0] if columns else "",
                _follow(words(element), "USING", "HASH"),
                frozenset(columns[1:]),
            )
    return "", False, frozenset()


def _has_key(elements: Sequence[Sequence[Token]]) -> bool:
    """Also when it may have one: LIKE brings what the other table has."""
    return any(
        _follow(words(element), "PRIMARY", "KEY") or words(element)[0] == "LIKE" for element in elements
    )


def _grows(said: Sequence[str]) -> bool:
    if _follow(said, "AS", "IDENTITY"):
        return True
    return any(
        word == "DEFAULT" and said[at + 1 : at + 2] and said[at + 1] in _GROWS for at, word in enumerate(said)
    )


def _follow(said: Sequence[str], *wanted: str) -> bool:
    count = len(wanted)
    return any(tuple(said[at : at + count]) == wanted for at in range(len(said) - count + 1))
