"""Statements on CockroachDB that failed, and may have taken effect all the same: looking settles it, once their jobs have ended."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.database.jobs import schema_changes, wait_for_schema_changes
from reconciler.database.objects import read_states
from reconciler.model import Direction, Problem, RowStatus, Step
from reconciler.sqltext import ABSENT, OPAQUE, REPEATABLE, state_word

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock

AMBIGUOUS = frozenset({"40003", "XXA00", "57014", "55P03", "58C00", "58C01"})
"""SQLSTATEs of a change of the schema that may go on, or be done: a result that nobody knows, a commit whose change failed, a
statement that was cancelled or waited for too long, ranges and nodes that could not be reached."""


async def settled(
    writer: HeldLock, step: Step, index: int, problem: Problem, what: str, before: str
) -> Problem | None:
    """Find out whether a statement that failed took effect.

    Args:
        writer: holds the lock.
        step: whose statement it is.
        index: of the statement, from 0.
        problem: why it failed.
        what: the object that was announced.
        before: the word for its state then.

    Returns:
        None when it took effect, which the journal is told; otherwise `problem`, with what became of its job.

    Raises:
        ProblemError: the connection broke, or a job is paused.
    """
    session = writer.session
    if problem.sqlstate not in AMBIGUOUS or not session.alive or session.interrupted:
        return problem
    await wait_for_schema_changes(session, timeout=None)
    kind = state_word(what)
    if kind in (OPAQUE, REPEATABLE):
        return problem
    now = state_word((await read_states(session, [what]))[what])
    if now == before or (now == ABSENT) != kind.startswith("no-"):
        return await _with_job(writer, step, index, problem)
    event = writer.records.empty_event(
        "statement",
        version=step.version,
        name=step.name,
        direction=step.direction.value,
        outcome="settled",
        message=f"statement {index + 1} was told to have failed ({problem.message}), and took effect: {what}",
        sqlstate=problem.sqlstate,
        statement_index=index + 1,
    )
    await writer.write(session.queries("insert_event", **event), doing="recording what became of a statement")
    return None


async def committed(writer: HeldLock, step: Step, done: int | None) -> bool:
    """Whether a transaction whose COMMIT was told to have failed, or to be unknown, is in force: its record tells.

    Args:
        writer: holds the lock.
        step: which the transaction was of.
        done: how many statements are done if it is, for one of several transactions; None for a step that is a single one.

    Raises:
        ProblemError: the connection broke.
    """
    session = writer.session
    (rows,) = await session.read(
        session.queries("reached", version=step.version), doing="looking whether it was committed"
    )
    if done is not None:
        return bool(rows) and int(rows[0][1]) >= done
    if step.direction is Direction.DOWN:
        return not rows
    return bool(rows) and rows[0][0] == RowStatus.SUCCESS.value


async def _with_job(writer: HeldLock, step: Step, index: int, problem: Problem) -> Problem:
    """`problem`, with the word of the newest job that was made of the statement."""
    text = " ".join(step.statements[index].text.split()).casefold()
    jobs = [
        job
        for job in await schema_changes(writer.session)
        if job.error and job.description and text.startswith(job.description[:60].casefold().rstrip(" ."))
    ]
    if not jobs:
        return problem
    newest = max(jobs, key=lambda job: job.created)
    told = f"{problem.message}; its job {newest.number} ended as {newest.status}: {newest.error}"
    return replace(problem, message=told)
