"""From the server's answer to a problem a person can act on: place, statement, caret, reason, remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.database.conflicts import CONFLICT
from reconciler.database.failures import (
    OUR_TABLES_LOCKED,
    copy_line_of,
    detail_and_hint,
    primary_message,
    reason_of,
    remedy_of,
    sqlstate_of,
)
from reconciler.database.messages import Answer
from reconciler.model import Direction, Place, Problem, Reason, Statement, Step
from reconciler.redaction import redact
from reconciler.sqltext import excerpt, locate

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
_DIVISION_BY_ZERO = "22012"
_INSUFFICIENT_PRIVILEGE = "42501"
_TIMEOUTS = ("57014", "25P04")
_CONFLICTS = (Reason.SERIALIZATION_FAILURE, Reason.DEADLOCK)
_DOING_OF_THE_SCRIPT = ("22", "23", "25", "42")
"""Classes of errors that our own bookkeeping only meets after a script has changed what it stands on."""


def is_lock_timeout(answer: Answer) -> bool:
    """True when a statement of the script waited longer for a table lock than it may."""
    return (
        answer.error is not None
        and answer.failed_part == "script"
        and sqlstate_of(answer.error) == _LOCK_NOT_AVAILABLE
    )


def is_conflict(answer: Answer) -> bool:
    """True when the step was rolled back since it came into conflict with another transaction."""
    return answer.error is not None and not answer.lost and sqlstate_of(answer.error) == CONFLICT


def failure_of(answer: Answer, step: Step) -> Problem:
    """Why a transactional step did not come into force."""
    if answer.error is None or answer.lost:
        return connection_lost(step, answer.lost)
    if answer.failed_part == "script":
        index = answer.failed_index if answer.failed_index >= 0 else statement_at(step, answer.offset)
        return statement_failure(answer.error, step, index, answer.offset)
    sqlstate = sqlstate_of(answer.error)
    if answer.failed_part == "fence" and sqlstate == _DIVISION_BY_ZERO:
        return lock_lost()
    message = primary_message(answer.error)
    if answer.failed_part in ("deferred", "commit"):
        what = (
            "a deferred constraint or trigger failed"
            if answer.failed_part == "deferred"
            else "it could not be committed"
        )
        reason = _script_reason(sqlstate, step)
        return _of_the_whole(
            answer.error, step, reason, f"{what}: {message}", remedy_of(reason) or _fix(step)
        )
    return failure_of_bookkeeping(answer.error, step)


def failure_of_bookkeeping(error: PGresult, step: Step, in_force: int | None = None) -> Problem:
    """Why what was run could not be recorded, and so was rolled back.

    Args:
        error: the server's error.
        step: whose script it is.
        in_force: how many statements of a script outside a transaction are in force; None when it is one transaction.
    """
    sqlstate, message = sqlstate_of(error), primary_message(error)
    if sqlstate == _DIVISION_BY_ZERO:
        return lock_lost()
    if sqlstate in (_LOCK_NOT_AVAILABLE, _QUERY_CANCELED):
        return _of_the_whole(
            error,
            step,
            Reason.LOCK_HELD,
            f"somebody keeps our own tables locked: {message}",
            OUR_TABLES_LOCKED,
            in_force,
        )
    if sqlstate == _INSUFFICIENT_PRIVILEGE:
        reason, remedy = Reason.PERMISSION_DENIED, remedy_of(Reason.PERMISSION_DENIED)
    elif sqlstate[:2] in _DOING_OF_THE_SCRIPT:
        reason = _failed(step)
        remedy = f"{step.script.path} must leave schema_migrations and the tables beside it, and the transaction, alone"
    else:
        reason = reason_of(sqlstate, Reason.INTERNAL_ERROR)
        remedy = remedy_of(reason)
    # a conflict is found out by whatever happens to be written next
    what = "it came into conflict with other work" if reason in _CONFLICTS else "it could not be recorded"
    return _of_the_whole(error, step, reason, f"{what}: {message}", remedy, in_force)


def _of_the_whole(
    error: PGresult, step: Step, reason: Reason, message: str, remedy: str, in_force: int | None = None
) -> Problem:
    """A failure of a transaction that no statement of the script stands for. It began behind those in force."""
    total = len(step.statements)
    if in_force is None or in_force >= total:
        message = f"{_step_name(step)} was rolled back: {message}"
        place = Place(step.script.path, step.script.first_line)
    else:
        message = (
            f"{_step_name(step)}, from statement {in_force + 1} of {total} on, was rolled back: {message}; "
            f"{in_force} of its {total} statements are in force"
        )
        place = locate(step.script, step.statements[in_force].offset)
    return Problem(
        reason=reason,
        message=message,
        remedy=remedy,
        place=place,
        sqlstate=sqlstate_of(error),
        detail=detail_and_hint(error),
        version=step.version,
        direction=step.direction.value,
        statement_index=in_force + 1 if in_force is not None and in_force < total else None,
    )


def statement_failure(
    error: PGresult, step: Step, index: int, offset: int | None, in_force: int = 0
) -> Problem:
    """Why a statement of a script failed, with its place and a caret.

    Args:
        error: the server's error.
        step: whose script it is.
        index: of the statement, from 0.
        offset: where in the script the server saw it, or None: then the statement's beginning.
        in_force: how many statements of a script outside a transaction are in force.
    """
    sqlstate = sqlstate_of(error)
    statement = step.statements[index] if 0 <= index < len(step.statements) else None
    if offset is None and statement is not None:
        offset = _failing_row(error, statement)
    if offset is None:
        offset = statement.offset if statement else 0
    reason = _script_reason(sqlstate, step)
    remedy = remedy_of(reason) or _fix(step, in_force)
    message = primary_message(error)
    if sqlstate in _TIMEOUTS:
        if step.statement_timeout:
            reason = Reason.STATEMENT_TIMEOUT
            remedy = "raise it with `-- reconciler: statement-timeout 10m` in the file, or split the work, and commit"
            message = f"{message} (statement_timeout is {step.statement_timeout:g} s)"
        else:
            remedy = "somebody cancelled it; run `reconciler retry` when it may go on"
    elif reason is Reason.LOCK_TIMEOUT:
        message = f"{message} (lock_timeout is {step.lock_timeout:g} s)"
    undone = (
        "nothing of it is in force"
        if step.transactional
        else f"{in_force} of its {len(step.statements)} statements are in force"
    )
    return Problem(
        reason=reason,
        message=f"{_step_name(step)} failed at statement {index + 1} of {len(step.statements)}: {message}; {undone}",
        remedy=remedy,
        place=locate(step.script, offset),
        excerpt=excerpt(step.script, offset),
        sqlstate=sqlstate,
        detail=detail_and_hint(error),
        version=step.version,
        direction=step.direction.value,
        statement_index=index + 1,
    )


def _failing_row(error: PGresult, statement: Statement) -> int | None:
    """Where in the script the row of a COPY stands that the server could not take; None when it does not say."""
    number = copy_line_of(error)
    if number is None or statement.copy_data is None or statement.copy_offset is None:
        return None
    start = 0
    for _ in range(number - 1):
        start = statement.copy_data.find("\n", start) + 1
        if not start:
            return None
    return statement.copy_offset + start if start < len(statement.copy_data) else None


def excerpt_for_journal(step: Step, problem: Problem) -> str:
    """The excerpt of a failure of `step`, unless it shows a row of a COPY: what is kept for ever holds no values."""
    index = problem.statement_index
    if index is None or problem.place is None or not 0 < index <= len(step.statements):
        return problem.excerpt
    offset = step.statements[index - 1].copy_offset
    if offset is None or problem.place.line < locate(step.script, offset).line:
        return problem.excerpt
    return ""


def statement_at(step: Step, offset: int | None) -> int:
    """The index of the statement that `offset` stands in, 0 when that is not known."""
    index = 0
    for number, statement in enumerate(step.statements):
        if offset is not None and statement.offset <= offset:
            index = number
    return index


def connection_lost(step: Step, why: str) -> Problem:
    """The connection broke while a step ran; reading the database again tells whether it is in force."""
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"{_step_name(step)}: the connection was lost: {redact(' '.join(why.split()))}",
        remedy="the history is read again before anything else runs; nothing need be done",
        version=step.version,
        direction=step.direction.value,
    )


def interrupted(step: Step) -> Problem:
    """The process was asked to stop and the step did not end in time."""
    return Problem(
        reason=Reason.INTERRUPTED,
        message=f"{_step_name(step)} was interrupted"
        + (" and rolled back" if step.transactional else "; statements that were done stay in force"),
        remedy="it is run again when the reconciler is started again",
        version=step.version,
        direction=step.direction.value,
    )


def lock_lost() -> Problem:
    """The problem of a writer whose lock was taken over."""
    return Problem(
        reason=Reason.LOCK_LOST,
        message="the lock was taken over by another process while this one worked; its transaction was rolled back",
        remedy="it is tried again by itself",
    )


def _script_reason(sqlstate: str, step: Step) -> Reason:
    """The reason for an error of a script. A read-only transaction is its own doing: the server was asked before."""
    reason = reason_of(sqlstate, _failed(step))
    return _failed(step) if reason is Reason.READ_ONLY else reason


def _step_name(step: Step) -> str:
    return f"migration {step.version} ({step.name}) {step.direction.value}"


def _failed(step: Step) -> Reason:
    return Reason.STATEMENT_FAILED if step.direction is Direction.UP else Reason.DOWN_FAILED


def _fix(step: Step, in_force: int = 0) -> str:
    """What a person can do about SQL that failed, when `in_force` of its statements stay in force."""
    if step.direction is Direction.UP:
        return f"mend {step.script.path} and commit: it is tried again at once; or run `reconciler retry` when the cause lay in the database"
    # no plan turns a half-done down around: only a person can tell what would have to be made again
    back = "" if in_force else f", or set target_version back to {step.version} or above"
    kept = ", but not the statements that are in force," if in_force else ""
    return (
        f"mend the down section of {step.script.path}{kept} and set `policy.changed_down: checkout`{back}; "
        "or run `reconciler retry` when the cause lay in the database"
    )
