"""Statements on CockroachDB that failed, and may have taken effect all the same: looking settles it, once their jobs have ended."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.database.jobs import SchemaChange, schema_changes, wait_for_schema_changes
from reconciler.database.objects import read_states
from reconciler.model import Direction, Problem, RowStatus, Step
from reconciler.redaction import redact
from reconciler.sqltext import ABSENT, OPAQUE, REPEATABLE, state_word

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock

AMBIGUOUS = frozenset({"40003", "XXA00", "57014", "55P03", "58C00", "58C01"})
"""SQLSTATEs of a change of the schema that may go on, or be done: a result that nobody knows, a commit whose change failed, a
statement that was cancelled or waited for too long, ranges and nodes that could not be reached."""
REVERT_FAILED = "revert-failed"
_MAY_GO_ON = AMBIGUOUS | {"", "XXUUU"}
"""Those after which the jobs are looked at though the server told of none: it may be one that says nothing of them. `XXUUU` is
what whoever waits is told when a job is paused."""
_REMEDIES = {
    REVERT_FAILED: "what it did could not be undone: look at SHOW JOB {number} and mend by hand what it left; then run `reconciler retry`",
    "canceled": "somebody ended it by CANCEL JOB {number}, and what it did is undone; `reconciler retry` runs it again",
}


async def settled(
    writer: HeldLock, step: Step, index: int, problem: Problem, what: str, before: str
) -> tuple[Problem | None, bool]:
    """Find out whether a statement that failed took effect.

    Args:
        writer: holds the lock.
        step: whose statement it is.
        index: of the statement, from 0.
        problem: why it failed.
        what: the object that was announced.
        before: the word for its state then.

    Returns:
        None when it took effect, which the journal is told; otherwise `problem`, with what became of its job. And whether it may
        be in force, or come into force, all the same: then what was announced stays on record.

    Raises:
        ProblemError: the connection broke, or a job is paused.
    """
    session = writer.session
    if not session.alive or session.interrupted:
        return problem, True
    jobs = session.notices.jobs
    if not jobs and problem.sqlstate not in _MAY_GO_ON:
        # it was refused before there was a job
        return problem, False
    await wait_for_schema_changes(session, timeout=None, on_waiting=lambda _: writer.confirm())
    ours = _job_of(await schema_changes(session), jobs, step.statements[index].text)
    if ours is not None and ours.status != "succeeded":
        problem = told_of_job(problem, ours)
    if ours is not None and ours.status == "succeeded":
        took_effect = True
    elif state_word(what) in (OPAQUE, REPEATABLE):
        return problem, ours is None or ours.status == REVERT_FAILED
    else:
        now = state_word((await read_states(session, [what]))[what])
        took_effect = now != before and (now == ABSENT) == state_word(what).startswith("no-")
    if not took_effect:
        return problem, problem.sqlstate in AMBIGUOUS or (ours is not None and ours.status == REVERT_FAILED)
    job = f", as job {ours.number}" if ours is not None else ""
    event = writer.records.empty_event(
        "statement",
        version=step.version,
        name=step.name,
        direction=step.direction.value,
        outcome="settled",
        message=f"statement {index + 1} was told to have failed ({problem.message}), and took effect{job}: {what}",
        sqlstate=problem.sqlstate,
        statement_index=index + 1,
    )
    await writer.write(session.queries("insert_event", **event), doing="recording what became of a statement")
    return None, False


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


def told_of_job(problem: Problem, job: SchemaChange) -> Problem:
    """`problem`, with what became of the job and what to do about that."""
    told = f"its job {job.number} ended as {job.status}"
    # the server's answer often is the job's own error
    told += f": {redact(job.error)}" if job.error and job.error not in problem.message else ""
    message = problem.message if told in problem.message else f"{problem.message}; {told}"
    remedy = _REMEDIES.get(job.status, problem.remedy).format(number=job.number)
    return replace(problem, message=message, remedy=remedy)


def _job_of(found: list[SchemaChange], numbers: tuple[str, ...], statement: str) -> SchemaChange | None:
    """The newest job that was made of `statement`: by the numbers that the server told, otherwise by its text."""
    if numbers:
        ours = [job for job in found if job.number in numbers]
        # of several the one that did not end well tells
        ours = [job for job in ours if job.status != "succeeded"] or ours
    else:
        # nobody else changes the schema meanwhile; how the server writes a statement in its list is its own business
        newest = max(found, key=lambda job: job.created, default=None)
        verb = statement.split()[0].casefold()
        ours = [job for job in found if job is newest and job.error and verb in job.description.casefold()]
    return max(ours, key=lambda job: job.created, default=None)
