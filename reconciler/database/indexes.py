"""Invalid indexes: what a concurrent build that failed leaves behind. They serve no query, and may enforce nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reconciler.database.objects import read_states
from reconciler.database.queries import quote_identifier
from reconciler.database.session import Session
from reconciler.model import Direction, Problem, Reason, Step
from reconciler.sqltext import excerpt, locate

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock

_BUILT_UNLESS_THERE = re.compile(
    r"\bINDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(?:\"(?P<quoted>(?:[^\"]|\"\")+)\"|(?P<plain>[^\s\"(]+))",
    re.IGNORECASE,
)


async def drop_leftover(writer: HeldLock, step: Step) -> None:
    """Drop the invalid index that an earlier attempt at `step` left behind, and say so in the journal.

    Only if it is still invalid and nobody is building it: the plan saw that under the lock, but a person may be quicker.

    Raises:
        ProblemError: it could not be dropped; nothing has begun then.
    """
    session = writer.session
    what = f"index {step.leftover}"
    if (await read_states(session, [what]))[what] != "invalid":
        return
    # waits for every older transaction and blocks nobody, so no lock_timeout applies
    await session.command("SET lock_timeout = 0;SET statement_timeout = 0", doing="setting time limits")
    await session.command(
        f"DROP INDEX CONCURRENTLY IF EXISTS {step.leftover}",
        doing=f"dropping the invalid index {step.leftover}",
    )
    await session.command(session.reset_message, doing="resetting the session")
    event = writer.empty_event(
        "statement",
        version=step.version,
        name=step.name,
        direction=step.direction.value,
        outcome="dropped",
        message=f"dropped the invalid index {step.leftover} that an earlier attempt had left behind",
    )
    await writer.write(session.queries("insert_event", **event), doing="recording a dropped index")


async def hidden_invalid_index(session: Session, step: Step, index: int) -> Problem | None:
    """Why a concurrent build that the server was content with is none: `IF NOT EXISTS` is also met by an invalid index.

    One that an earlier attempt of ours left behind was dropped before; this one is somebody else's.
    """
    statement = step.statements[index]
    built = _BUILT_UNLESS_THERE.search(statement.text) if step.direction is Direction.UP else None
    if built is None:
        return None
    name = built["plain"].lower() if built["plain"] else built["quoted"].replace('""', '"')
    (found,) = await session.read(
        session.queries("invalid_indexes", name=name), doing="looking for invalid indexes"
    )
    if not found:
        return None
    index_name = ".".join(quote_identifier(part) for part in found[0])
    return Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"migration {step.version} ({step.name}) up stopped at statement {index + 1} of {len(step.statements)}: the index {index_name} "
        "is there but invalid, left behind by a build that failed",
        remedy=f"run `DROP INDEX CONCURRENTLY {index_name}`, then `reconciler retry`",
        place=locate(step.script, statement.offset),
        excerpt=excerpt(step.script, statement.offset),
        version=step.version,
        direction=step.direction.value,
        statement_index=index + 1,
    )
