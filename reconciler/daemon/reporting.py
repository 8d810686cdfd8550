"""What happens in the passes over one database, as the log, the metrics and the status board tell it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler.daemon.assignment import Assignment
from reconciler.daemon.board import Key
from reconciler.daemon.hooking import HookLog
from reconciler.daemon.interruption import what_became
from reconciler.daemon.surroundings import Surroundings
from reconciler.daemon.watching import WatchedStep
from reconciler.model import (
    Blocker,
    DatabaseStatus,
    ErrorClass,
    LastStep,
    LockHolder,
    Observation,
    Plan,
    Problem,
    Reason,
    Step,
    StepProgress,
    StepResult,
)
from reconciler.operations import Outcome
from reconciler.status import Facts, evaluate, pending_step

if TYPE_CHECKING:
    from reconciler.metrics.instruments import PassOutcome


class PassReport:
    """Hears what happens to one database, keeps it from pass to pass, and tells it. Decides nothing.

    It is the `reconciler.operations.Listener` of every plan that runs there.

    Args:
        key: environment and database.
        assignment: what is declared for it.
        shared: what every pass shares.
        on_answer: called when the database has answered and a plan is made.
    """

    def __init__(
        self, key: Key, assignment: Assignment, shared: Surroundings, on_answer: Callable[[], None]
    ) -> None:
        self._key = key
        self._shared = shared
        self._on_answer = on_answer
        self._names: dict[str, Any] = {"environment": key[0], "database": key[1]}
        self._acting = assignment
        self.held: tuple[Problem, ...] = ()
        """What is declared cannot be read, and why."""
        self.failures = 0
        """Temporary failures in a row."""
        self.remaining: list[Step] = []
        """Steps of the newest plan that are not in force yet."""
        self.running: Step | None = None
        self.writing = False
        """It holds the lock: ending now would end a step."""
        self.hooks = HookLog(shared.log, self._hook_changed)
        self._began = 0.0
        self._told: tuple[Reason, str] | None = None
        """The problem that was logged last and still stands."""
        self._step_failed = False
        self._running_since: datetime | None = None
        self._watched = WatchedStep(shared.log)
        self._last_steps: dict[str, LastStep] = {}
        self._last_applied_revision = ""
        self._holder: LockHolder | None = None
        self._observation: Observation | None = None
        self._plan: Plan | None = None
        self._engine = "postgresql"
        self._warned: set[Problem] = set()
        self._hook_warnings: tuple[Problem, ...] = ()
        """What hooks did wrong in the newest run of a plan, when its steps were done."""
        self._secret_warnings: tuple[Problem, ...] = ()
        """Secrets that are in use though they may be older than the newest."""

    # the passes

    def redeclared(self) -> None:
        """Something else is declared: it can be read, and its warnings are news."""
        self.held = ()
        self._warned.clear()

    def begin(self, assignment: Assignment) -> None:
        """A pass begins."""
        self._acting = assignment
        self._holder = None
        self.running = None
        self._step_failed = False
        self._observation = self._plan = None
        self._began = monotonic()

    def interrupted(self, step: Step | None, observation: Observation | None = None) -> None:
        """A pass was cancelled.

        Args:
            step: that was running.
            observation: the database as it was found afterwards; None when it could not be read.
        """
        if step is None:
            outcome = "no step was running"
            if self.hooks.interrupted:
                outcome = f"the hook {self.hooks.interrupted} was ended; {outcome}"
            self._shared.log.warning("interrupted", **self._names, outcome=outcome)
        else:
            became = what_became(step, observation)
            self._shared.log.warning("interrupted", **self._names, **_of(step), outcome=became)

    def over(self) -> None:
        """Nothing runs any more, however it ended."""
        self.hooks.clear()
        self.writing = False

    def applied(self, outcome: Outcome) -> None:
        """What came of running a plan."""
        if outcome.applied or outcome.problem is not None or outcome.warnings:
            self._hook_warnings = outcome.warnings
        self.running = None
        self._observation, self._plan = outcome.observation, outcome.plan
        if outcome.plan is not None and outcome.plan.in_sync and self._last_applied_revision == "":
            self._last_applied_revision = self._acting.revision

    def secrets(self, warnings: tuple[Problem, ...]) -> None:
        """Which secrets are in use though they may be older than the newest. Logged when it is news."""
        news = {problem.message for problem in warnings} - {each.message for each in self._secret_warnings}
        for warning in warnings:
            if warning.message in news:
                self._shared.log.warning("secret may be old", **self._names, problem=warning)
        self._secret_warnings = warnings

    def in_sync(self, steps: int) -> None:
        """Nothing is left to do, and `steps` were run in this pass. Logged when it is news."""
        acting = self._acting
        self.failures = 0
        if steps:
            self._last_applied_revision = acting.revision
            if acting.target_since is not None:
                waited = (self._shared.now() - acting.target_since).total_seconds()
                self._shared.metrics.merge_to_applied(self._key[0], waited)
        if steps or self._told is not None:
            self._shared.log.info(
                "in sync",
                **self._names,
                version=acting.declaration.target,
                revision=acting.revision,
                steps=steps,
            )
        self._told = None

    def stands(self, problem: Problem, *, delay: float | None = None) -> None:
        """A problem stands against the database. One log line and one count for each failed attempt at a step; of anything
        else, only once.

        Args:
            problem: what stands.
            delay: seconds until the next try, where that is worth telling.
        """
        self.publish(problem, delay=delay)
        locked = problem.reason is Reason.LOCK_HELD
        if locked:
            self._shared.metrics.lock_wait(self._key[0], "advisory", 0.0)
        mark = (problem.reason, problem.message)
        if self._told == mark:
            return
        self._told = mark
        self._shared.metrics.failure(*self._key, problem.reason)
        # whoever holds a lock says nothing of how long: looking again is no retry
        extra = {"retry_in": round(delay, 1)} if delay is not None and not locked else {}
        failure = problem.reason.error_class in (ErrorClass.PERMANENT, ErrorClass.AMBIGUOUS)
        write = self._shared.log.error if failure else self._shared.log.warning
        if locked or problem.reason is Reason.PENDING:
            write = self._shared.log.info
        event = "step failed" if self._step_failed else "stalled" if failure else "waiting"
        write(event, **self._names, problem=problem, **extra)

    def broke(self, problem: Problem, delay: float) -> None:
        """A pass ended by a mistake of ours, which is in the log already: what was known may be wrong now, and must not
        be shown as if it held.

        Args:
            problem: what stands now.
            delay: seconds until the next try.
        """
        self.running = None
        self._observation = self._plan = None
        self._shared.metrics.failure(*self._key, problem.reason)
        self.publish(problem, delay=delay)
        self._told = (problem.reason, problem.message)
        self._shared.board.attempted(self._key)

    def not_journalled(self, problem: Problem) -> None:
        """A refusal could not be written into the database's own journal."""
        self._shared.log.warning("refusal not journalled", **self._names, problem=problem)

    def end(self, result: PassOutcome) -> None:
        """A pass has ended."""
        self._shared.metrics.reconcile(self._key[0], result, monotonic() - self._began)
        self._shared.board.attempted(self._key)

    # what `apply` tells while it runs

    def planned(self, observation: Observation, plan: Plan) -> None:
        """A plan was made."""
        self._on_answer()
        self._observation, self._plan = observation, plan
        self._engine = observation.engine
        self.remaining = list(plan.steps)
        # a plan is made before the lock and again under it: each warning is news once
        for warning in plan.warnings if plan.runnable else ():
            if warning not in self._warned:
                self._warned.add(warning)
                self._shared.log.warning("plan warning", **self._names, problem=warning)

    def waiting(self, holder: LockHolder) -> None:
        """Somebody else holds the lock."""
        self._holder = holder

    def locked(self, seconds: float) -> None:
        """The lock is ours."""
        self.writing = True
        self._shared.metrics.lock_wait(self._key[0], "advisory", seconds)

    def started(self, step: Step) -> None:
        """A step is about to run."""
        self.running = step
        self._running_since = self._shared.now()
        self._watched.begin({**self._names, **_of(step)})
        # however this attempt ends is news, also when the one before ended alike
        self._told = None
        self.publish(None)
        self._shared.log.info("step started", **self._names, **_of(step))

    def finished(self, step: Step, result: StepResult) -> None:
        """A step is in force and durable."""
        at = self._shared.now()
        self.remaining = [other for other in self.remaining if other is not step]
        self._last_steps[step.direction.value] = LastStep(
            direction=step.direction, version=step.version, finished_at=at, duration=result.duration
        )
        self._shared.metrics.migration(*self._key, self._engine, step.direction, "success", result.duration)
        self._shared.log.info("step finished", **self._names, **_of(step), seconds=round(result.duration, 3))

    def failed(self, step: Step, problem: Problem) -> None:
        """A step failed. What stands against it is logged when the pass is concluded."""
        self._step_failed = True
        seconds = (self._shared.now() - self._running_since).total_seconds() if self._running_since else 0.0
        self._shared.metrics.migration(*self._key, self._engine, step.direction, "failed", seconds)

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """The step has come further."""
        self._watched.progressed(progress)
        self.publish(None)

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Others hold the tables that the step needs."""
        self._watched.blocked(blockers)
        self.publish(None)

    def waited(self, step: Step, seconds: float) -> None:
        """The step waited for tables, and waits no longer."""
        self._watched.waited(seconds)
        self._shared.metrics.lock_wait(self._key[0], "ddl", seconds)
        self.publish(None)

    def unwatched(self, step: Step, problem: Problem) -> None:
        """Nobody could look at the step; it runs on."""
        self._watched.unwatched(problem)

    def _hook_changed(self) -> None:
        """A hook begins or has ended: no step runs meanwhile, and how this attempt ends is news."""
        self.running = None
        self._told = None
        self.publish(None)

    # the status

    def publish(self, problem: Problem | None, *, delay: float | None = None) -> None:
        """Put the newest status on the board.

        Args:
            problem: what stands against the database.
            delay: seconds until the next try.
        """
        now = self._shared.now()
        acting, running, observation = self._acting, self.running, self._observation
        declaration = acting.declaration
        ordinal = declaration.catalog.ordinal
        facts = Facts(
            environment=self._key[0],
            database=self._key[1],
            target=declaration.target,
            target_since=acting.target_since,
            observed_revision=acting.revision,
            target_revision=acting.revision,
            last_applied_revision=self._last_applied_revision,
            suspended=declaration.suspended,
            manifest_problems=self.held,
            observation=observation,
            plan=self._plan,
            error=problem,
            holder=self._holder,
            running=pending_step(running) if running else None,
            running_since=self._running_since if running else None,
            hook=self.hooks.running,
            warnings=(*self._hook_warnings, *self._secret_warnings),
            progress=self._watched.progress if running else None,
            blocked_by=self._watched.blockers if running else (),
            target_ordinal=ordinal(declaration.target),
            current_ordinal=ordinal(observation.current_version) if observation else None,
            next_retry_at=now + timedelta(seconds=delay) if delay is not None else None,
            failures=self.failures,
        )
        status = evaluate(facts, self._shared.board.get(self._key), now)
        self._shared.board.put(self._key, replace(status, last_steps=tuple(self._last_steps.values())))


def _of(step: Step) -> dict[str, Any]:
    return {
        "version": step.version,
        "name": step.name,
        "direction": step.direction.value,
        "source": step.source.value,
    }


def first_status(key: Key, target: int | None) -> DatabaseStatus:
    """The status of a database that was not looked at yet."""
    return DatabaseStatus(environment=key[0], database=key[1], state=None, target=target, current=None)
