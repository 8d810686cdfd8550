"""Deciding one state, the conditions, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from reconciler.model import (
    Blocker,
    Condition,
    ConditionStatus,
    DatabaseStatus,
    LockHolder,
    PendingStep,
    Plan,
    Problem,
    Reason,
    RowStatus,
    State,
    Step,
    Work,
)
from reconciler.status.facts import Facts
from reconciler.status.states import STATE_OF


class _Verdict(NamedTuple):
    """Where a database stands. Of Ready, Reconciling, Stalled and Suspended exactly `condition` is true."""

    state: State | None
    condition: Condition
    reason: Reason
    message: str
    problems: tuple[Problem, ...] = ()


class _Drift(NamedTuple):
    """How a database differs from what is declared."""

    reason: Reason
    message: str


_STEPS_NAMED = 3
"""A message names so many steps; the status lists them all."""
_DOWN_REFUSED = {Reason.IRREVERSIBLE, Reason.DOWN_DENIED, Reason.MAX_DOWN_STEPS_EXCEEDED}
_DIFFERENT_FILES = {Reason.CHECKSUM_MISMATCH, Reason.MIGRATION_FILE_MISSING}
_SETTLED_BY_READING = {Reason.LOCK_HELD, Reason.LOCK_LOST, Reason.INTERRUPTED, Reason.OUTCOME_UNKNOWN}
"""Errors that are over once a later reading finds the database at its target, whoever brought it there."""


def evaluate(facts: Facts, previous: DatabaseStatus | None, now: datetime) -> DatabaseStatus:
    """Decide the status of a database.

    Args:
        facts: what is known now.
        previous: the status before, None at start.
        now: the time, UTC.
    """
    verdict = _judge(facts)
    before = previous or DatabaseStatus(
        environment=facts.environment, database=facts.database, state=None, target=None, current=None
    )
    observation, state = facts.observation, verdict.state
    looked = (
        observation is not None or facts.error is not None or facts.suspended or bool(facts.manifest_problems)
    )
    work = _work(facts, state)
    holder = _holder(facts) if state is State.WAITING or facts.work is not None else None
    drift = _drift(facts)
    return DatabaseStatus(
        environment=facts.environment,
        database=facts.database,
        state=state,
        target=facts.target,
        current=observation.current_version if observation is not None else before.current,
        target_ordinal=facts.target_ordinal,
        current_ordinal=facts.current_ordinal if observation is not None else before.current_ordinal,
        pending=_pending(facts, before),
        problem=verdict.problems[0] if verdict.problems else None,
        problems=verdict.problems,
        warnings=(*(facts.plan.warnings if facts.plan is not None else ()), *facts.warnings),
        conditions=_conditions(facts, verdict, drift, before, now),
        engine=observation.engine if observation is not None else before.engine,
        server_version=observation.server_version if observation is not None else before.server_version,
        holder=holder.owner if holder is not None else "",
        holder_since=holder.since if holder is not None else None,
        observed_revision=facts.observed_revision,
        target_revision=facts.target_revision,
        last_applied_revision=_last_applied(facts, before),
        since=before.since if before.since is not None and before.state is state else now,
        failures=facts.failures,
        failing_since=_failing_since(facts, verdict, before, now),
        drift_since=_drift_since(facts, drift, before, now),
        target_since=facts.target_since,
        suspended_since=(before.suspended_since or now) if state is State.SUSPENDED else None,
        running=work.step if work is not None else None,
        running_since=work.since if work is not None else None,
        progress=work.progress if work is not None else None,
        blocked_by=work.blocked_by if work is not None else (),
        last_reconcile_at=now if looked else before.last_reconcile_at,
        last_success_at=now if state is State.IN_SYNC else before.last_success_at,
        next_retry_at=facts.next_retry_at,
        reachable=False
        if state is State.UNREACHABLE
        else True
        if observation is not None
        else before.reachable,
        last_steps=before.last_steps,
    )


def _judge(facts: Facts) -> _Verdict:
    """The first of these that holds says where the database stands."""
    plan, running = facts.plan, facts.running
    if facts.suspended:
        message = "suspended by its manifest: nothing runs, and nobody looks"
        return _Verdict(State.SUSPENDED, Condition.SUSPENDED, Reason.SUSPENDED, message)
    if facts.manifest_problems:
        return _stopped_by(facts, facts.manifest_problems)
    if running is not None:
        message = f"running {_in_words(running, facts.blocked_by)}"
        return _Verdict(State.MIGRATING, Condition.RECONCILING, Reason.PROGRESSING, message)
    if facts.hook:
        message = f"running the hook {facts.hook}"
        return _Verdict(State.MIGRATING, Condition.RECONCILING, Reason.PROGRESSING, message)
    problems = _problems(facts)
    if facts.work is not None:
        # what failed or is in doubt is being worked on; what our own plan is refused for is not
        problems = tuple(problem for problem in problems if problem.reason.is_refusal)
    if problems:
        return _stopped_by(facts, problems)
    if facts.work is not None:
        holder = _holder(facts)
        who = holder.owner if holder is not None else "somebody else"
        message = f"{who} runs {_in_words(facts.work.step, facts.work.blocked_by)}"
        return _Verdict(State.MIGRATING, Condition.RECONCILING, Reason.PROGRESSING, message)
    if plan is None:
        return _Verdict(None, Condition.RECONCILING, Reason.PROGRESSING, "not looked at yet")
    if plan.steps or plan.pins or plan.untouched:
        if facts.holder is not None:
            message = f"somebody else holds the lock: {_described(facts.holder)}"
            return _Verdict(State.WAITING, Condition.RECONCILING, Reason.LOCK_HELD, message)
        return _Verdict(State.PENDING, Condition.RECONCILING, Reason.PENDING, _to_do(plan))
    reason = Reason.UP_TO_DATE
    if facts.observed_revision and facts.observed_revision == facts.last_applied_revision:
        reason = Reason.APPLIED
    message = f"at version {plan.target}" if plan.target else "nothing is applied, as declared"
    return _Verdict(State.IN_SYNC, Condition.READY, reason, message)


def _problems(facts: Facts) -> tuple[Problem, ...]:
    """What stands against it, the main thing first. A failure and the refusal to repeat it are one thing."""
    plan, error = facts.plan, facts.error
    refusals = plan.refusals if plan is not None else ()
    if error is None:
        return refusals
    if plan is not None and plan.in_sync and error.reason in _SETTLED_BY_READING:
        return ()
    return (error, *(other for other in refusals if _subject(other) != _subject(error)))


def _subject(problem: Problem) -> tuple[Reason, int | None, str]:
    return problem.reason, problem.version, problem.direction


def _stopped_by(facts: Facts, problems: tuple[Problem, ...]) -> _Verdict:
    main, plan = problems[0], facts.plan
    state = STATE_OF[main.reason]
    if (
        state is State.BLOCKED
        and plan is not None
        and plan.current > plan.target
        and any(problem.reason in _DOWN_REFUSED for problem in problems)
    ):
        state = State.AHEAD
    if main.reason is Reason.OUTCOME_UNKNOWN and facts.holder is not None:
        # the row that looks abandoned is being worked on by whoever holds the lock
        message = f"somebody else is at work: {_described(facts.holder)}"
        return _Verdict(State.WAITING, Condition.RECONCILING, Reason.LOCK_HELD, message)
    carried_by = main.reason.condition
    if carried_by not in (Condition.STALLED, Condition.SUSPENDED):
        carried_by = Condition.RECONCILING
    return _Verdict(state, carried_by, main.reason, main.message, problems)


def _conditions(
    facts: Facts, verdict: _Verdict, drift: _Drift | None, before: DatabaseStatus, now: datetime
) -> tuple[ConditionStatus, ...]:
    """All six, always in the same order. A condition keeps its time of transition while its status stays."""
    known = {condition.type: condition for condition in before.conditions}

    def condition(kind: Condition, status: bool, reason: Reason, message: str) -> ConditionStatus:
        old = known.get(kind)
        return ConditionStatus(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            revision=facts.observed_revision,
            last_transition=old.last_transition if old is not None and old.status is status else now,
        )

    drifted = known.get(Condition.DRIFTED)
    if drift is not None:
        drifted = condition(Condition.DRIFTED, drift.reason is not Reason.NO_DRIFT_DETECTED, *drift)
    elif drifted is None:
        drifted = condition(Condition.DRIFTED, False, Reason.NO_DRIFT_DETECTED, "not looked at yet")
    source = facts.source_problem
    if source is None:
        source_ready = condition(Condition.SOURCE_READY, True, Reason.UP_TO_DATE, facts.observed_revision)
    else:
        source_ready = condition(Condition.SOURCE_READY, False, source.reason, source.message)

    def main(kind: Condition) -> ConditionStatus:
        return condition(kind, verdict.condition is kind, verdict.reason, verdict.message)

    return (
        main(Condition.READY),
        main(Condition.RECONCILING),
        main(Condition.STALLED),
        drifted,
        source_ready,
        main(Condition.SUSPENDED),
    )


def _drift(facts: Facts) -> _Drift | None:
    """How the database differs from what is declared; None when nobody can tell now."""
    plan = facts.plan
    if plan is None or facts.observation is None or facts.suspended or facts.manifest_problems:
        return None
    for problem in plan.refusals:
        if problem.reason in _DIFFERENT_FILES:
            return _Drift(Reason.DRIFT_DETECTED, problem.message)
    where = f"at version {plan.current}, declared is {plan.target}"
    if plan.current > plan.target:
        return _Drift(Reason.DATABASE_AHEAD, where)
    if plan.current < plan.target:
        return _Drift(Reason.DATABASE_BEHIND, where)
    if plan.steps:
        return _Drift(Reason.DATABASE_BEHIND, _to_do(plan))
    return _Drift(Reason.NO_DRIFT_DETECTED, f"at version {plan.current}, as declared")


def _drift_since(
    facts: Facts, drift: _Drift | None, before: DatabaseStatus, now: datetime
) -> datetime | None:
    """When it left its declared state. For a new target that is when the target was declared, also after a restart."""
    if drift is None:
        return before.drift_since
    if drift.reason is Reason.NO_DRIFT_DETECTED:
        return None
    if before.drift_since is not None:
        return before.drift_since
    newly_declared = before.target is None or before.target != facts.target
    if newly_declared and drift.reason is not Reason.DRIFT_DETECTED and facts.target_since is not None:
        return min(facts.target_since, now)
    return now


def _failing_since(facts: Facts, verdict: _Verdict, before: DatabaseStatus, now: datetime) -> datetime | None:
    """The first failure of the current run of failures. It stays through retries and ends with the first step that works.

    A server out of reach is no failed migration, and has a metric and an alert of its own.
    """
    if verdict.state in (State.IN_SYNC, State.SUSPENDED):
        return None
    begun = before.failing_since
    if begun is None and facts.observation is not None and facts.observation.last_failure is not None:
        begun = min(facts.observation.last_failure.failed_at, now)
    if begun is not None and any(step.finished_at > begun for step in before.last_steps):
        begun = None
    if verdict.problems and _is_failure(verdict.problems[0]):
        return begun or now
    return begun


def _is_failure(problem: Problem) -> bool:
    label = problem.reason.metric_label
    if label == "connection":
        # lost while a migration ran: it may well be the migration's doing
        return problem.version is not None and problem.reason is not Reason.INTERRUPTED
    return bool(label)


def _pending(facts: Facts, before: DatabaseStatus) -> tuple[PendingStep, ...]:
    if facts.plan is not None:
        return tuple(pending_step(step) for step in facts.plan.steps)
    return before.pending if before.target == facts.target else ()


def pending_step(step: Step) -> PendingStep:
    """The short form of a step that the status shows."""
    return PendingStep(
        version=step.version,
        name=step.name,
        direction=step.direction,
        source=step.source.value,
        transactional=step.transactional,
    )


def _to_do(plan: Plan) -> str:
    if not plan.steps and not plan.pins:
        return "downs that were cut off before they changed anything are to be recorded as not run"
    if not plan.steps:
        rows = len(plan.pins)
        return f"{rows} row{'s' if rows > 1 else ''} of an earlier tool {'are' if rows > 1 else 'is'} to be completed"
    shown = [f"{step.direction} {step.version}" for step in plan.steps[:_STEPS_NAMED]]
    more = len(plan.steps) - len(shown)
    return f"to run: {', '.join(shown)}" + (f" and {more} more" if more else "")


def _work(facts: Facts, state: State | None) -> Work | None:
    """Our own step that runs now, or the one of whoever holds the lock."""
    if state is not State.MIGRATING or facts.running is None:
        return facts.work
    return Work(
        step=facts.running,
        since=facts.running_since,
        progress=facts.progress,
        blocked_by=facts.blocked_by,
    )


def _in_words(step: PendingStep, blockers: Sequence[Blocker]) -> str:
    blocked = f", blocked by {', '.join(blocker.name for blocker in blockers)}" if blockers else ""
    return f"the {step.direction} of migration {step.version} ({step.name}){blocked}"


def _holder(facts: Facts) -> LockHolder | None:
    return facts.holder or (facts.observation.holder if facts.observation is not None else None)


def _described(holder: LockHolder) -> str:
    since = f", since {holder.since:%Y-%m-%d %H:%M:%S} UTC" if holder.since is not None else ""
    return f"{holder.owner}{since}"


def _last_applied(facts: Facts, before: DatabaseStatus) -> str:
    """The newest revision that was brought about in full; after a restart, the one the newest row was applied from."""
    known = facts.last_applied_revision or before.last_applied_revision
    if known or facts.observation is None:
        return known
    newest = next((row for row in reversed(facts.observation.rows) if row.status is RowStatus.SUCCESS), None)
    return (newest.git_revision or "") if newest is not None else ""
