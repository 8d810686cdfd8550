"""Hooks: commands that a manifest wants run around the steps of a plan."""

from __future__ import annotations

from enum import StrEnum

from reconciler.model.problem import Problem
from reconciler.model.value import value


class HookMoment(StrEnum):
    """When a hook runs."""

    BEFORE = "before"
    """Under the lock, before the first step of a plan."""
    AFTER = "after"
    """When all steps of a plan are in force and durable."""
    ON_FAILURE = "on_failure"
    """When a step failed in a way that is not tried again by itself."""


@value(kw_only=True)
class Hook:
    """One command.

    Args:
        command: the program, absolute or to be found on PATH, and its arguments; no shell reads them.
        timeout: seconds it may take; 0 = for ever.
        name: what people call it; None for the program's own name.
    """

    command: tuple[str, ...]
    timeout: float = 600.0
    name: str | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or self.command[0].rpartition("/")[2] or self.command[0]


@value(kw_only=True)
class Hooks:
    """All hooks of an environment, those of each moment in the order they run."""

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.on_failure)

    def at(self, moment: HookMoment) -> tuple[Hook, ...]:
        """The hooks of one moment."""
        match moment:
            case HookMoment.BEFORE:
                return self.before
            case HookMoment.AFTER:
                return self.after
            case HookMoment.ON_FAILURE:
                return self.on_failure


@value(kw_only=True)
class HookOccasion:
    """What a hook is told of the run it belongs to.

    Args:
        moment: when it runs.
        environment: name of the environment.
        database: name of the database within it.
        from_version: where the plan began.
        target_version: where it leads.
        revision: the commit being applied; empty without one.
        problem: why the run failed; only of `on_failure`.
    """

    moment: HookMoment
    environment: str
    database: str
    from_version: int
    target_version: int
    revision: str
    problem: Problem | None = None


@value(kw_only=True)
class HookResult:
    """How a hook ended.

    Args:
        hook: which.
        occasion: of what.
        duration: seconds.
        artefact: what it said it made, the name of a backup say; empty when it said nothing.
        problem: why it failed; None when it did not.
    """

    hook: Hook
    occasion: HookOccasion
    duration: float
    artefact: str = ""
    problem: Problem | None = None
