"""Looking at the objects that tell whether a statement outside a transaction took effect."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.database.catalogue import name_of_change, query_of_state
from reconciler.database.session import Session
from reconciler.sqltext import ABSENT, OPAQUE, REINDEX, REPEATABLE, UNNAMED, Intent, state_word

_RELATIONS = ("index", "partition")


async def sighting(session: Session, intent: Intent) -> tuple[str, str]:
    """What to look at after `intent` was carried out, and what is to be seen of it now.

    Returns:
        kind and name, by the same name whatever the search path is then; and its state in a word, empty when there is
        nothing to see. Of an index without a name: its table, and which indexes that has already.
    """
    if intent.kind in (REPEATABLE, REINDEX, OPAQUE):
        return intent.kind, ""
    if intent.kind == UNNAMED:
        query = session.queries("indexes_of", table=intent.table)
        (rows,) = await session.read(before=[query], doing=f"looking at the indexes of {intent.table}")
        # a table that is not there: the statement will say so
        table, known = rows[0] if rows else (intent.table, "{}")
        return f"{UNNAMED} {table} {known}", ABSENT
    if not session.dialect.transactional_ddl:
        what = await name_of_change(session, intent)
        return what, (await read_states(session, [what]))[what]
    noun = intent.kind.removeprefix("no-")
    name = await _resolved(session, intent, noun) if noun in _RELATIONS else _plain(intent.name)
    what = f"{intent.kind} {name}"
    return what, state_word((await read_states(session, [what]))[what])


async def read_states(session: Session, objects: Sequence[str]) -> dict[str, str]:
    """The state of each of `objects`: `absent`, `valid`, and for an index also `invalid` and `building`.

    Behind the word for indexes stands, as JSON, a list of pairs of an index and its table.

    Raises:
        ProblemError: the connection broke.
    """
    if not objects:
        return {}
    blocks = []
    for what in objects:
        kind, _, name = what.partition(" ")
        if kind == UNNAMED:
            table, _, known = name.rpartition(" ")
            blocks.append(session.queries("state_of_unnamed", table=table, known=known))
        elif not session.dialect.transactional_ddl:
            blocks.append(query_of_state(session, kind.removeprefix("no-"), name))
        else:
            blocks.append(session.queries(f"state_of_{kind.removeprefix('no-')}", name=name))
    answers = await session.read(*blocks, doing="looking at what a cut off statement left behind")
    return {what: str(rows[0][0]) for what, rows in zip(objects, answers, strict=True)}


async def _resolved(session: Session, intent: Intent, noun: str) -> str:
    """The name of an index or partition with its schema, by the search path that the script's statement will see."""
    block = (
        session.queries("resolve_index", name=intent.name, table=intent.table)
        if intent.table
        else session.queries("resolve_relation", name=intent.name)
    )
    (rows,) = await session.read(before=[block], doing=f"looking for the {noun} {intent.name}")
    # a table or index that is not there: the statement will say so
    return str(rows[0][0]) if rows else intent.name


def _plain(name: str) -> str:
    """A name as the server stores it."""
    if name[:1] == "'":
        return name[1:-1].replace("''", "'")
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name.lower()
