"""What `up`, `down` and `plan` share: which version is asked for, may it be, and bringing databases there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.assembly import utc_now
from reconciler.cli.exits import Exit, worst
from reconciler.cli.judging import exit_of
from reconciler.cli.progress import Progress
from reconciler.cli.subjects import Scope, Subject
from reconciler.manifest import OnFailure
from reconciler.model import Direction, Observation, Plan, Problem, ProblemError, Reason, Step, StepResult
from reconciler.model.value import value
from reconciler.operations import Declaration, apply, plan_for


@value(kw_only=True)
class Result:
    """What came of one database.

    Args:
        subject: the database.
        plan: what is left to do; None when it was not reached.
        applied: the steps that are in force.
        problem: why it stopped short; a plan's refusals are in `plan`.
        warnings: what went wrong beside the steps.
    """

    subject: Subject
    plan: Plan | None = None
    applied: tuple[tuple[Step, StepResult], ...] = ()
    problem: Problem | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def exit(self) -> Exit:
        """The exit code of this database."""
        return exit_of(self.plan, self.problem)


def exit_of_results(results: Sequence[Result]) -> Exit:
    """The exit code of the command."""
    return worst(result.exit for result in results)


def broken_environments(scope: Scope) -> tuple[Problem, ...]:
    """Why manifests that were asked for cannot be read."""
    return tuple(problem for environment in scope.environments for problem in environment.problems)


def asked_for(subject: Subject, version: int | None, *, changes: bool) -> Declaration | Problem:
    """What `subject` is to be, or why that may not be asked for.

    Args:
        subject: the database.
        version: as given with `--version`; None for the declared one.
        changes: the command changes the database: a running daemon would undo what git does not say.
    """
    declared = subject.declaration
    assert declared is not None
    if version is None:
        return _suspended(subject) if declared.suspended else declared
    if changes and subject.manifest and version != declared.target and not declared.suspended:
        return Problem(
            reason=Reason.VERSION_NOT_DECLARED,
            message=(
                f"{subject.manifest} declares version {declared.target} for {subject.environment}, not {version}: "
                "a running daemon would undo this at once"
            ),
            remedy=(
                f"set target_version: {version} in {subject.manifest} and commit it; in an emergency, suspend the "
                "environment there first (suspend: true)"
            ),
        )
    return replace(declared, target=version, suspended=False)


async def look(scope: Scope, subject: Subject, declaration: Declaration) -> Result:
    """Plan and run nothing."""
    try:
        database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
        _, plan = await plan_for(database, declaration, utc_now())
    except ProblemError as error:
        return Result(subject=subject, problem=error.problem)
    return Result(subject=subject, plan=plan)


async def migrate(
    scope: Scope,
    verb: Direction,
    version: int | None,
    progress: Progress,
    *,
    dry_run: bool,
    allow_hooks: bool = False,
    show_queries: bool = False,
) -> list[Result]:
    """Bring the databases of `scope`, one after the other, to a version.

    After a failure the others of the environment are left alone where `rollout.on_failure` says stop.

    Args:
        scope: what to act on.
        verb: the only direction that may be gone.
        version: where to; None for what is declared.
        progress: hears what happens.
        dry_run: plan only.
        allow_hooks: run the hooks of manifests; without it a manifest that has some is refused.
        show_queries: show the text of queries that are in the way.
    """
    results: list[Result] = []
    stopped_by: dict[str, Subject] = {}
    for subject in scope.subjects:
        culprit = stopped_by.get(subject.environment)
        if culprit is not None and not dry_run:
            result = Result(subject=subject, problem=_rollout_stopped(culprit))
        else:
            result = await _migrate_one(
                scope,
                subject,
                verb,
                version,
                progress,
                dry_run=dry_run,
                allow_hooks=allow_hooks,
                show_queries=show_queries,
            )
        results.append(result)
        if result.exit is not Exit.DONE and _stops_rollout(scope, subject):
            stopped_by.setdefault(subject.environment, subject)
    return results


async def _migrate_one(
    scope: Scope,
    subject: Subject,
    verb: Direction,
    version: int | None,
    progress: Progress,
    *,
    dry_run: bool,
    allow_hooks: bool,
    show_queries: bool,
) -> Result:
    declaration = asked_for(subject, version, changes=True)
    if isinstance(declaration, Problem):
        return Result(subject=subject, problem=declaration)
    # a person asks for this attempt, so an earlier failure does not stand against it
    declaration = replace(declaration, retry=True, hooks_allowed=allow_hooks)
    first = await look(scope, subject, declaration)
    if first.plan is None or not first.plan.runnable:
        return first
    obstacle = _wrong_way(first.plan, verb)
    if obstacle is not None or dry_run:
        return replace(first, problem=obstacle)
    try:
        actor = await scope.actor(verb.value, subject)
    except ProblemError as error:
        return replace(first, problem=error.problem)
    database = scope.workspace.open(
        subject.environment, subject.target, subject.timeouts, show_queries=show_queries
    )

    async def admit(_: Observation, plan: Plan) -> Problem | None:
        return _wrong_way(plan, verb)

    hooks = None
    if allow_hooks and declaration.hooks:
        from reconciler.cli.hooking import HookNotes

        notes = HookNotes(subject.name, silent=progress.silent)
        hooks = scope.workspace.hooks(subject.environment, subject.target, subject.timeouts, notes)
    progress.begin(subject.name)
    outcome = await apply(
        database,
        declaration,
        actor,
        now=utc_now,
        acquire_timeout=subject.timeouts.acquire,
        listener=progress,
        # the plan made under the lock may differ from the one that was admitted
        superseded=lambda: _wrong_way(progress.plan, verb) is not None,
        admit=admit,
        hooks=hooks,
    )
    progress.end()
    problem = outcome.problem
    if problem is None and outcome.superseded and outcome.plan is not None:
        problem = _wrong_way(outcome.plan, verb)
    return Result(
        subject=subject,
        plan=outcome.plan,
        applied=outcome.applied,
        problem=problem,
        warnings=outcome.warnings,
    )


def _wrong_way(plan: Plan | None, verb: Direction) -> Problem | None:
    """Why `plan` is not what `verb` means: `up` takes nothing back, and `down` ends no higher than it began."""
    if plan is None or not plan.steps:
        return None
    downs = [step for step in plan.steps if step.direction is Direction.DOWN]
    if verb is Direction.UP and downs:
        return Problem(
            reason=Reason.DOWN_DENIED,
            message=(
                f"the database is at version {plan.current}, above version {plan.target}: going there takes back "
                f"{len(downs)} migration{'s' if len(downs) > 1 else ''}, which `up` does not do"
            ),
            remedy=f"run `reconciler down --version {plan.target}` if that is meant",
        )
    if verb is Direction.DOWN and not downs:
        return Problem(
            reason=Reason.PENDING,
            message=f"nothing above version {plan.target} is applied: the database is at {plan.current}, and going there is up",
            remedy=f"run `reconciler up --version {plan.target}` if that is meant",
        )
    return None


def _suspended(subject: Subject) -> Problem:
    return Problem(
        reason=Reason.SUSPENDED,
        message=f"the environment {subject.environment} is suspended: nothing runs, and nobody connects to it",
        remedy=(
            f"remove `suspend: true` from {subject.manifest}; in an emergency, say with --version where it is to go"
        ),
    )


def _stops_rollout(scope: Scope, subject: Subject) -> bool:
    manifests = {each.name: each.manifest for each in scope.environments}
    manifest = manifests.get(subject.environment)
    return manifest is not None and manifest.rollout.on_failure is OnFailure.STOP


def _rollout_stopped(culprit: Subject) -> Problem:
    return Problem(
        reason=Reason.ROLLOUT_STOPPED,
        message=f"left alone, since {culprit.name} did not get there and rollout.on_failure is stop",
        remedy=f"see to {culprit.name}, or choose this database alone with --database",
    )
