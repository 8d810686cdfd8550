"""Running a migration outside a transaction: statement by statement, each in its own, with its progress written down."""

from __future__ import annotations

import asyncio
import re
import uuid
from time import monotonic
from typing import TYPE_CHECKING

from reconciler.database.outcome import connection_lost, interrupted, statement_failure
from reconciler.database.queries import quote_identifier
from reconciler.model import Direction, Place, Problem, ProblemError, Reason, Step, StepResult
from reconciler.sqltext import excerpt, locate

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock

_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_BUILT_UNLESS_THERE = re.compile(
    r"\bINDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(?:\"(?P<quoted>(?:[^\"]|\"\")+)\"|(?P<plain>[^\s\"(]+))",
    re.IGNORECASE,
)


async def run_statements(writer: HeldLock, step: Step) -> StepResult:
    """Run one step that cannot be a transaction.

    Its row says `running` before the first statement is sent, counts the statements that are done, and says `success`
    (or is gone, for a down) after the last. When the process dies in between, the row still says `running`, and the
    planner refuses to go on blindly. Statements between a script's own BEGIN and COMMIT are done when it commits.

    Raises:
        ProblemError: a statement failed; the row says `failed` and how many statements are in force.
    """
    session, queries = writer.session, writer.session.queries
    attempt_id = str(uuid.uuid4())
    started = monotonic()
    await _record_start(writer, step, attempt_id)
    done = step.first_statement
    problem: Problem | None = None
    for index in range(step.first_statement, len(step.statements)):
        if session.interrupted:
            break
        problem = await _run_one(writer, step, index, done)
        if problem is not None:
            break
        last = index + 1 == len(step.statements)
        if session.in_transaction:
            problem = _never_committed(step, done) if last else None
            continue
        done = index + 1
        if not last:
            progress = queries("record_progress", version=step.version, **writer.progress(step, done))
            try:
                await writer.write(progress, doing=f"recording the progress of migration {step.version}")
            except ProblemError as error:
                problem = error.problem
                break
    if problem is None and session.interrupted and done < len(step.statements):
        problem = interrupted(step)
    if problem is not None:
        await _record_failure(writer, step, problem, attempt_id, started, done)
        if session.interrupted:
            raise asyncio.CancelledError
        raise ProblemError(problem)
    elapsed = monotonic() - started
    await _record_end(writer, step, attempt_id, elapsed)
    if session.interrupted:
        raise asyncio.CancelledError
    await session.command(session.reset_message, doing="resetting the session")
    return StepResult(duration=elapsed, durable=True)


async def _run_one(writer: HeldLock, step: Step, index: int, done: int) -> Problem | None:
    """Send one statement alone. Returns why it failed, or None."""
    from reconciler.database.failures import is_error, position_of

    statement = step.statements[index]
    session = writer.session
    try:
        if not session.in_transaction:
            await session.command(_time_limits(step, statement.text), doing="setting time limits")
        if session.interrupted:
            return interrupted(step)
        results = await session.send(statement.text, many_rows=True)
    except ProblemError as lost:
        return connection_lost(step, lost.problem.message)
    error = results[-1]
    if is_error(error) and session.interrupted:
        return interrupted(step)
    if not is_error(error):
        return await _hidden_invalid_index(writer, step, index)
    if not session.alive:
        return connection_lost(step, "the server closed the connection")
    position = position_of(error)
    offset = statement.offset + position - 1 if position else None
    return statement_failure(error, step, index, offset, done)


def _never_committed(step: Step, done: int) -> Problem:
    return Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"migration {step.version} ({step.name}) {step.direction.value} ends inside a transaction that it began itself, which was "
        f"rolled back; {done} of its {len(step.statements)} statements are in force",
        remedy=f"end it with COMMIT in {step.script.path}",
        place=Place(step.script.path, step.statements[done].line, step.statements[done].column),
        version=step.version,
        direction=step.direction.value,
        statement_index=done + 1,
    )


async def _record_start(writer: HeldLock, step: Step, attempt_id: str) -> None:
    queries = writer.session.queries
    progress = writer.progress(step, step.first_statement)
    if step.direction is Direction.UP:
        row = queries("begin_steps_up", **{**writer.row(step), **progress})
    else:
        row = queries(
            "begin_steps_down", version=step.version, statements_total=len(step.statements), **progress
        )
    rows, *_ = await writer.write(
        row,
        queries.attempts(queries("started", **writer.facts(step, attempt_id))),
        doing=f"recording the start of migration {step.version}",
    )
    if not rows:
        raise ProblemError(
            Problem(
                reason=Reason.LOCK_LOST,
                message=f"the row of migration {step.version} was changed by somebody else since it was read",
                remedy="the history is read again; it is tried again by itself",
            )
        )


async def _record_end(writer: HeldLock, step: Step, attempt_id: str, elapsed: float) -> None:
    queries = writer.session.queries
    milliseconds = round(elapsed * 1000)
    if step.direction is Direction.UP:
        digest = writer.progress(step, len(step.statements))["statements_digest"]
        row = queries(
            "end_steps_up", version=step.version, execution_time_ms=milliseconds, statements_digest=digest
        )
    else:
        row = queries("delete_applied", version=step.version)
    event = {
        **writer.empty_event("finished"),
        **writer.facts(step, attempt_id),
        "outcome": "success",
        "execution_time_ms": milliseconds,
    }
    await writer.write(
        row, queries("insert_event", **event), doing=f"recording the end of migration {step.version}"
    )


async def _hidden_invalid_index(writer: HeldLock, step: Step, index: int) -> Problem | None:
    """Why a concurrent build that the server was content with is none: `IF NOT EXISTS` is also met by an invalid index.

    Such an index is what an earlier, failed build left behind: it serves no query, and enforces nothing.
    """
    statement = step.statements[index]
    built = _BUILT_UNLESS_THERE.search(statement.text) if step.direction is Direction.UP else None
    if built is None:
        return None
    name = built["plain"].lower() if built["plain"] else built["quoted"].replace('""', '"')
    session = writer.session
    (found,) = await session.read(
        session.queries("invalid_indexes", name=name), doing="looking for invalid indexes"
    )
    if not found:
        return None
    index_name = ".".join(quote_identifier(part) for part in found[0])
    return Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"migration {step.version} ({step.name}) up stopped at statement {index + 1} of {len(step.statements)}: the index {index_name} "
        "is there but invalid, left behind by an earlier build that failed",
        remedy=f"run `DROP INDEX CONCURRENTLY {index_name}`, then `reconciler retry`",
        place=locate(step.script, statement.offset),
        excerpt=excerpt(step.script, statement.offset),
        version=step.version,
        direction=step.direction.value,
        statement_index=index + 1,
    )


def _time_limits(step: Step, statement: str) -> str:
    """The settings for one statement.

    `CONCURRENTLY` waits for every older transaction to end and blocks nobody meanwhile. Giving up on that wait would only
    leave an invalid index behind, so no `lock_timeout` applies to it.
    """
    lock_timeout = 0.0 if _CONCURRENTLY.search(statement) else step.lock_timeout
    return f"SET lock_timeout = {round(lock_timeout * 1000)};SET statement_timeout = {round(step.statement_timeout * 1000)}"


async def _record_failure(
    writer: HeldLock, step: Step, problem: Problem, attempt_id: str, started: float, done: int
) -> None:
    from reconciler.database.failures import mask_literals

    session = writer.session
    if not session.alive:
        return
    milliseconds = round((monotonic() - started) * 1000)
    untouched = step.direction is Direction.DOWN and done == 0
    try:
        await session.roll_back()
        await writer.write(
            session.queries(
                "forget_down" if untouched else "fail_steps",
                version=step.version,
                execution_time_ms=milliseconds,
                error_message=mask_literals(str(problem)),
            ),
            session.queries("insert_event", **writer.failed_event(step, problem, attempt_id, milliseconds)),
            doing="recording the failure",
        )
    except ProblemError as error:
        # the failure itself matters more than that it could not be written down
        raise ProblemError(problem) from error
