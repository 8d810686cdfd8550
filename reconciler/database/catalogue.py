"""Looking into CockroachDB's catalogue for what tells whether a change of the schema took effect.

What is looked at is written down as `kind name`, or as `kind name of "schema"."owner"` for what belongs to a table or type, and is
found by that whatever the search path is later.
"""

from __future__ import annotations

import re

from reconciler.database.session import Session
from reconciler.sqltext import Intent

_RELATIONS = frozenset({"table", "view", "sequence"})
_PLAIN = frozenset({"schema", "database", "role"})
_PART = re.compile(r'"(?:[^"]|"")*"|[^.]+')
_OWNED = re.compile(r'(?P<name>.*) of (?P<owner>"?[^ ].*)', re.DOTALL)


async def name_of_change(session: Session, intent: Intent) -> str:
    """What is to be looked at for `intent`, by a name that stays right.

    Raises:
        ProblemError: the connection broke.
    """
    noun = intent.kind.removeprefix("no-")
    if intent.table:
        owner = await _qualified(session, intent.table)
        return f"{intent.kind} {_plain(intent.name)} of {owner}"
    if noun in _PLAIN:
        return f"{intent.kind} {_plain(intent.name)}"
    return f"{intent.kind} {await _qualified(session, intent.name)}"


def query_of_state(session: Session, kind: str, name: str) -> str:
    """The statement that says whether something is there: `absent` or `valid`.

    Args:
        session: the connection.
        kind: without a `no-`.
        name: as `name_of_change` has written it behind the kind.
    """
    queries = session.queries
    if kind in _RELATIONS:
        return queries("state_of_relation", name=name)
    if kind in _PLAIN:
        return queries(f"state_of_{kind}", name=name)
    owned = _OWNED.fullmatch(name)
    if owned is not None and kind == "value":
        schema, of = _schema_and_name(owned["owner"])
        return queries("state_of_value", name=owned["name"], type=of, schema=schema)
    if owned is not None:
        block = "state_of_index_of" if kind == "index" else f"state_of_{kind}"
        return queries(block, name=owned["name"], of=owned["owner"])
    schema, plain = _schema_and_name(name)
    block = "state_of_index_anywhere" if kind == "index" else f"state_of_{kind}"
    return queries(block, name=plain, schema=schema)


async def _qualified(session: Session, name: str) -> str:
    """The name of a relation or type with its schema: where it is, or where it would be made."""
    query = session.queries("resolve_relation", name=name, qualified=len(_PART.findall(name)) > 1)
    (rows,) = await session.read(before=[query], doing=f"looking for {name}")
    return str(rows[0][0])


def _schema_and_name(qualified: str) -> tuple[str, str]:
    *before, name = _PART.findall(qualified)
    return _plain(before[-1]) if before else "public", _plain(name)


def _plain(name: str) -> str:
    """A name as the server stores it."""
    if name[:1] == "'":
        return name[1:-1].replace("''", "'")
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name.lower()
