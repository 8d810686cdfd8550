"""Changes of CockroachDB's schema: what tells, after an end that nobody saw, whether such a statement took effect.

Each is a job that goes on when its client is gone. Once no job is left, the catalogue has the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from reconciler.model import Statement
from reconciler.sqltext.cockroachdb import StatementKind, kind_of
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.intents import OPAQUE, REPEATABLE, UNNAMED, Intent
from reconciler.sqltext.lexer import STRING, Token, tokens

LOOKED_AT = frozenset(
    {
        "column",
        "constraint",
        "database",
        "function",
        "index",
        "policy",
        "role",
        "schema",
        "sequence",
        "table",
        "trigger",
        "type",
        "value",
        "view",
    }
)
"""What a kind, less its `no-`, may be, beside `unnamed`, `repeatable` and `opaque`. `view` is also a materialised one,
`function` also a procedure, `value` one of an enum."""

_OPAQUE = Intent(OPAQUE)
_REPEATABLE = Intent(REPEATABLE)
_NOUNS = {
    "DATABASE": "database",
    "FUNCTION": "function",
    "PROCEDURE": "function",
    "ROLE": "role",
    "SCHEMA": "schema",
    "SEQUENCE": "sequence",
    "TABLE": "table",
    "TYPE": "type",
    "USER": "role",
    "VIEW": "view",
}
_OF_A_TABLE = {"POLICY": "policy", "TRIGGER": "trigger"}
_SCOPES = frozenset({"GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED", "MATERIALIZED"})
_INDEX_KINDS = frozenset({"UNIQUE", "INVERTED", "VECTOR"})
_REPEATABLE_STARTS = frozenset(
    {"ANALYZE", "ANALYSE", "COMMENT", "DISCARD", "GRANT", "REASSIGN", "REFRESH", "RESET", "REVOKE", "SET"}
)
_REPEATABLE_CREATES = frozenset({"EXTENSION", "STATISTICS"})
_SETTLES = frozenset(
    {
        "CONFIGURE",
        "DISABLE",
        "ENABLE",
        "EXPERIMENTAL_AUDIT",
        "FORCE",
        "INJECT",
        "NO",
        "NOT",
        "OWNER",
        "PARTITION",
        "RESET",
        "SCATTER",
        "SET",
        "SPLIT",
        "UNSPLIT",
        "VALIDATE",
        "VISIBLE",
    }
)
"""What an ALTER begins with that says how something is to be, and may say so twice."""
_ALONE = frozenset({"CONFIGURE", "INJECT", "PARTITION", "SCATTER", "SPLIT", "UNSPLIT"})
"""Those of them that are never one of several, and may hold commas."""
_CONSTRAINTS = frozenset({"CHECK", "EXCLUDE", "FOREIGN", "PRIMARY", "UNIQUE"})


def cockroachdb_intent_of(statement: Statement, part: Sequence[Token] | None = None) -> Intent | None:
    """What to write down before `statement` is run by itself; None when a transaction can hold it and its record alike.

    Repeatable is what only says how something is to be (GRANT, COMMENT, SET DEFAULT, OR REPLACE). TRUNCATE is not: rows may
    have come since. What has IF [NOT] EXISTS is looked at all the same: when nothing is seen to have changed it runs once
    more, and does no harm. Of several objects or actions the first one tells that can. A renamed thing is looked at by its
    new name.

    Args:
        statement: what is to be run.
        part: its tokens, where they are known.
    """
    if part is None:
        part = list(tokens(statement.text))
    if not part or kind_of(part) is not StatementKind.SCHEMA:
        return None
    cursor = TokenCursor(part)
    if cursor.word in _REPEATABLE_STARTS:
        return _REPEATABLE
    if cursor.take("CREATE"):
        return _creates(cursor)
    if cursor.take("DROP"):
        return _drops(cursor)
    if cursor.take("ALTER"):
        return _alters(cursor)
    return _OPAQUE


def _creates(cursor: TokenCursor) -> Intent:
    replaces = cursor.take("OR", "REPLACE")
    while cursor.take_any(_SCOPES):
        pass
    word = cursor.word
    if word in _REPEATABLE_CREATES or replaces:
        return _REPEATABLE
    if word == "INDEX" or word in _INDEX_KINDS:
        return _creates_index(cursor)
    cursor.position += 1
    _given_unless(cursor)
    if kind := _OF_A_TABLE.get(word):
        return _on_table(cursor, kind)
    noun = _NOUNS.get(word)
    if noun is None:
        return _OPAQUE
    if noun == "schema":
        # without a name it is called like its owner
        cursor.take("AUTHORIZATION")
    return _named(noun, cursor)


def _creates_index(cursor: TokenCursor) -> Intent:
    while cursor.take_any(_INDEX_KINDS):
        pass
    cursor.take("INDEX")
    cursor.take("CONCURRENTLY")
    _given_unless(cursor)
    name = "" if cursor.word == "ON" else cursor.name()
    cursor.take("ON")
    table = cursor.name()
    if not table:
        return _OPAQUE
    return Intent("index", name, table) if name else Intent(UNNAMED, table=table)


def _drops(cursor: TokenCursor) -> Intent:
    if cursor.take("OWNED"):
        return _REPEATABLE
    cursor.take("MATERIALIZED")
    word = cursor.word
    cursor.position += 1
    if word == "INDEX":
        cursor.take("CONCURRENTLY")
        _given_unless(cursor)
        return _index("no-index", *_table_and_index(cursor))
    _given_unless(cursor)
    if kind := _OF_A_TABLE.get(word):
        return _on_table(cursor, f"no-{kind}")
    noun = _NOUNS.get(word)
    return _named(f"no-{noun}", cursor) if noun is not None else _OPAQUE


def _alters(cursor: TokenCursor) -> Intent:
    cursor.take("MATERIALIZED")
    word = cursor.word
    cursor.position += 1
    match word:
        case "TABLE":
            return _alters_table(cursor)
        case "INDEX":
            _given_unless(cursor)
            table, name = _table_and_index(cursor)
            if cursor.take("RENAME", "TO"):
                return _index("index", table, cursor.name())
            return _settled(cursor, name)
        case "TYPE":
            return _alters_type(cursor)
        case "FUNCTION" | "PROCEDURE":
            old = cursor.name()
            cursor.skip_parentheses()
            return _moved(cursor, "function", old) or _settled(cursor, old)
        case "POLICY" | "TRIGGER":
            _given_unless(cursor)
            old = cursor.name()
            cursor.take("ON")
            table = cursor.name()
            if cursor.take("RENAME", "TO"):
                return _named(_OF_A_TABLE[word], cursor, table)
            return _REPEATABLE if old and table and word == "POLICY" else _OPAQUE
        case "DEFAULT" | "RANGE" | "ROLE" | "USER":
            # what they say, they say of how it is to be; only databases, schemas and the like are renamed
            return _OPAQUE if cursor.seek("RENAME") else _REPEATABLE
        case "DATABASE" | "SCHEMA" | "SEQUENCE" | "VIEW":
            _given_unless(cursor)
            old = cursor.name()
            moved = _moved(cursor, _NOUNS[word], old)
            if moved is not None:
                return moved
            return _alters_database(cursor) if word == "DATABASE" else _alters_sequence(cursor, old)
        case _:
            return _OPAQUE


def _alters_database(cursor: TokenCursor) -> Intent:
    if cursor.take_any(frozenset({"ADD", "DROP"})):
        cursor.take("REGION")
        return _REPEATABLE if _given_unless(cursor) else _OPAQUE
    return (
        _REPEATABLE
        if cursor.word in _SETTLES or cursor.word in ("PRIMARY", "SURVIVE", "PLACEMENT")
        else _OPAQUE
    )


def _alters_sequence(cursor: TokenCursor, name: str) -> Intent:
    """Also of schemas and views, which have no such options."""
    words = {token.text.upper() for token in cursor.rest()}
    # started anew a second time, it would give numbers that are in use by then
    return _OPAQUE if not name or "RESTART" in words else _REPEATABLE


def _alters_type(cursor: TokenCursor) -> Intent:
    old = cursor.name()
    if cursor.take("ADD", "VALUE"):
        _given_unless(cursor)
        return _value("value", cursor, old)
    if cursor.take("DROP", "VALUE"):
        return _value("no-value", cursor, old)
    if cursor.take("RENAME", "VALUE"):
        cursor.position += 1
        return _value("value", cursor, old) if cursor.take("TO") else _OPAQUE
    return _moved(cursor, "type", old) or _settled(cursor, old)


def _alters_table(cursor: TokenCursor) -> Intent:
    _given_unless(cursor)
    cursor.take("ONLY")
    table = cursor.name()
    cursor.take("*")
    if not table:
        return _OPAQUE
    moved = _moved(cursor, "table", table)
    if moved is not None:
        return moved
    if cursor.word in _ALONE:
        return _REPEATABLE
    actions = []
    while not cursor.at_end:
        actions.append(_action(cursor, table))
        if not cursor.seek(","):
            break
    for action in actions:
        if action.intent.name and not action.may_be_void:
            return action.intent
    if not actions or any(action.intent.kind == OPAQUE for action in actions):
        return _OPAQUE
    # each may run once more, whatever is seen
    return next((action.intent for action in actions if action.intent.name), _REPEATABLE)


class _Action(NamedTuple):
    """One of the actions of an ALTER TABLE. What may be void, for its IF [NOT] EXISTS, tells nothing of the others."""

    intent: Intent
    may_be_void: bool = False


def _action(cursor: TokenCursor, table: str) -> _Action:
    """Read an action as far as it takes to know it."""
    action = _ACTIONS.get(cursor.word)
    if action is not None:
        cursor.position += 1
        return action(cursor, table)
    return _Action(_settled(cursor, table))


def _adds(cursor: TokenCursor, table: str) -> _Action:
    if cursor.take("CONSTRAINT"):
        kind = "constraint"
    elif cursor.word in _CONSTRAINTS:
        # the server makes up its name
        return _Action(_OPAQUE)
    else:
        kind = "column"
        cursor.take("COLUMN")
    may_be_void = _given_unless(cursor)
    return _Action(_named(kind, cursor, table), may_be_void)


def _drops_part(cursor: TokenCursor, table: str) -> _Action:
    kind = "no-constraint" if cursor.take("CONSTRAINT") else "no-column"
    cursor.take("COLUMN")
    may_be_void = _given_unless(cursor)
    return _Action(_named(kind, cursor, table), may_be_void)


def _renames_part(cursor: TokenCursor, table: str) -> _Action:
    kind = "constraint" if cursor.take("CONSTRAINT") else "column"
    cursor.take("COLUMN")
    cursor.name()
    return _Action(_named(kind, cursor, table) if cursor.take("TO") else _OPAQUE)


def _alters_column(cursor: TokenCursor, table: str) -> _Action:
    return _Action(_column_is_to_be(cursor))


def _column_is_to_be(cursor: TokenCursor) -> Intent:
    if cursor.take("PRIMARY"):
        return _OPAQUE
    cursor.take("COLUMN")
    if not cursor.name():
        return _OPAQUE
    if cursor.take("TYPE") or cursor.take("SET", "DATA", "TYPE"):
        # worked out from its old values a second time, a column need not be what it was after the first
        return _OPAQUE if _says(cursor, "USING") else _REPEATABLE
    if cursor.take("DROP"):
        return _REPEATABLE if cursor.word in ("DEFAULT", "NOT", "ON") else _OPAQUE
    return _REPEATABLE if cursor.word == "SET" else _OPAQUE


_ACTIONS: Mapping[str, Callable[[TokenCursor, str], _Action]] = {
    "ADD": _adds,
    "ALTER": _alters_column,
    "DROP": _drops_part,
    "RENAME": _renames_part,
}


def _moved(cursor: TokenCursor, noun: str, old: str) -> Intent | None:
    """What RENAME TO or SET SCHEMA makes of `old`, or None for anything else."""
    if cursor.take("RENAME", "TO"):
        qualifier, dot, _ = old.rpartition(".")
        new = cursor.name()
        # it stays in its schema
        return Intent(noun, new if "." in new else f"{qualifier}{dot}{new}") if new else _OPAQUE
    if cursor.take("SET", "SCHEMA"):
        schema = cursor.name()
        return Intent(noun, f"{schema}.{old.rpartition('.')[2]}") if schema else _OPAQUE
    return None


def _settled(cursor: TokenCursor, name: str) -> Intent:
    return _REPEATABLE if name and cursor.word in _SETTLES else _OPAQUE


def _named(kind: str, cursor: TokenCursor, table: str = "") -> Intent:
    name = cursor.name()
    return Intent(kind, name, table) if name else _OPAQUE


def _on_table(cursor: TokenCursor, kind: str) -> Intent:
    """Of a trigger or policy, whose table comes later."""
    name = cursor.name()
    table = cursor.name() if cursor.seek("ON") else ""
    return Intent(kind, name, table) if name and table else _OPAQUE


def _index(kind: str, table: str, name: str) -> Intent:
    return Intent(kind, name, table) if name else _OPAQUE


def _table_and_index(cursor: TokenCursor) -> tuple[str, str]:
    """`t@i`, or `i` alone, whose table is not told."""
    first = cursor.name()
    return (first, cursor.name()) if cursor.take("@") else ("", first)


def _value(kind: str, cursor: TokenCursor, of: str) -> Intent:
    rest = cursor.rest()
    return Intent(kind, rest[0].text, of) if of and rest and rest[0].kind == STRING else _OPAQUE


def _given_unless(cursor: TokenCursor) -> bool:
    """Move past IF NOT EXISTS or IF EXISTS, if that is what comes."""
    return cursor.take("IF", "NOT", "EXISTS") or cursor.take("IF", "EXISTS")


def _says(cursor: TokenCursor, word: str) -> bool:
    """Whether `word` comes before this action ends. Moves nothing."""
    start = cursor.position
    try:
        while not cursor.at_end and cursor.word != ",":
            if cursor.word == word:
                return True
            if not cursor.skip_parentheses():
                cursor.position += 1
        return False
    finally:
        cursor.position = start
