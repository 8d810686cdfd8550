"""One pass over one database: look, decide, act if need be, say what came of it, and when to look again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING

from reconciler import backoff
from reconciler.controller import jittered
from reconciler.daemon.assignment import Assignment
from reconciler.daemon.board import Key
from reconciler.daemon.hooking import HookLog
from reconciler.daemon.reporting import PassReport
from reconciler.daemon.rollout import EnvironmentRollout, Standing
from reconciler.daemon.surroundings import Surroundings
from reconciler.model import (
    Database,
    Direction,
    ErrorClass,
    HookRunner,
    Observation,
    Plan,
    Problem,
    ProblemError,
    Reason,
)
from reconciler.operations import Outcome, apply

if TYPE_CHECKING:
    from reconciler.metrics.instruments import PassOutcome

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
        secret_warnings: which secrets of it are older than the newest may be.
    """

    def __init__(
        self,
        key: Key,
        database: Database,
        assignment: Assignment,
        rollout: EnvironmentRollout,
        shared: Surroundings,
        hooks: Callable[[HookLog], HookRunner] | None = None,
        secret_warnings: Callable[[], Awaitable[tuple[Problem, ...]]] | None = None,
    ) -> None:
        self.key = key
        self.database = database
        self.assignment: Assignment | None = assignment
        self._acting: Assignment = assignment
        """What the newest pass acts on."""
        self._rollout = rollout
        self._shared = shared
        self._journalled: tuple[Reason, str] | None = None
        self._answered = True
        self._unanswered: asyncio.TimerHandle | None = None
        self._report = PassReport(key, assignment, shared, on_answer=self._take_back)
        self._secret_warnings = secret_warnings
        self._hooks = hooks(self._report.hooks) if hooks is not None else None

    @property
    def writing(self) -> bool:
        """It holds the lock: ending now would end a step."""
        return self._report.writing

    def assign(self, assignment: Assignment | None) -> None:
        """Something else is declared, or (None) nothing any more. A running pass notices at its next step boundary."""
        self.assignment = assignment
        self._report.redeclared()

    def hold(self, problems: tuple[Problem, ...]) -> None:
        """What is declared cannot be read: nothing runs until it can."""
        self._report.held = problems

    async def run(self) -> float | None:
        """One pass. Returns the seconds until the next, None for never by itself."""
        assignment = self.assignment
        if assignment is None:
            return None
        self._acting, report = assignment, self._report
        report.begin(assignment)
        if report.held:
            report.stands(report.held[0])
            report.end("skipped")
            return None
        if assignment.declaration.suspended:
            await self._let_go()
            self._rollout.settle(self.key[1], Standing.SETTLED)
            report.publish(None)
            report.end("skipped")
            return None
        outcome = await self._apply(assignment)
        if self._secret_warnings is not None:
            report.secrets(await self._secret_warnings())
        report.applied(outcome)
        problem = outcome.problem or self._duplicate(outcome)
        delay = await self._conclude(outcome, problem)
        report.end(_result(outcome, problem))
        if not self._shared.may_keep(self.key):
            await self.database.close()
        return delay

    def broke(self, error: Exception, delay: float) -> None:
        """A pass ended by a mistake of ours: what was known before may be wrong now, and must not be shown as if it held.

        Args:
            error: what was raised.
            delay: seconds until the next try.
        """
        self._settle(Standing.STALLED)
        problem = Problem(
            reason=Reason.INTERNAL_ERROR,
            message=f"an error that nobody foresaw: {type(error).__name__}",
            remedy="the log has the details; please report them. It is tried again by itself",
        )
        self._report.broke(problem, delay)

    async def release(self) -> None:
        """The database is no longer declared: no SQL follows, the connection is closed."""
        await self._let_go()

    async def tell_interruption(self) -> None:
        """Say what became of the step that a cancelled pass was running, as the database has it."""
        step = self._report.running
        observation: Observation | None = None
        if step is not None:
            with contextlib.suppress(ProblemError, TimeoutError):
                async with asyncio.timeout(_LAST_LOOK_PATIENCE):
                    observation = await self.database.observe()
        self._report.interrupted(step, observation)

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
                listener=self._report,
                superseded=self._superseded,
                admit=self._admit,
                hooks=self._hooks,
            )
        finally:
            self._report.over()
            self._take_back()
        self._answered = outcome.observation is not None
        return outcome

    def _take_back(self) -> None:
        if self._unanswered is not None:
            self._unanswered.cancel()
            self._unanswered = None
        self._shared.take_back(self.key)

    # deciding

    def _superseded(self) -> bool:
        newest, report = self.assignment, self._report
        return (
            self._shared.stopping()
            or bool(report.held)
            or newest is None
            or (newest is not self._acting and self._acting.changes(newest, report.remaining))
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
        report = self._report
        if outcome.superseded:
            report.publish(None)
            self._settle(Standing.UNKNOWN)
            return 0.0
        if stands is None:
            report.in_sync(len(outcome.applied))
            self._journalled = None
            self._settle(Standing.SETTLED)
            report.publish(None)
            return resync
        if stands.reason in (Reason.PENDING, Reason.ROLLOUT_STOPPED):
            report.stands(stands)
            return _TURN_PATIENCE
        if stands.reason is Reason.LOCK_HELD:
            self._settle(Standing.SETTLED)
            report.stands(stands, delay=_LOCKED_PAUSE)
            return _LOCKED_PAUSE * (0.5 + random.random())
        if stands.reason.error_class is ErrorClass.TEMPORARY:
            report.failures += 1
            delay = backoff.delay(report.failures, random.random())
            self._settle(Standing.SETTLED if outcome.observation is None else Standing.STALLED)
            report.stands(stands, delay=delay)
            return delay
        self._settle(Standing.STALLED)
        report.stands(stands)
        await self._journal(stands, outcome)
        return min(resync, _STALLED_PAUSE)

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
            or observation.unwritable is not None
            or observation.last_failure is not None
            or self._journalled == mark
        ):
            return
        self._journalled = mark
        try:
            await self.database.record_refusal(self._acting.actor, problem)
        except ProblemError as error:
            self._journalled = None
            self._report.not_journalled(error.problem)

    def _settle(self, standing: Standing) -> None:
        if self._rollout.settle(self.key[1], standing):
            self._call_waiting()

    def _call_waiting(self) -> None:
        """It may be the turn of another: of the next one, or of one more beside this."""
        for name in self._rollout.waiting:
            self._shared.mark((self.key[0], name), 0.0)


def _result(outcome: Outcome, problem: Problem | None) -> PassOutcome:
    if problem is not None or (outcome.plan is not None and outcome.plan.refusals):
        return "failed"
    return "migrated" if outcome.applied else "in_sync"
