"""Tables that stand where ours belong and belong to somebody whose code must not run with our rights.

Whoever may make tables in our schema can make ours before we do, grant everybody everything, and have a trigger run with the rights
of all who write to them. So nothing is written to tables of a role that we do not trust. They are read, as a role that only reads may
have no more than that privilege; but only while they are plain tables, since a view runs its owner's code for whoever reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from reconciler.database.session import Session
from reconciler.model import Problem, ProblemError, Reason


class Stranger(NamedTuple):
    """One of our tables, the role we do not trust that owns it, and the role that we are."""

    table: str
    owner: str
    we: str


def strangers_problem(schema: str, strangers: Sequence[Stranger]) -> Problem:
    """The refusal to write to tables of others.

    Args:
        schema: where our tables live.
        strangers: those of others; empty when somebody was faster than us just now.
    """
    if not strangers:
        found, whose, we = (
            f"a table of ours in {schema}, which somebody made a moment ago",
            "its owner",
            "this role",
        )
    else:
        (table, owner, we), *others = strangers
        found = f"{schema}.{table}, which belongs to {owner}"
        if others:
            found += " (" + ", ".join(f"{each.table}: {each.owner}" for each in others) + ")"
        whose = owner
    return Problem(
        reason=Reason.FOREIGN_HISTORY,
        message=f"another role owns {found}: its triggers would run with the rights of {we}",
        remedy=(
            f"if that role is to own our tables, connect as it, or set `role` to it; if it is not, see that all is well in them and "
            f"ALTER TABLE ... OWNER TO {we}; if {whose} was only to be faster than us, drop them and REVOKE CREATE ON SCHEMA "
            f"{schema} from it"
        ),
    )


async def read_table(session: Session, table: str, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
    """Read one of our tables, unless it is something else that runs code of a role that we do not trust.

    Args:
        session: the connection.
        table: `history`, `journal` or `lock`.
        blocks: SQL that reads it.
        doing: what this is about, for error messages.

    Raises:
        ProblemError: `ForeignHistory`, or the table cannot be read.
        psycopg.errors.UndefinedTable, UndefinedColumn: it is not there, or somebody else's.
    """
    queries = session.queries
    try:
        _, *answers = await session.read(
            queries(f"hold_{table}"), queries("read_strangers"), *blocks, doing=doing
        )
    except ProblemError as error:
        if error.problem.sqlstate != "22012":
            raise
        raise ProblemError(
            Problem(
                reason=Reason.FOREIGN_HISTORY,
                message=f"{doing} failed: what stands where our tables belong is no table, and belongs to a role that could run code "
                "of its own with our rights",
                remedy="drop it, and REVOKE CREATE ON that SCHEMA from its owner; or set history_schema to a schema of its own",
            )
        ) from None
    return answers


async def writing_harmlessly(session: Session, table: str) -> tuple[str, ...]:
    """The statements to send before one that writes into one of our tables, so that no code of a role that we do not trust runs.

    They divide by zero when that has changed, and see to it that it does not within the transaction.

    Args:
        session: the connection.
        table: `journal` or `lock`.

    Raises:
        ProblemError: `ForeignHistory`: such code would run; or the database cannot be read.
    """
    name = f"schema_migrations_{table}"
    stranger = next((each for each in await _strangers(session) if each.table == name), None)
    if stranger is None:
        return ()
    guard = (session.queries(f"hold_{table}_for_writing"), session.queries("refuse_active", name=name))
    try:
        await session.read(*guard, doing="looking what writing would run")
    except ProblemError as error:
        if error.problem.sqlstate != "22012" and error.problem.reason is not Reason.PERMISSION_DENIED:
            raise
        raise ProblemError(strangers_problem(session.history_schema, [stranger])) from None
    return guard


async def _strangers(session: Session) -> list[Stranger]:
    (found,) = await session.read(session.queries("read_strangers"), doing="looking who owns our tables")
    return [Stranger(*row[:3]) for row in found]
