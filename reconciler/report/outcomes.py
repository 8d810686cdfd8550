"""What came of bringing a database somewhere, as text."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.history import LockHolder
from reconciler.model.plan import Plan, Step
from reconciler.model.problem import Problem
from reconciler.model.protocols import StepResult
from reconciler.report.text import counted, elapsed, instant, one_line


def waiting_line(name: str, holder: LockHolder) -> str:
    """Somebody else holds the lock of the database `name`."""
    since = f" since {instant(holder.since)}" if holder.since is not None else ""
    return f"{name}: waiting for the lock, held by {one_line(holder.owner)}{since}"


def step_line(name: str, step: Step, result: StepResult) -> str:
    """A step that is in force."""
    return f"{name}: {running_line(step)} [{step.source}] {elapsed(result.duration)}"


def running_line(step: Step) -> str:
    """A step, in the fewest words."""
    return f"{step.direction} {step.version} {one_line(step.name)}"


def outcome_line(
    name: str,
    applied: Sequence[tuple[Step, StepResult]],
    plan: Plan | None,
    problem: Problem | None = None,
) -> str:
    """Where the database stands now, and what it took.

    Args:
        name: of the database.
        applied: the steps that are in force.
        plan: what is left to do; None when the database could not be read at the end.
        problem: why it stopped short; a plan's refusals are in `plan`.
    """
    took = sum(result.duration for _, result in applied)
    did = f"{counted(len(applied), 'migration')} in {elapsed(took)}" if applied else ""
    if plan is None:
        return f"{name}: where it stands is not known; {did or 'no step was completed'}"
    if plan.in_sync and problem is None:
        return f"{name}: in sync at version {plan.current}, {did or 'nothing to do'}"
    if problem is None and not plan.refusals:
        left = f"{counted(len(plan.steps), 'step')} left to version {plan.target}"
        return f"{name}: at version {plan.current}, {left}; {did or 'nothing was changed'}"
    refused = problem is None or problem.reason.is_refusal
    way = f", on the way to {plan.target}" if plan.current != plan.target else ""
    # a step that failed leaves its traces in history and journal, so it is not true that nothing was changed
    done = did or ("" if refused else "no step was completed")
    return (
        f"{name}: {'refused' if refused else 'failed'} at version {plan.current}{way}{done and '; ' + done}"
    )
