"""Status and plans as JSON values: the one rendering behind the HTTP API and `--output json`.

The keys are public: they are extended, never renamed. They are `snake_case`, every key is always present, and what is not
known is null. Instants are ISO 8601 in UTC with milliseconds and a `Z`; durations end in `_seconds`. Versions are JSON
integers of up to 2^63-1: a client whose numbers are doubles must read them as text when they pass 2^53. Free text passes
through the process's redactor once more, for here it leaves the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.model.git import Revision
from reconciler.model.history import AppliedMigration, JournalEvent
from reconciler.model.hooks import Hook, HookMoment
from reconciler.model.migration import Statement
from reconciler.model.plan import Plan, Step
from reconciler.model.problem import Problem, ProblemError
from reconciler.model.protocols import StepResult
from reconciler.model.reasons import Condition, ErrorClass, Reason
from reconciler.model.status import (
    ConditionStatus,
    DaemonStatus,
    DatabaseStatus,
    EnvironmentStatus,
    LastStep,
    PendingStep,
    SourceStatus,
    State,
)
from reconciler.model.watching import Blocker
from reconciler.redaction import redact

JsonObject = dict[str, Any]


def instant_as_text(instant: datetime | None) -> str | None:
    """`instant` as `2025-01-15T10:00:00.000Z`; one without a time zone is taken as UTC, as our tables store it."""
    if instant is None:
        return None
    utc = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def problem_as_dict(problem: Problem) -> JsonObject:
    """One refusal or failure. `class` says whether it is tried again: `permanent`, `temporary`, `ambiguous` or `none`."""
    place = problem.place
    return {
        "reason": problem.reason.value,
        "class": problem.reason.error_class.value,
        "message": redact(problem.message),
        "remedy": redact(problem.remedy),
        "file": place.path if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "excerpt": redact(problem.excerpt) or None,
        "sqlstate": problem.sqlstate or None,
        "detail": redact(problem.detail) or None,
        "version": problem.version,
        "direction": problem.direction or None,
        "statement_index": problem.statement_index,
    }


def error_as_dict(error: ReconcilerError) -> JsonObject:
    """Any error with the keys of a problem; `reason` is null for one that is no problem of a database or a file."""
    if isinstance(error, ProblemError):
        return problem_as_dict(error.problem)
    blank = problem_as_dict(Problem(reason=Reason.INTERNAL_ERROR, message=error.message, remedy=error.remedy))
    return {**blank, "reason": None, "class": ErrorClass.PERMANENT.value}


def status_as_dict(status: DatabaseStatus) -> JsonObject:
    """Everything known of one database. `ready` is true when it is at its target and nothing stands against it."""
    return {
        "environment": status.environment,
        "database": status.database,
        "state": status.state.value if status.state else None,
        "ready": is_ready(status),
        "target_version": status.target,
        "current_version": status.current,
        "target_ordinal": status.target_ordinal,
        "current_ordinal": status.current_ordinal,
        "pending": [_pending_as_dict(step) for step in status.pending],
        "running": _running_as_dict(status),
        "problem": _problem_or_null(status.problem),
        "problems": [problem_as_dict(problem) for problem in status.problems],
        "warnings": [problem_as_dict(warning) for warning in status.warnings],
        "conditions": [_condition_as_dict(condition) for condition in status.conditions],
        "engine": status.engine or None,
        "server_version": status.server_version or None,
        "reachable": status.reachable,
        "lock_holder": (
            {"owner": status.holder, "since": instant_as_text(status.holder_since)} if status.holder else None
        ),
        "observed_revision": status.observed_revision or None,
        "target_revision": status.target_revision or None,
        "last_applied_revision": status.last_applied_revision or None,
        "since": instant_as_text(status.since),
        "target_since": instant_as_text(status.target_since),
        "drift_since": instant_as_text(status.drift_since),
        "failing_since": instant_as_text(status.failing_since),
        "suspended_since": instant_as_text(status.suspended_since),
        "failures": status.failures,
        "last_reconcile_at": instant_as_text(status.last_reconcile_at),
        "last_success_at": instant_as_text(status.last_success_at),
        "next_retry_at": instant_as_text(status.next_retry_at),
        "last_steps": [_last_step_as_dict(step) for step in status.last_steps],
    }


def environment_as_dict(environment: EnvironmentStatus) -> JsonObject:
    """One manifest and its databases, in the manifest's order."""
    problems = environment.problems or ((environment.problem,) if environment.problem else ())
    return {
        "environment": environment.environment,
        "target_version": environment.target,
        "suspended": environment.suspended,
        "problem": _problem_or_null(environment.problem),
        "problems": [problem_as_dict(problem) for problem in problems],
        "databases": [status_as_dict(database) for database in environment.databases],
    }


def daemon_as_dict(status: DaemonStatus) -> JsonObject:
    """The whole daemon: source, environments, and the work queue."""
    return {
        "ready": status.ready,
        "not_ready_because": None if status.ready else status.not_ready_because or None,
        "started_at": instant_as_text(status.started_at),
        "resync_interval_seconds": status.resync_interval,
        "source": source_as_dict(status.source),
        "problems": [problem_as_dict(problem) for problem in status.problems],
        "environments": [environment_as_dict(environment) for environment in status.environments],
        "queue": {
            "depth": status.queue_depth,
            "oldest_since": instant_as_text(status.queue_oldest),
            "workers": status.workers,
            "workers_busy": status.workers_busy,
        },
    }


def source_as_dict(source: SourceStatus) -> JsonObject:
    """The repository that is followed."""
    return {
        "repository": source.repository,
        "branch": source.branch,
        "revision": _revision_as_dict(source.revision) if source.revision else None,
        "last_success_at": instant_as_text(source.last_success_at),
        "problem": _problem_or_null(source.problem),
    }


def plan_as_dict(plan: Plan, *, statements: bool = False) -> JsonObject:
    """A plan and what stands against it.

    Args:
        plan: to be rendered.
        statements: also give the SQL of every step, statement by statement, as `--dry-run` shows it.
    """
    return {
        "current_version": plan.current,
        "target_version": plan.target,
        "in_sync": plan.in_sync,
        "runnable": plan.runnable,
        "steps": [_step_as_dict(step, statements=statements) for step in plan.steps],
        "refusals": [problem_as_dict(problem) for problem in plan.refusals],
        "warnings": [problem_as_dict(problem) for problem in plan.warnings],
        "pins": [pin.version for pin in plan.pins],
        "hooks": {
            moment.value: [_hook_as_dict(hook) for hook in plan.hooks.at(moment)] for moment in HookMoment
        },
    }


def result_as_dict(
    applied: Sequence[tuple[Step, StepResult]],
    plan: Plan | None,
    problem: Problem | None,
    warnings: Sequence[Problem] = (),
) -> JsonObject:
    """What came of bringing one database to a version.

    Args:
        applied: the steps that are in force, in the order they ran.
        plan: what is left to do; None when the database was not reached at the end.
        problem: why it stopped short.
        warnings: what went wrong beside the steps.
    """
    return {
        "in_sync": plan is not None and plan.in_sync,
        "current_version": plan.current if plan is not None else None,
        "target_version": plan.target if plan is not None else None,
        "applied": [
            {**_step_as_dict(step, statements=False), "duration_seconds": result.duration}
            for step, result in applied
        ],
        "plan": plan_as_dict(plan) if plan is not None else None,
        "problem": _problem_or_null(problem),
        "warnings": [problem_as_dict(warning) for warning in warnings],
    }


def applied_as_dict(row: AppliedMigration) -> JsonObject:
    """One row of the history."""
    milliseconds = row.execution_time_ms
    return {
        "version": row.version,
        "name": row.name,
        "status": row.status.value,
        "direction": row.direction.value,
        "applied_at": instant_as_text(row.applied_at),
        "duration_seconds": None if milliseconds is None else milliseconds / 1000,
        "checksum": row.checksum,
        "git_revision": row.git_revision or None,
        "error_message": row.error_message or None,
    }


def event_as_dict(event: JournalEvent) -> JsonObject:
    """One event of the journal. What `details` holds depends on the event."""
    return {
        "at": instant_as_text(event.at),
        "attempt": event.attempt,
        "event": event.event,
        "version": event.version,
        "direction": event.direction or None,
        "outcome": event.outcome or None,
        "reason": event.reason or None,
        "message": event.message or None,
        "details": event.details,
    }


def blocker_as_dict(blocker: Blocker) -> JsonObject:
    """Who is in the way of a step. `pid` is 0 for a prepared transaction; `query` is null unless query texts were asked for."""
    return {
        "pid": blocker.pid,
        "user": blocker.user or None,
        "application": redact(blocker.application) or None,
        "state": blocker.state or None,
        "transaction_age_seconds": (
            None if blocker.transaction_age is None else round(blocker.transaction_age, 3)
        ),
        "query_id": blocker.query_id,
        "query": redact(blocker.query) or None,
        "prepared": redact(blocker.prepared) or None,
    }


def blocker_from_dict(rendered: JsonObject) -> Blocker:
    """What `blocker_as_dict` wrote, this version's or another's."""
    pid, age, query_id = (rendered.get(key) for key in ("pid", "transaction_age_seconds", "query_id"))
    texts = {
        key: str(rendered.get(key) or "") for key in ("user", "application", "state", "query", "prepared")
    }
    return Blocker(
        pid=pid if isinstance(pid, int) else 0,
        transaction_age=float(age) if isinstance(age, int | float) else None,
        query_id=query_id if isinstance(query_id, int) else None,
        **texts,
    )


def is_ready(status: DatabaseStatus) -> bool:
    """What the `Ready` condition says; before there are conditions, whether the state is `in_sync`."""
    for condition in status.conditions:
        if condition.type is Condition.READY:
            return condition.status
    return status.state is State.IN_SYNC


def _hook_as_dict(hook: Hook) -> JsonObject:
    return {
        "name": redact(hook.label),
        "command": [redact(argument) for argument in hook.command],
        "timeout_seconds": hook.timeout,
    }


def _problem_or_null(problem: Problem | None) -> JsonObject | None:
    return problem_as_dict(problem) if problem else None


def _pending_as_dict(step: PendingStep) -> JsonObject:
    return {
        "version": step.version,
        "name": step.name,
        "direction": step.direction.value,
        "source": step.source,
        "transactional": step.transactional,
    }


def _running_as_dict(status: DatabaseStatus) -> JsonObject | None:
    if status.running is None:
        return None
    progress = status.progress
    return {
        **_pending_as_dict(status.running),
        "since": instant_as_text(status.running_since),
        "phase": progress.phase if progress else None,
        "percent": progress.percent if progress else None,
        "object": (progress.object or None) if progress else None,
        "blocked_by": [blocker_as_dict(blocker) for blocker in status.blocked_by],
    }


def _last_step_as_dict(step: LastStep) -> JsonObject:
    return {
        "direction": step.direction.value,
        "version": step.version,
        "finished_at": instant_as_text(step.finished_at),
        "duration_seconds": step.duration,
    }


def _condition_as_dict(condition: ConditionStatus) -> JsonObject:
    return {
        "type": condition.type.value,
        "status": condition.status,
        "reason": condition.reason.value,
        "message": redact(condition.message),
        "observed_revision": condition.revision or None,
        "last_transition_time": instant_as_text(condition.last_transition),
    }


def _revision_as_dict(revision: Revision) -> JsonObject:
    return {
        "commit": revision.commit,
        "branch": revision.branch,
        "committed_at": instant_as_text(revision.committed_at),
        "author": revision.author,
        "working_tree": revision.working_tree,
    }


def _step_as_dict(step: Step, *, statements: bool) -> JsonObject:
    rendered: JsonObject = {
        "version": step.version,
        "name": step.name,
        "direction": step.direction.value,
        "source": step.source.value,
        "transactional": step.transactional,
        "file": step.script.path,
        "statements_total": len(step.statements),
        "statements_done": step.first_statement,
        "lock_timeout_seconds": step.lock_timeout,
        "statement_timeout_seconds": step.statement_timeout,
        "data_loss": list(step.data_loss),
    }
    if statements:
        rendered["statements"] = [_statement_as_dict(statement) for statement in step.statements]
    return rendered


def _statement_as_dict(statement: Statement) -> JsonObject:
    rendered: JsonObject = {"text": statement.text, "line": statement.line, "column": statement.column}
    if statement.copy_data is not None:
        rendered["copy_data"] = statement.copy_data
    return rendered
