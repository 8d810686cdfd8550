"""Invalid indexes: what a concurrent build that failed leaves behind. They serve no query, and may enforce nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.database.lease import MARK
from reconciler.database.objects import read_states
from reconciler.database.session import Session
from reconciler.model import Problem, ProblemError, Reason, Step
from reconciler.sqltext import (
    BUILDING,
    INVALID,
    REINDEX,
    UNNAMED,
    IndexOn,
    excerpt,
    indexes_in,
    locate,
    state_word,
)

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
    state = state_word((await read_states(session, [what]))[what])
    if state == BUILDING:
        raise ProblemError(
            Problem(
                reason=Reason.LOCK_HELD,
                message=f"the invalid index {step.leftover} is in the way, and somebody is at work on its table",
                remedy="it is tried again by itself",
                version=step.version,
                direction=step.direction.value,
            )
        )
    if state != INVALID:
        return
    try:
        # waits for every older transaction and blocks nobody, so no lock_timeout applies
        if not session.pooled:
            limits = "SET lock_timeout = 0;SET statement_timeout = 0"
            await session.command(limits, doing="setting time limits")
        writer.confirm()
        await session.command(
            f"{MARK if writer.leased else ''}DROP INDEX CONCURRENTLY IF EXISTS {step.leftover}",
            doing=f"dropping the invalid index {step.leftover}",
        )
        await session.reset()
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
    if kind != "index" or state_word((await read_states(session, [what]))[what]) not in (INVALID, BUILDING):
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


async def with_leftovers(session: Session, problem: Problem, what: str, before: str) -> Problem:
    """`problem`, why a statement failed, with the invalid indexes that it has left behind.

    Args:
        session: that ran the statement.
        problem: why it failed.
        what: the object that was announced.
        before: the word for its state then.
    """
    kind = state_word(what)
    if kind not in ("index", UNNAMED, REINDEX) or before == INVALID:
        return problem
    left = await _invalid(session, what)
    if not left:
        return problem
    message = f"{problem.message}; {_are_left(left)}"
    if kind == "index":
        return replace(problem, message=f"{message}, and dropped before the migration is run again")
    drops = "; ".join(each.drop for each in left)
    return replace(problem, message=message, remedy=f"run `{drops}`; then {problem.remedy}")


async def tell_of_leftovers(writer: HeldLock, step: Step, what: str) -> Problem | None:
    """Say, in the journal too, which invalid indexes a REINDEX CONCURRENTLY that was cut off has left, though a later one went well.

    They are not dropped: nothing tells for certain whose they are.
    """
    left = await _invalid(writer.session, what) if state_word(what) == REINDEX else ()
    if not left:
        return None
    drops = "; ".join(each.drop for each in left)
    problem = Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"migration {step.version} ({step.name}) {step.direction.value} is done, but {_are_left(left)} by an attempt that "
        "was cut off: of no use, and kept up to date by every write",
        remedy=f"run `{drops}`",
        version=step.version,
        direction=step.direction.value,
    )
    event = writer.records.empty_event(
        "statement",
        version=step.version,
        name=step.name,
        direction=step.direction.value,
        outcome="left",
        message=problem.message,
        remedy=problem.remedy,
    )
    await writer.write(writer.session.queries("insert_event", **event), doing="recording an invalid index")
    return problem


async def _invalid(session: Session, what: str) -> Sequence[IndexOn]:
    state = (await read_states(session, [what]))[what]
    return indexes_in(state) if state_word(state) == INVALID else ()


def _are_left(left: Sequence[IndexOn]) -> str:
    names = ", ".join(map(str, left))
    return f"the invalid index {names} is left" if len(left) == 1 else f"the invalid indexes {names} are left"
