"""What came of bringing a database somewhere, as text."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.plan import Plan, Step
from reconciler.model.protocols import StepResult
from reconciler.report.text import counted, elapsed, one_line


def step_line(name: str, step: Step, result: StepResult) -> str:
    """A step that is in force."""
    return f"{name}: {running_line(step)} [{step.source}] {elapsed(result.duration)}"


def running_line(step: Step) -> str:
    """A step, in the fewest words."""
    return f"{step.direction} {step.version} {one_line(step.name)}"


def outcome_line(name: str, applied: Sequence[tuple[Step, StepResult]], plan: Plan | None) -> str:
    """Where the database stands now, and what it took."""
    took = sum(result.duration for _, result in applied)
    did = f"{counted(len(applied), 'migration')} in {elapsed(took)}" if applied else "nothing was changed"
    if plan is None:
        return f"{name}: where it stands is not known; {did}"
    if plan.in_sync:
        if not applied:
            return f"{name}: in sync at version {plan.current}, nothing to do"
        return f"{name}: in sync at version {plan.current}, {did}"
    left = f"{counted(len(plan.steps), 'step')} left to version {plan.target}"
    return f"{name}: at version {plan.current}, {left}; {did}"
