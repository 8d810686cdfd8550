"""Rules for CockroachDB: what its grammar refuses, and what goes slowly or cannot be taken back there.

What the server refuses differs from version to version, and none of them is at hand. So even an error of this module can be
silenced in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.lint.findings import Finding, Severity, finding_at
from reconciler.lint.keys import sequential_keys
from reconciler.lint.statements import Alteration, alteration, name_of, words
from reconciler.lint.unsupported import unsupported
from reconciler.model import Statement
from reconciler.sqltext import Analysis, StatementKind
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import Token, tokens

UNSUPPORTED = "cockroachdb-unsupported"
SEQUENTIAL_KEY = "cockroachdb-sequential-key"
MIXED = "cockroachdb-mixed"
SEPARATE_ALTERS = "cockroachdb-separate-alters"
ALTER_TYPE = "cockroachdb-alter-type"
IF_EXISTS = "cockroachdb-if-exists"
CONCURRENTLY = "cockroachdb-concurrently"

SILENCEABLE_ERRORS = frozenset({UNSUPPORTED})
"""Rules whose findings are errors that only the server can be sure of."""

_ONE_BY_ONE = "CockroachDB runs each statement of this script by itself"
_CREATED = frozenset({"DATABASE", "INDEX", "ROLE", "SCHEMA", "SEQUENCE", "TABLE", "TYPE", "USER", "VIEW"})
_CREATED_ON_BOTH = frozenset({"INDEX", "SCHEMA", "SEQUENCE", "TABLE"})
"""Where PostgreSQL, too, knows IF NOT EXISTS."""
_DROPPED = _CREATED | {"FUNCTION", "POLICY", "PROCEDURE", "TRIGGER"}
_WITHOUT_NAME = frozenset({"CHECK", "EXCLUDE", "FOREIGN", "PRIMARY", "UNIQUE"})
_BEFORE_KIND = frozenset({"INVERTED", "MATERIALIZED", "TEMP", "TEMPORARY", "UNIQUE", "UNLOGGED", "VECTOR"})


class _Looked(NamedTuple):
    """A statement and what it is made of."""

    statement: Statement
    part: Sequence[Token]
    kind: StatementKind
    alteration: Alteration | None


def cockroachdb_findings(analysis: Analysis, *, also_postgresql: bool) -> Iterator[Finding]:
    """Yield what these rules find in a script.

    Args:
        analysis: of the script, for CockroachDB.
        also_postgresql: PostgreSQL is to run it as well, so that nothing is asked for which only CockroachDB knows.
    """
    looked = []
    for statement, kind in zip(analysis.statements, analysis.kinds, strict=True):
        part = list(tokens(statement.text)) if kind is not StatementKind.DATA else []
        looked.append(_Looked(statement, part, kind, alteration(part)))
    yield from _mixed(analysis, looked)
    yield from _separate_alters(analysis, looked)
    yield from _without_condition(analysis, looked, also_postgresql=also_postgresql)
    for each in looked:
        if not each.part:
            continue
        for found in unsupported(each.part):
            yield finding_at(
                UNSUPPORTED,
                Severity.ERROR,
                f"CockroachDB's grammar refuses {found.what}",
                found.remedy,
                analysis.script,
                each.statement,
                found.offset,
            )
        for key in sequential_keys(each.part):
            yield finding_at(
                SEQUENTIAL_KEY,
                Severity.WARNING,
                f"{key.what}, so that all new rows go to the same range of the cluster",
                key.remedy,
                analysis.script,
                each.statement,
                key.offset,
            )
        yield from _alters_type(analysis, each)
        if not also_postgresql:
            yield from _concurrently(analysis, each)


def _mixed(analysis: Analysis, looked: Sequence[_Looked]) -> Iterator[Finding]:
    """One finding a script, where rows follow the schema or the schema rows."""
    first: StatementKind | None = None
    for each in looked:
        if each.kind not in (StatementKind.DATA, StatementKind.SCHEMA) or _only_shows(each.statement):
            continue
        first = first or each.kind
        if each.kind is not first:
            yield finding_at(
                MIXED,
                Severity.WARNING,
                f"{_ONE_BY_ONE}, since it changes rows as well as the schema: when one fails, those before it stay",
                "put what changes rows into a migration of its own, which then runs as one transaction",
                analysis.script,
                each.statement,
            )
            return


def _only_shows(statement: Statement) -> bool:
    return statement.text[:4].upper() == "SHOW"


def _separate_alters(analysis: Analysis, looked: Sequence[_Looked]) -> Iterator[Finding]:
    """ALTERs that follow each other, do the same kind of thing to the same table, and do not build upon one another."""
    before: dict[tuple[str, str], tuple[Statement, set[str]]] = {}
    """The last of its sort, and what was added since."""
    for each in looked:
        if each.alteration is None:
            before = {}
            continue
        groups = {_group(words(action)) for action in each.alteration.actions}
        sort = each.alteration.table.lower(), groups.pop() if len(groups) == 1 else ""
        earlier, added = before.get(sort, (None, set()))
        if earlier is not None and not added & {name_of(token) for token in each.part}:
            yield finding_at(
                SEPARATE_ALTERS,
                Severity.WARNING,
                f"{each.alteration.table} is altered in the same way in line {earlier.line}, and every ALTER TABLE is a job of "
                "its own that may pass over the whole table",
                "make them one: ALTER TABLE ... ACTION, ACTION",
                analysis.script,
                each.statement,
            )
        if sort[1]:
            before[sort] = each.statement, set()
        names = set(_made(each.alteration))
        for _, since in before.values():
            since |= names


def _group(action: Sequence[str]) -> str:
    """Actions of the same group can be one statement; an empty text for those that had better not."""
    first, second = action[0], action[1] if len(action) > 1 else ""
    if first in ("ADD", "DROP"):
        if second in ("CHECK", "CONSTRAINT", "FOREIGN", "UNIQUE"):
            return f"{first} CONSTRAINT"
        return "" if second in ("PRIMARY", "EXCLUDE") else f"{first} COLUMN"
    if first == "ALTER":
        for what in (
            ("SET", "DEFAULT"),
            ("DROP", "DEFAULT"),
            ("SET", "NOT", "NULL"),
            ("DROP", "NOT", "NULL"),
        ):
            if any(tuple(action[at : at + len(what)]) == what for at in (2, 3)):
                return f"ALTER {' '.join(what)}"
    return ""


def _made(altered: Alteration) -> Iterator[str]:
    """The names of the columns and constraints that are added."""
    for action in altered.actions:
        cursor = TokenCursor(action)
        if cursor.take("ADD") and cursor.word not in _WITHOUT_NAME:
            cursor.take_any(frozenset({"COLUMN", "CONSTRAINT"}))
            cursor.take("IF", "NOT", "EXISTS")
            if not cursor.at_end:
                yield name_of(action[cursor.position])


def _alters_type(analysis: Analysis, each: _Looked) -> Iterator[Finding]:
    altered = each.alteration
    if altered is None or not any(_changes_type(words(action)) for action in altered.actions):
        return
    if len(altered.actions) > 1:
        why = "stands in one statement with other changes"
    elif len(analysis.statements) > 1:
        why = "stands in one migration with other statements"
    else:
        return
    yield finding_at(
        ALTER_TYPE,
        Severity.WARNING,
        f"the change of a column's type {why}: it may write every row anew, and what goes with it cannot be undone with it",
        "put ALTER COLUMN ... TYPE into a migration of its own, alone",
        analysis.script,
        each.statement,
    )


def _changes_type(action: Sequence[str]) -> bool:
    if action[0] != "ALTER":
        return False
    return any(
        action[at] == "TYPE" or tuple(action[at : at + 3]) == ("SET", "DATA", "TYPE")
        for at in (2, 3)
        if at < len(action)
    )


def _without_condition(
    analysis: Analysis, looked: Sequence[_Looked], *, also_postgresql: bool
) -> Iterator[Finding]:
    """One finding a script, of what fails when it is run again after an end that nobody saw."""
    found = [(each, wanted) for each in looked if (wanted := _wanted(each, also_postgresql=also_postgresql))]
    if not found:
        return
    lines = list(dict.fromkeys(str(each.statement.line) for each, _ in found[1:]))
    others = (
        f"; the same goes for {'line' if len(lines) == 1 else 'lines'} {', '.join(lines)}" if lines else ""
    )
    yield finding_at(
        IF_EXISTS,
        Severity.WARNING,
        f"{_ONE_BY_ONE}, and this one fails when it is run again: it has no {found[0][1]}{others}",
        f"write {found[0][1]}, unless something else of that name must not be taken for what is meant",
        analysis.script,
        found[0][0].statement,
    )


def _wanted(each: _Looked, *, also_postgresql: bool) -> str:
    """The condition that `each` might have and has not, or an empty text."""
    if not each.part:
        return ""
    if each.alteration is not None:
        return next(
            filter(None, (_wanted_of_action(action, also_postgresql) for action in each.alteration.actions)),
            "",
        )
    cursor = TokenCursor(each.part)
    if cursor.take("ALTER", "TYPE"):
        cursor.name()
        return "IF NOT EXISTS" if cursor.take("ADD", "VALUE") and cursor.word != "IF" else ""
    verb = cursor.take_any(frozenset({"CREATE", "DROP"}))
    if not verb or cursor.take("OR", "REPLACE"):
        return ""
    materialised = cursor.word == "MATERIALIZED"
    while cursor.take_any(_BEFORE_KIND):
        pass
    kind = cursor.word
    cursor.position += 1
    cursor.take("CONCURRENTLY")
    if cursor.word == "IF":
        return ""
    if verb == "DROP":
        return "IF EXISTS" if kind in _DROPPED else ""
    if kind == "INDEX" and cursor.word == "ON":
        # an index without a name is another one each time, whatever is written
        return "name and IF NOT EXISTS"
    known = _CREATED if not also_postgresql or materialised else _CREATED_ON_BOTH
    return "IF NOT EXISTS" if kind in known else ""


def _wanted_of_action(action: Sequence[Token], also_postgresql: bool) -> str:
    cursor = TokenCursor(action)
    verb = cursor.take_any(frozenset({"ADD", "DROP"}))
    if not verb:
        return ""
    constraint = cursor.take("CONSTRAINT")
    if not constraint and cursor.word in _WITHOUT_NAME:
        return ""
    cursor.take("COLUMN")
    if cursor.word == "IF":
        return ""
    if verb == "DROP":
        return "IF EXISTS"
    return "" if constraint and also_postgresql else "IF NOT EXISTS"


def _concurrently(analysis: Analysis, each: _Looked) -> Iterator[Finding]:
    said = words(each.part)
    if said[0] not in ("CREATE", "DROP") or "INDEX" not in said[:3] or "CONCURRENTLY" not in said[:4]:
        return
    index = each.part[said.index("CONCURRENTLY")].start
    yield finding_at(
        CONCURRENTLY,
        Severity.WARNING,
        "CockroachDB reads over CONCURRENTLY: it builds and drops every index without keeping anybody waiting",
        "remove the word",
        analysis.script,
        each.statement,
        index,
    )
