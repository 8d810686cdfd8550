"""One pass over one database: look, decide, act if need be, say what came of it, and when to look again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from reconciler import backoff
from reconciler.controller import jittered
from reconciler.daemon.assignment import Assignment
from reconciler.daemon.board import Key
from reconciler.daemon.hooking import HookLog
from reconciler.daemon.interruption import what_became
from reconciler.daemon.rollout import EnvironmentRollout, Standing
from reconciler.daemon.surroundings import Surroundings
from reconciler.daemon.watching import WatchedStep
from reconciler.model import (
    Blocker,
    Database,
    DatabaseStatus,
    Direction,
    ErrorClass,
    HookRunner,
    LastStep,
    LockHolder,
    Observation,
    Plan,
    Problem,
    ProblemError,
    Reason,
    Step,
    StepProgress,
    StepResult,
)
from reconciler.operations import Outcome, apply
from reconciler.status import Facts, evaluate, pending_step

_TURN_PATIENCE = 2.0
"""Seconds that a database waits for an earlier one of its rollout that has not been looked at yet."""
_LOCKED_PAUSE = 2.0
"""Seconds until a database is looked at again whose lock another process holds."""
_CONNECT_PATIENCE = 0.5
"""Seconds after which a database that has not answered leaves its worker to others: it must not delay them."""
_STALLED_PAUSE = 5.0
"""Seconds until a stalled database is looked at again: a `reconciler retry` or a repair by hand shows only there."""
_LAST_LOOK_PATIENCE = 2.0
"""Seconds a database has to say what became of an interrupted step; the daemon is about to end."""


class DatabaseWorker:
    """Everything the daemon keeps of one database between passes.

    Args:
        key: environment and database.
        database: the database.
        assignment: what is declared for it.
        rollout: of its environment.
        shared: what every pass shares.
        hooks: makes what runs the hooks, given who listens; None when hooks may not run.
    """

    def __init__(
        self,
        key: Key,
        database: Database,
        assignment: Assignment,
        rollout: EnvironmentRollout,
        shared: Surroundings,
        hooks: Callable[[HookLog], HookRunner] | None = None,
    ) -> None:
        self.key = key
        self.database = database
        self.assignment: Assignment | None = assignment
        self._rollout = rollout
        self._shared = shared
        self._failures = 0
        self._reported: tuple[Reason, str] | None = None
        self._journalled: tuple[Reason, str] | None = None
        self._remaining: list[Step] = []
        self._running: Step | None = None
        self._step_failed = False
        self._running_since: datetime | None = None
        self._watched = WatchedStep(shared.log)
        self._last_steps: dict[str, LastStep] = {}
        self._last_applied_revision = ""
        self._holder: LockHolder | None = None
        self._observation: Observation | None = None
        self._plan: Plan | None = None
        self._engine = "postgresql"
        self._acting: Assignment = assignment
        self._held: tuple[Problem, ...] = ()
        self._warned: set[Problem] = set()
        self._answered = True
        self._unanswered: asyncio.TimerHandle | None = None
        self._hook_log = HookLog(shared.log, self._hook_changed)
        self._hooks = hooks(self._hook_log) if hooks is not None else None
        self._hook_warnings: tuple[Problem, ...] = ()
        """What hooks did wrong in the newest run of a plan, when its steps were done."""
        self.writing = False
        """It holds the lock: ending now would end a step."""

    def assign(self, assignment: Assignment | None) -> None:
        """Something else is declared, or (None) nothing any more. A running pass notices at its next step boundary."""
        self.assignment = assignment
        self._held = ()
        self._warned.clear()

    def hold(self, problems: tuple[Problem, ...]) -> None:
        """What is declared cannot be read: nothing runs until it can."""
        self._held = problems

    async def run(self) -> float | None:
        """One pass. Returns the seconds until the next, None for never by itself."""
        assignment = self.assignment
        if assignment is None:
            return None
        self._acting = assignment
        self._holder = None
        self._running = None
        self._step_failed = False
        self._observation = self._plan = None
        began = monotonic()
        if self._held:
            self._publish(self._held[0])
            self._report(self._held[0])
            self._finish(began, "skipped")
            return None
        if assignment.declaration.suspended:
            await self._let_go()
            self._rollout.settle(self.key[1], Standing.SETTLED)
            self._publish(None)
            self._finish(began, "skipped")
            return None
        outcome = await self._apply(assignment)
        self._running = None
        self._observation, self._plan = outcome.observation, outcome.plan
        if outcome.plan is not None and outcome.plan.in_sync and self._last_applied_revision == "":
            self._last_applied_revision = assignment.revision
        problem = outcome.problem or self._duplicate(outcome)
        delay = await self._conclude(outcome, problem)
        self._finish(began, self._result(outcome, problem))
        if not self._shared.may_keep(self.key):
            await self.database.close()
        return delay

    def broke(self, error: Exception, delay: float) -> None:
        """A pass ended by a mistake of ours: what was known before may be wrong now, and must not be shown as if it held.

        Args:
            error: what was raised.
            delay: seconds until the next try.
        """
        self._running = None
        self._observation = self._plan = None
        self._settle(Standing.STALLED)
        problem = Problem(
            reason=Reason.INTERNAL_ERROR,
            message=f"an error that nobody foresaw: {type(error).__name__}",
            remedy="the log has the details; please report them. It is tried again by itself",
        )
        self._shared.metrics.failure(*self.key, problem.reason)
        self._publish(problem, delay=delay)
        self._reported = (problem.reason, problem.message)
        self._shared.board.attempted(self.key)

    async def release(self) -> None:
        """The database is no longer declared: no SQL follows, the connection is closed."""
        await self._let_go()

    async def tell_interruption(self) -> None:
        """Say what became of the step that a cancelled pass was running, as the database has it."""
        step = self._running
        if step is None:
            self._shared.log.warning("interrupted", **self._names(), outcome="no step was running")
            return
        observation: Observation | None = None
        with contextlib.suppress(ProblemError, TimeoutError):
            async with asyncio.timeout(_LAST_LOOK_PATIENCE):
                observation = await self.database.observe()
        self._shared.log.warning(
            "interrupted", **self._names(), **_of(step), outcome=what_became(step, observation)
        )

    async def _let_go(self) -> None:
        """Close the connection. Whoever reached the same database has it alone now."""
        for other in self._shared.identities.forget(self.key):
            self._shared.mark(other, 0.0)
        await self.database.close()

    async def _apply(self, assignment: Assignment) -> Outcome:
        """Bring the database to what is declared; until it has answered, its worker is there for others."""
        patience = _CONNECT_PATIENCE if self._answered else 0.0
        self._unanswered = asyncio.get_running_loop().call_later(patience, self._shared.lend, self.key)
        try:
            outcome = await apply(
                self.database,
                assignment.declaration,
                assignment.actor,
                now=self._shared.now,
                acquire_timeout=0.0,
                listener=self,
                superseded=self._superseded,
                admit=self._admit,
                hooks=self._hooks,
            )
        finally:
            self._hook_log.clear()
            self._take_back()
            self.writing = False
        self._answered = outcome.observation is not None
        if outcome.applied or outcome.problem is not None or outcome.warnings:
            self._hook_warnings = outcome.warnings
        return outcome

    def _take_back(self) -> None:
        if self._unanswered is not None:
            self._unanswered.cancel()
            self._unanswered = None
        self._shared.take_back(self.key)

    # what `apply` tells while it runs

    def planned(self, observation: Observation, plan: Plan) -> None:
        """A plan was made."""
        self._take_back()
        self._observation, self._plan = observation, plan
        self._engine = observation.engine
        self._remaining = list(plan.steps)
        # a plan is made before the lock and again under it: each warning is news once
        for warning in plan.warnings if plan.runnable else ():
            if warning not in self._warned:
                self._warned.add(warning)
                self._shared.log.warning("plan warning", **self._names(), **_about(warning))

    def waiting(self, holder: LockHolder) -> None:
        """Somebody else holds the lock."""
        self._holder = holder

    def locked(self, seconds: float) -> None:
        """The lock is ours."""
        self.writing = True
        self._shared.metrics.lock_wait(self.key[0], "advisory", seconds)

    def started(self, step: Step) -> None:
        """A step is about to run."""
        self._running = step
        self._running_since = self._shared.now()
        self._watched.begin({**self._names(), **_of(step)})
        # however this attempt ends is news, also when the one before ended alike
        self._reported = None
        self._publish(None)
        self._shared.log.info("step started", **self._names(), **_of(step))

    def finished(self, step: Step, result: StepResult) -> None:
        """A step is in force and durable."""
        at = self._shared.now()
        self._remaining = [other for other in self._remaining if other is not step]
        self._last_steps[step.direction.value] = LastStep(
            direction=step.direction, version=step.version, finished_at=at, duration=result.duration
        )
        environment, database = self.key
        self._shared.metrics.migration(
            environment, database, self._engine, step.direction, "success", result.duration
        )
        self._shared.log.info(
            "step finished", **self._names(), **_of(step), seconds=round(result.duration, 3)
        )

    def failed(self, step: Step, problem: Problem) -> None:
        """A step failed. What stands against it is logged when the pass is concluded."""
        self._step_failed = True
        seconds = (self._shared.now() - self._running_since).total_seconds() if self._running_since else 0.0
        environment, database = self.key
        self._shared.metrics.migration(environment, database, self._engine, step.direction, "failed", seconds)

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """The step has come further."""
        self._watched.progressed(progress)
        self._publish(None)

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Others hold the tables that the step needs."""
        self._watched.blocked(blockers)
        self._publish(None)

    def waited(self, step: Step, seconds: float) -> None:
        """The step waited for tables, and waits no longer."""
        self._watched.waited(seconds)
        self._shared.metrics.lock_wait(self.key[0], "ddl", seconds)
        self._publish(None)

    def unwatched(self, step: Step, problem: Problem) -> None:
        """Nobody could look at the step; it runs on."""
        self._watched.unwatched(problem)

    def _hook_changed(self) -> None:
        """A hook begins or has ended: no step runs meanwhile, and how this attempt ends is news."""
        self._running = None
        self._reported = None
        self._publish(None)

    # deciding

    def _superseded(self) -> bool:
        newest = self.assignment
        return (
            self._shared.stopping()
            or bool(self._held)
            or newest is None
            or (newest is not self._acting and self._acting.changes(newest, self._remaining))
        )

    async def _admit(self, observation: Observation, plan: Plan) -> Problem | None:
        obstacle = self._same_database(observation) or await self._rewritten(observation, plan)
        if obstacle is not None:
            return obstacle
        impatient = monotonic() - self._acting.declared_at > _TURN_PATIENCE
        problem = self._rollout.admit(self.key[1], impatient=impatient)
        if problem is None:
            self._call_waiting()
        return problem

    async def _rewritten(self, observation: Observation, plan: Plan) -> Problem | None:
        """A branch that was rewritten may not take a database down unasked: what it no longer holds may only be lost."""
        declaration = self._acting.declaration
        downs = [step for step in plan.steps if step.direction is Direction.DOWN]
        applied_from = observation.rows[-1].git_revision if observation.rows else None
        if not downs or not applied_from or declaration.policy.approve_down_to == declaration.target:
            return None
        newest = self._acting.actor.git_revision
        if await self._shared.is_ancestor(applied_from, newest):
            return None
        return Problem(
            reason=Reason.HISTORY_REWRITTEN,
            message=f"commit {applied_from[:12]}, from which version {observation.rows[-1].version} was applied, is not part of the history "
            f"of {newest[:12]}, and going to version {declaration.target} would undo {len(downs)} migration{'s' if len(downs) > 1 else ''}",
            remedy=f"restore the branch, or confirm with `policy.approve_down_to: {declaration.target}`",
        )

    def _same_database(self, observation: Observation) -> Problem | None:
        others = self._shared.identities.note(self.key, observation.identity)
        if not others:
            return None
        for other in others:
            status = self._shared.board.get(other)
            if status is not None and (
                status.problem is None or status.problem.reason is not Reason.DUPLICATE_DATABASE
            ):
                self._shared.mark(other, 0.0)
        names = ", ".join("/".join(other) for other in others)
        return Problem(
            reason=Reason.DUPLICATE_DATABASE,
            message=f"{'/'.join(self.key)} and {names} reach the same database",
            remedy="give each environment a database of its own; none of them is changed until then",
        )

    def _duplicate(self, outcome: Outcome) -> Problem | None:
        return self._same_database(outcome.observation) if outcome.observation is not None else None

    async def _conclude(self, outcome: Outcome, problem: Problem | None) -> float | None:
        """Say what came of the pass; return when to look again."""
        plan = outcome.plan
        refusals = plan.refusals if plan is not None else ()
        stands = problem or (refusals[0] if refusals else None)
        resync = jittered(self._shared.resync, random.SystemRandom())
        if outcome.superseded:
            self._publish(None)
            self._settle(Standing.UNKNOWN)
            return 0.0
        if stands is None:
            await self._celebrate(outcome)
            return resync
        if stands.reason in (Reason.PENDING, Reason.ROLLOUT_STOPPED):
            self._publish(stands)
            self._report(stands)
            return _TURN_PATIENCE
        if stands.reason is Reason.LOCK_HELD:
            self._settle(Standing.SETTLED)
            self._publish(stands, delay=_LOCKED_PAUSE)
            self._report(stands)
            self._shared.metrics.lock_wait(self.key[0], "advisory", 0.0)
            return _LOCKED_PAUSE * (0.5 + random.random())
        if stands.reason.error_class is ErrorClass.TEMPORARY:
            self._failures += 1
            delay = backoff.delay(self._failures, random.random())
            self._settle(Standing.SETTLED if outcome.observation is None else Standing.STALLED)
            self._publish(stands, delay=delay)
            self._report(stands, retry_in=delay)
            return delay
        self._settle(Standing.STALLED)
        self._publish(stands)
        self._report(stands)
        await self._journal(stands, outcome)
        return min(resync, _STALLED_PAUSE)

    async def _celebrate(self, outcome: Outcome) -> None:
        self._failures = 0
        acting = self._acting
        if outcome.applied:
            self._last_applied_revision = acting.revision
            if acting.target_since is not None:
                waited = (self._shared.now() - acting.target_since).total_seconds()
                self._shared.metrics.merge_to_applied(self.key[0], waited)
        if outcome.applied or self._reported is not None:
            self._shared.log.info(
                "in sync",
                **self._names(),
                version=acting.declaration.target,
                revision=acting.revision,
                steps=len(outcome.applied),
            )
        self._reported = self._journalled = None
        self._settle(Standing.SETTLED)
        self._publish(None)

    async def _journal(self, problem: Problem, outcome: Outcome) -> None:
        """Keep a refusal in the database's own journal, once. A failed step is there already."""
        observation = outcome.observation
        mark = (problem.reason, problem.message)
        if (
            outcome.problem is not None
            or observation is None
            or not observation.initialised
            or observation.read_only
            or observation.claim != self._acting.declaration.claim
            or observation.foreign_history is not None
            or observation.last_failure is not None
            or self._journalled == mark
        ):
            return
        self._journalled = mark
        try:
            await self.database.record_refusal(self._acting.actor, problem)
        except ProblemError as error:
            self._journalled = None
            self._shared.log.warning("refusal not journalled", **self._names(), **_about(error.problem))

    def _settle(self, standing: Standing) -> None:
        if self._rollout.settle(self.key[1], standing):
            self._call_waiting()

    def _call_waiting(self) -> None:
        """It may be the turn of another: of the next one, or of one more beside this."""
        for name in self._rollout.waiting:
            self._shared.mark((self.key[0], name), 0.0)

    def _report(self, problem: Problem, retry_in: float | None = None) -> None:
        """One log line and one count for each failed attempt at a step; of anything else that stands, only once."""
        mark = (problem.reason, problem.message)
        if self._reported == mark:
            return
        self._reported = mark
        self._shared.metrics.failure(*self.key, problem.reason)
        extra = {"retry_in": round(retry_in, 1)} if retry_in is not None else {}
        failure = problem.reason.error_class in (ErrorClass.PERMANENT, ErrorClass.AMBIGUOUS)
        write = self._shared.log.error if failure else self._shared.log.warning
        if problem.reason in (Reason.PENDING, Reason.LOCK_HELD):
            write = self._shared.log.info
        event = "step failed" if self._step_failed else "stalled" if failure else "waiting"
        write(event, **self._names(), **_about(problem), **extra)

    def _result(self, outcome: Outcome, problem: Problem | None) -> Any:
        if problem is not None or (outcome.plan is not None and outcome.plan.refusals):
            return "failed"
        return "migrated" if outcome.applied else "in_sync"

    def _finish(self, began: float, result: Any) -> None:
        self._shared.metrics.reconcile(self.key[0], result, monotonic() - began)
        self._shared.board.attempted(self.key)

    def _names(self) -> dict[str, Any]:
        return {"environment": self.key[0], "database": self.key[1]}

    def _publish(
        self, problem: Problem | None, *, more: tuple[Problem, ...] = (), delay: float | None = None
    ) -> None:
        """Put the newest status on the board."""
        now = self._shared.now()
        acting = self._acting
        declaration = acting.declaration
        observation, plan = self._observation, self._plan
        facts = Facts(
            environment=self.key[0],
            database=self.key[1],
            target=declaration.target,
            target_since=acting.target_since,
            observed_revision=acting.revision,
            target_revision=acting.revision,
            last_applied_revision=self._last_applied_revision,
            suspended=declaration.suspended,
            manifest_problems=self._held,
            observation=observation,
            plan=plan,
            error=problem,
            holder=self._holder,
            running=pending_step(self._running) if self._running else None,
            running_since=self._running_since if self._running else None,
            hook=self._hook_log.running,
            warnings=self._hook_warnings,
            progress=self._watched.progress if self._running else None,
            blocked_by=self._watched.blockers if self._running else (),
            target_ordinal=declaration.catalog.ordinal(declaration.target),
            current_ordinal=declaration.catalog.ordinal(observation.current_version) if observation else None,
            next_retry_at=now + timedelta(seconds=delay) if delay is not None else None,
            failures=self._failures,
        )
        status = evaluate(facts, self._shared.board.get(self.key), now)
        self._shared.board.put(self.key, replace(status, last_steps=tuple(self._last_steps.values())))


def _of(step: Step) -> dict[str, Any]:
    return {
        "version": step.version,
        "name": step.name,
        "direction": step.direction.value,
        "source": step.source.value,
    }


def _about(problem: Problem) -> dict[str, Any]:
    return {"problem": problem}


def first_status(key: Key, target: int | None) -> DatabaseStatus:
    """The status of a database that was not looked at yet."""
    return DatabaseStatus(environment=key[0], database=key[1], state=None, target=target, current=None)
