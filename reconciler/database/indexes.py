"""Invalid indexes: what a concurrent build that failed leaves behind. They serve no query, and may enforce nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from reconciler.database.objects import read_states
from reconciler.database.session import Session
from reconciler.model import Problem, ProblemError, Reason, Step
from reconciler.sqltext import excerpt, locate

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock


async def drop_leftover(writer: HeldLock, step: Step) -> None:
    """Drop the invalid index that an earlier attempt at `step` left behind, and say so in the journal.

    Only if it is still invalid and nobody is building it: the plan saw that under the lock, but a person may be quicker.

    Raises:
        ProblemError: it could not be dropped; nothing has begun then.
    """
    session = writer.session
    what = f"index {step.leftover}"
    state = (await read_states(session, [what]))[what]
    if state == "building":
        raise ProblemError(
            Problem(
                reason=Reason.LOCK_HELD,
                message=f"the invalid index {step.leftover} is in the way, and somebody is at work on its table",
                remedy="it is tried again by itself",
                version=step.version,
                direction=step.direction.value,
            )
        )
    if state != "invalid":
        return
    try:
        # waits for every older transaction and blocks nobody, so no lock_timeout applies
        await session.command("SET lock_timeout = 0;SET statement_timeout = 0", doing="setting time limits")
        await session.command(
            f"DROP INDEX CONCURRENTLY IF EXISTS {step.leftover}",
            doing=f"dropping the invalid index {step.leftover}",
        )
        await session.command(session.reset_message, doing="resetting the session")
    except ProblemError:
        if session.interrupted:
            raise asyncio.CancelledError from None
        raise
    event = writer.records.empty_event(
        "statement",
        version=step.version,
        name=step.name,
        direction=step.direction.value,
        outcome="dropped",
        message=f"dropped the invalid index {step.leftover} that an earlier attempt had left behind",
    )
    await writer.write(session.queries("insert_event", **event), doing="recording a dropped index")


async def hidden_invalid_index(session: Session, step: Step, index: int, what: str) -> Problem | None:
    """Why a concurrent build that the server was content with is none: `IF NOT EXISTS` is also met by an invalid index.

    One that an earlier attempt of ours left behind was dropped before; this one is somebody else's.

    Args:
        session: that ran the statement.
        step: whose statement it is.
        index: of the statement, from 0.
        what: the object that was announced, `index "public".a_id` say.
    """
    kind, _, name = what.partition(" ")
    if kind != "index" or (await read_states(session, [what]))[what] not in ("invalid", "building"):
        return None
    statement = step.statements[index]
    return Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"migration {step.version} ({step.name}) {step.direction.value} stopped at statement {index + 1} of "
        f"{len(step.statements)}: the index {name} is there but invalid, left behind by a build that failed",
        remedy=f"run `DROP INDEX CONCURRENTLY {name}`, then `reconciler retry`",
        place=locate(step.script, statement.offset),
        excerpt=excerpt(step.script, statement.offset),
        version=step.version,
        direction=step.direction.value,
        statement_index=index + 1,
    )
