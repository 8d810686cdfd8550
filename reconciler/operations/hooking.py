"""Hooks around the steps of one plan: which run when, what their failure means, and that the journal has them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from time import monotonic

from reconciler.model import (
    Actor,
    ErrorClass,
    Hook,
    HookMoment,
    HookOccasion,
    HookResult,
    HookRunner,
    Hooks,
    JournalEvent,
    Plan,
    Problem,
    ProblemError,
    Reason,
    Writer,
)
from reconciler.operations.declaration import Declaration

_FOR_GOOD = (ErrorClass.PERMANENT, ErrorClass.AMBIGUOUS)
_RAN = ("started", "finished", "repair", "baseline")
"""Events of the journal that come only once the hooks before them have done their work, or when a person has intervened."""
_LOST = (Reason.LOCK_LOST, Reason.CONNECTION_FAILED, Reason.TLS_FAILED)
"""What it means that the lock is no longer ours; another error of asking, a full disk say, does not mean that."""
_LOOK = 2.0
"""Seconds between two looks whether the lock is still ours while a hook runs: somebody else may be at work otherwise."""
_LAST_WORD = 1.0
"""Seconds that the journal has to be told of a hook that ended with us."""


class HooksOfRun:
    """The hooks of one run of a plan. All run while the lock is held.

    Args:
        runner: runs them; None when nobody consented to that, and then there must be none.
        declaration: says which there are.
        actor: who acts.
        plan: what they run around.
    """

    def __init__(self, runner: HookRunner | None, declaration: Declaration, actor: Actor, plan: Plan) -> None:
        self._runner = runner
        self._hooks = declaration.hooks if plan.steps else Hooks()
        self._claim = declaration.claim
        self._revision = actor.git_revision
        self._plan = plan
        self.warnings: list[Problem] = []
        """What went wrong without standing in the way: hooks that failed when the steps were done, or could not be
        journalled any more."""
        if self._hooks and runner is None:
            raise ValueError("a plan with hooks is to run, and nobody consented to running them")

    async def before(self, writer: Writer) -> None:
        """Run what comes before the first step.

        Raises:
            ProblemError: one of them failed, and nothing may run; or the lock was lost meanwhile.
        """
        await self._run(writer, HookMoment.BEFORE)

    async def after(self, writer: Writer) -> None:
        """Run what comes when all steps are in force and durable. Never raises a `ProblemError`."""
        await self._run_leniently(writer, HookMoment.AFTER)

    async def failed(self, writer: Writer, problem: Problem) -> None:
        """Run what comes after a failure, unless that is tried again by itself. Never raises a `ProblemError`."""
        if problem.reason.error_class in _FOR_GOOD:
            await self._run_leniently(writer, HookMoment.ON_FAILURE, problem)

    async def _run(self, writer: Writer, moment: HookMoment) -> None:
        for hook in self._hooks.at(moment):
            result = await self._run_one(writer, hook, self._occasion(moment))
            # fenced: it also tells whether the lock is still ours after what may have taken an hour
            await writer.record_hook(result)
            if result.problem is not None:
                raise ProblemError(result.problem)

    async def _run_leniently(
        self, writer: Writer, moment: HookMoment, problem: Problem | None = None
    ) -> None:
        for hook in self._hooks.at(moment):
            try:
                result = await self._run_one(writer, hook, self._occasion(moment, problem))
                if result.problem is not None:
                    self.warnings.append(result.problem)
                await writer.record_hook(result)
            except ProblemError as error:
                self.warnings.append(error.problem)

    async def _run_one(self, writer: Writer, hook: Hook, occasion: HookOccasion) -> HookResult:
        """Run a hook to its end, or until the lock is lost or this task is cancelled.

        Raises:
            ProblemError: the lock was lost, and the hook was ended.
        """
        assert self._runner is not None
        # the lock may be what the failure was about: whoever is to be told of it must be
        guarded = occasion.moment is not HookMoment.ON_FAILURE or await _lost(writer) is None
        stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        work = asyncio.ensure_future(self._runner.run(hook, occasion, stop=stop))
        try:
            look = monotonic() + _LOOK
            while not (await asyncio.wait((work,), timeout=max(0.0, look - monotonic())))[0]:
                lost = await _lost(writer) if guarded else None
                if lost is not None and not work.done():
                    stop.set_result(f"the lock was lost meanwhile: {lost.message}")
                    await asyncio.shield(work)
                    raise ProblemError(lost)
                look = monotonic() + _LOOK
            return work.result()
        except asyncio.CancelledError:
            if not stop.done():
                stop.set_result("this process was told to stop")
            try:
                result = await asyncio.shield(work)
            except asyncio.CancelledError:
                # told once more: not even SIGTERM is waited for
                work.cancel()
                raise
            with contextlib.suppress(ProblemError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(writer.record_hook(result)), _LAST_WORD)
            raise

    def _occasion(self, moment: HookMoment, problem: Problem | None = None) -> HookOccasion:
        return HookOccasion(
            moment=moment,
            environment=self._claim.environment if self._claim else "",
            database=self._claim.database if self._claim else "",
            from_version=self._plan.current,
            target_version=self._plan.target,
            revision=self._revision,
            problem=problem,
        )


def failed_before(hooks: Hooks, events: Sequence[JournalEvent]) -> tuple[Problem, datetime] | None:
    """What the journal tells of a hook that stopped the newest run before its first step.

    Args:
        hooks: those that are declared now.
        events: of the journal, oldest first.

    Returns:
        what failed and when; None when nothing did, or something ran since.
    """
    declared = {hook.label for hook in hooks.before}
    for event in reversed(events):
        name = event.details.get("name")
        if event.event in _RAN:
            return None
        if event.event != "hook" or name not in declared:
            continue
        way, _, told = (event.message or "").partition(": ")
        if event.outcome == "failed" and way.startswith(f"{HookMoment.BEFORE}, "):
            headline, *written = told.split("\n")
            problem = Problem(
                reason=Reason.HOOK_FAILED,
                message=": ".join((headline, *written[-1:])),
                remedy="run it by hand to see why; mend it, or its entry under `hooks:`; the daemon, or `up`, tries it again",
                detail="\n".join(written),
            )
            return problem, event.at
        declared.discard(name)
    return None


async def _lost(writer: Writer) -> Problem | None:
    """Why the lock is no longer ours; None when it is, as far as anybody can tell."""
    try:
        await writer.confirm_lock()
    except ProblemError as error:
        return error.problem if error.problem.reason in _LOST else None
    return None


def hooks_not_allowed(hooks: Hooks, environment: str) -> Problem:
    """A manifest has hooks, and whoever started this process did not consent to running them."""
    named = "; ".join(
        f"{moment}: {', '.join(hook.label for hook in hooks.at(moment))}"
        for moment in HookMoment
        if hooks.at(moment)
    )
    return Problem(
        reason=Reason.HOOKS_NOT_ALLOWED,
        message=f"the manifest of {environment} has hooks ({named}), and this process was started without --allow-hooks",
        remedy="start it with --allow-hooks if whoever can commit may run commands on this machine, "
        "or remove `hooks:` from the manifest",
    )
