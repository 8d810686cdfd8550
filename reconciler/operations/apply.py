"""Bringing one database to what is declared: look, decide, lock, decide again, run, record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Protocol

from reconciler.model import (
    Actor,
    Blocker,
    Database,
    Direction,
    HookRunner,
    LockHolder,
    Observation,
    Plan,
    Problem,
    ProblemError,
    Step,
    StepProgress,
    StepResult,
    StepWatcher,
    Writer,
)
from reconciler.model.value import value
from reconciler.operations.declaration import Declaration, plan_for
from reconciler.operations.hooking import HooksOfRun

_LONG_RUN = 20
"""Steps of a plan from which on commits need not wait one by one."""


class Listener(StepWatcher, Protocol):
    """Hears what happens while a plan runs. `finished` comes only when the step is durable."""

    def planned(self, observation: Observation, plan: Plan) -> None:
        """A plan was made, before the lock or under it."""

    def waiting(self, holder: LockHolder) -> None:
        """Somebody else holds the lock."""

    def locked(self, seconds: float) -> None:
        """The lock is ours, after waiting this long."""

    def started(self, step: Step) -> None:
        """A step is about to run."""

    def finished(self, step: Step, result: StepResult) -> None:
        """A step is in force and durable."""

    def failed(self, step: Step, problem: Problem) -> None:
        """A step failed."""


class Silent:
    """A listener that does not care."""

    def planned(self, observation: Observation, plan: Plan) -> None:
        """Ignored."""

    def waiting(self, holder: LockHolder) -> None:
        """Ignored."""

    def locked(self, seconds: float) -> None:
        """Ignored."""

    def started(self, step: Step) -> None:
        """Ignored."""

    def finished(self, step: Step, result: StepResult) -> None:
        """Ignored."""

    def failed(self, step: Step, problem: Problem) -> None:
        """Ignored."""

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """Ignored."""

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Ignored."""

    def waited(self, step: Step, seconds: float) -> None:
        """Ignored."""

    def unwatched(self, step: Step, problem: Problem) -> None:
        """Ignored."""


@value(kw_only=True)
class Outcome:
    """What came of bringing a database to what is declared. Partial success is a value, not an exception.

    Args:
        observation: the newest reading; None when the database could not be read in the end.
        plan: what is left to do; None when the database could not be read in the end.
        applied: the steps that are in force and durable, in the order they ran.
        problem: why it stopped short: the step's failure, or the lock or connection; None when nothing went wrong. A
            plan's refusals are in `plan`.
        superseded: stopped at a step boundary because something newer is declared.
        warnings: what went wrong beside the steps: hooks that failed when those were done, and what steps left behind.
    """

    observation: Observation | None = None
    plan: Plan | None = None
    applied: tuple[tuple[Step, StepResult], ...] = ()
    problem: Problem | None = None
    superseded: bool = False
    warnings: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Progress:
    """The steps run so far; those the server has not yet been made to keep wait to be announced."""

    listener: Listener
    applied: list[tuple[Step, StepResult]] = field(default_factory=list)
    waiting: list[tuple[Step, StepResult]] = field(default_factory=list)

    def announce(self) -> None:
        for step, result in self.waiting:
            self.listener.finished(step, result)
        self.applied += self.waiting
        self.waiting.clear()


def _never() -> bool:
    return False


async def _admit_all(observation: Observation, plan: Plan) -> Problem | None:
    return None


async def apply(
    database: Database,
    declaration: Declaration,
    actor: Actor,
    *,
    now: Callable[[], datetime],
    acquire_timeout: float,
    listener: Listener | None = None,
    superseded: Callable[[], bool] = _never,
    admit: Callable[[Observation, Plan], Awaitable[Problem | None]] = _admit_all,
    hooks: HookRunner | None = None,
) -> Outcome:
    """Bring `database` to what `declaration` says.

    When there is nothing to do, no lock is taken and nothing is written.

    Args:
        database: the database.
        declaration: what it is to be.
        actor: who asks, for lock and journal.
        now: the current time.
        acquire_timeout: seconds to wait for the lock; 0 tries once.
        listener: hears what happens.
        superseded: asked at each step boundary: True = stop here, something newer is declared.
        admit: asked before the lock is taken: a problem = do not run this plan now.
        hooks: runs the commands that the declaration wants run; None when nobody consented to that.

    Returns:
        the outcome, also when the database could not be reached or a step failed.
    """
    hears: Listener = listener if listener is not None else Silent()
    observation: Observation | None = None
    plan: Plan | None = None
    progress = _Progress(hears)
    problem: Problem | None = None
    stopped = False
    warnings: list[Problem] = []
    try:
        observation, plan = await plan_for(database, declaration, now())
        hears.planned(observation, plan)
        if not plan.runnable:
            return Outcome(observation=observation, plan=plan)
        problem = await admit(observation, plan)
        if problem is not None:
            return Outcome(observation=observation, plan=plan, problem=problem)
        began = monotonic()
        async with database.writer(
            actor, acquire_timeout=acquire_timeout, on_waiting=hears.waiting, watcher=hears
        ) as writer:
            hears.locked(monotonic() - began)
            observation, plan = await plan_for(writer, declaration, now())
            hears.planned(observation, plan)
            if plan.runnable:
                around = HooksOfRun(hooks, declaration, actor, plan)
                warnings = around.warnings
                try:
                    stopped = await _run(writer, plan, progress, superseded, around)
                except ProblemError as error:
                    problem = error.problem
                    await around.failed(writer, problem)
    except ProblemError as error:
        problem = error.problem
    try:
        observation, plan = await plan_for(database, declaration, now())
    except ProblemError as error:
        observation = plan = None
        problem = problem or error.problem
    return Outcome(
        observation=observation,
        plan=plan,
        applied=tuple(progress.applied),
        problem=problem,
        superseded=stopped,
        warnings=(*warnings, *(warning for _, result in progress.applied for warning in result.warnings)),
    )


async def _run(
    writer: Writer, plan: Plan, progress: _Progress, superseded: Callable[[], bool], around: HooksOfRun
) -> bool:
    """Run the steps of a plan. Returns True when it stopped because something newer is declared."""
    if plan.pins:
        await writer.pin(plan.pins)
    if plan.untouched:
        await writer.forget_downs(plan.untouched)
    if plan.steps and superseded():
        return True
    await around.before(writer)
    try:
        for index, step in enumerate(plan.steps):
            if superseded():
                return True
            progress.listener.started(step)
            try:
                following = plan.steps[index + 1 : index + 3]
                durable = not _may_lag(plan.steps, index)
                result = await writer.run(step, durable=durable, following=following)
            except ProblemError as error:
                progress.listener.failed(step, error.problem)
                raise
            progress.waiting.append((step, result))
            if result.durable:
                progress.announce()
    finally:
        if progress.waiting:
            await _settle(writer, progress)
    if len(progress.applied) == len(plan.steps):
        await around.after(writer)
    return False


def _may_lag(steps: Sequence[Step], index: int) -> bool:
    """True for a step whose commit need not wait for the server's log, since a later one of the same run will.

    The log keeps its order, so a server that crashes loses only a tail, which the next pass applies again. A plan of a few
    steps saves nothing by it: people watch it, and each step is announced when it is done.
    """
    if len(steps) < _LONG_RUN:
        return False
    following = steps[index + 1] if index + 1 < len(steps) else None
    return following is not None and all(
        step.transactional and step.direction is Direction.UP for step in (steps[index], following)
    )


async def _settle(writer: Writer, progress: _Progress) -> None:
    """Make what ran durable and announce it, even while this task is being cancelled."""
    try:
        await asyncio.shield(asyncio.ensure_future(writer.flush()))
    except ProblemError:
        # gone with the connection: whether these steps are in force is read again before anything else runs
        progress.waiting.clear()
        return
    progress.announce()
