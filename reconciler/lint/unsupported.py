"""What CockroachDB's grammar has as a rule for nothing but saying that it is not there: read in its version 25.2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.lint.statements import Alteration, alteration, table_elements, words
from reconciler.sqltext.lexer import Token

_STARTS = {
    ("CREATE", "AGGREGATE"): "compute it in a query or a view",
    ("CREATE", "DOMAIN"): "write the type and a CHECK constraint at each column",
    ("CREATE", "RULE"): "use a trigger, or write it in the application",
    ("CREATE", "TABLESPACE"): "say where data lie by zone configurations or localities",
    ("DROP", "TABLESPACE"): "remove it: there are no tablespaces",
    ("ALTER", "TABLESPACE"): "remove it: there are no tablespaces",
    ("CREATE", "PUBLICATION"): "use CREATE CHANGEFEED",
    ("ALTER", "PUBLICATION"): "use CREATE CHANGEFEED",
    ("DROP", "PUBLICATION"): "remove it: there are no publications",
    ("LISTEN",): "remove it: ask for what is new instead",
    ("LOCK",): "remove it: transactions are serializable, and rows are locked by SELECT ... FOR UPDATE",
    ("NOTIFY",): "remove it: ask for what is new instead",
    ("REINDEX",): "remove it: an index here never needs it",
    ("SET", "CONSTRAINTS"): "remove it: every constraint is checked at once",
    ("UNLISTEN",): "remove it",
    ("VACUUM",): "remove it: old versions of rows are collected by themselves",
}


class Unsupported(NamedTuple):
    """What is refused, what to do instead, and the index of its first character in the statement."""

    what: str
    remedy: str
    offset: int = 0


def unsupported(part: Sequence[Token]) -> Iterator[Unsupported]:
    """Yield what the grammar refuses of the statement `part`."""
    said = words(part)
    start = said[:1] + said[3:4] if said[1:3] == ("OR", "REPLACE") else said[:2]
    for opening in (start, start[:1]):
        if remedy := _STARTS.get(opening):
            yield Unsupported(" ".join(opening), remedy)
            return
    if said[0] not in ("CREATE", "ALTER"):
        return
    altered = alteration(part)
    if table_elements(part) is not None or altered is not None:
        yield from _deferred(part, said)
        yield from _excluding(part, altered)
    yield from _at_the_end(part, said)


def _deferred(part: Sequence[Token], said: Sequence[str]) -> Iterator[Unsupported]:
    for index, word in enumerate(said):
        before = said[index - 1]
        if (word == "DEFERRABLE" and before != "NOT") or (word == "DEFERRED" and before == "INITIALLY"):
            yield Unsupported(
                f"{word}, a constraint that is checked later",
                "remove it, and write rows in an order that the constraint allows",
                part[index].start,
            )
            return


def _excluding(part: Sequence[Token], altered: Alteration | None) -> Iterator[Unsupported]:
    elements = altered.actions if altered is not None else table_elements(part) or ()
    for element in elements:
        said = words(element)
        at = 1 if said[0] == "ADD" else 0
        at += 2 if said[at : at + 1] == ("CONSTRAINT",) else 0
        if said[at : at + 1] == ("EXCLUDE",) and said[at + 1 : at + 2] in (("USING",), ("(",)):
            yield Unsupported("EXCLUDE", "use a UNIQUE or CHECK constraint, or a trigger", element[at].start)


def _at_the_end(part: Sequence[Token], said: Sequence[str]) -> Iterator[Unsupported]:
    """What follows the parentheses of a table or an index."""
    depth = 0
    for index, word in enumerate(said):
        depth += (word == "(") - (word == ")")
        if depth or not index:
            continue
        if word == "INHERITS" and said[index + 1 : index + 2] == ("(",):
            yield Unsupported("INHERITS", "write the columns out", part[index].start)
        elif word == "TABLESPACE" and said[index - 1] in (")", "SET", "INDEX"):
            yield Unsupported(
                "TABLESPACE", "say where data lie by zone configurations or localities", part[index].start
            )
