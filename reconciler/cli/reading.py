"""Reading where databases stand, several at a time, without writing to any."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.assembly import Environment, utc_now
from reconciler.cli.subjects import Scope, Subject
from reconciler.model import (
    Database,
    DatabaseStatus,
    EnvironmentStatus,
    Observation,
    Plan,
    Problem,
    ProblemError,
    Reason,
    State,
)
from reconciler.operations import failed_before, plan_for
from reconciler.status import Facts, evaluate

_AT_ONCE = 8
"""Databases that are read at the same time: one that does not answer must not hold up the others."""
_EVENTS = 10
"""Events of the journal to look through for the last good step: no more than a few come after it while nothing runs."""
_EVENTS_OF_HOOKS = 1000
"""Events of the journal to look through for a failed hook: each try adds the backup that was made before it."""


async def read_environments(scope: Scope) -> tuple[EnvironmentStatus, ...]:
    """Where the databases of `scope` stand, by environment. One that cannot be read has a problem, and others go on."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def read(subject: Subject) -> DatabaseStatus:
        async with turns:
            return await _status(scope, subject)

    statuses = await asyncio.gather(*map(read, scope.subjects))
    if not scope.environments:
        return tuple(
            EnvironmentStatus(environment="", target=each.target, suspended=False, databases=(each,))
            for each in statuses
        )
    return tuple(_environment(each, statuses) for each in scope.environments)


def _environment(environment: Environment, statuses: Sequence[DatabaseStatus]) -> EnvironmentStatus:
    manifest = environment.manifest
    return EnvironmentStatus(
        environment=environment.name,
        target=manifest.target_version if manifest is not None else None,
        suspended=manifest is not None and manifest.suspend,
        problem=environment.problems[0] if environment.problems else None,
        problems=environment.problems,
        databases=tuple(each for each in statuses if each.environment == environment.name),
    )


async def _status(scope: Scope, subject: Subject) -> DatabaseStatus:
    facts = Facts(
        environment=subject.environment,
        database=subject.target.name,
        target=subject.declaration.target if subject.declaration is not None else None,
        observed_revision=str(scope.revision) if scope.revision is not None else "",
        suspended=subject.suspended,
    )
    now = utc_now()
    if subject.suspended:
        return replace(evaluate(facts, None, now), since=None, suspended_since=None)
    try:
        database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
        facts = await _look(facts, subject, database)
        status = evaluate(facts, None, now)
        since = await _since(scope, subject, database, facts, status)
    except ProblemError as error:
        facts = replace(facts, error=error.problem)
        return replace(evaluate(facts, None, now), since=None, failing_since=None)
    # the time of what was found, not of this look at it
    before = replace(
        status,
        since=since,
        failing_since=since if status.failing_since is not None else None,
        drift_since=since if status.drift_since is not None else None,
        conditions=tuple(replace(each, last_transition=since or now) for each in status.conditions),
    )
    settled = evaluate(facts, before, now)
    return settled if since is not None else replace(settled, since=None)


async def _look(facts: Facts, subject: Subject, database: Database) -> Facts:
    observation, plan = await _observe(subject, database)
    failure = observation.last_failure if plan is None else None
    error = failure.problem if failure is not None else None
    if plan is not None and plan.runnable and observation.holder is None:
        failed = await _failed_hook(subject, database)
        error = failed[0] if failed is not None else None
    catalog = subject.declaration.catalog if subject.declaration is not None else None
    return replace(
        facts,
        observation=observation,
        plan=plan,
        error=error,
        holder=observation.holder,
        work=await database.read_work() if observation.holder is not None else None,
        target_ordinal=catalog.ordinal(facts.target) if catalog and facts.target is not None else None,
        current_ordinal=catalog.ordinal(observation.current_version) if catalog else None,
    )


async def _failed_hook(subject: Subject, database: Database) -> tuple[Problem, datetime] | None:
    """The hook that the newest run failed at, and when; the journal alone tells of that."""
    if subject.declaration is None or not subject.declaration.hooks.before:
        return None
    return failed_before(subject.declaration.hooks, await database.journal(limit=_EVENTS_OF_HOOKS))


async def _observe(subject: Subject, database: Database) -> tuple[Observation, Plan | None]:
    if subject.declaration is None:
        return await database.observe(), None
    declared = subject.declaration
    if declared.claim is None:
        # a declaration without a manifest lets a person try again; here nobody does
        declared = replace(declared, retry=False)
    return await plan_for(database, declared, utc_now())


async def _since(
    scope: Scope, subject: Subject, database: Database, facts: Facts, status: DatabaseStatus
) -> datetime | None:
    """When the database came to where it stands, as far as it or git can tell."""
    observation = facts.observation
    assert observation is not None
    if status.state is State.MIGRATING:
        return status.running_since
    if status.problem is not None and observation.last_failure is not None:
        return observation.last_failure.failed_at
    if status.problem is not None and status.problem.reason is Reason.HOOK_FAILED:
        failed = await _failed_hook(subject, database)
        return failed[1] if failed is not None else None
    if status.state is State.WAITING:
        return observation.holder.since if observation.holder is not None else None
    if status.state in (State.IN_SYNC, None):
        return await _last_step(database, observation)
    change = await scope.last_change(subject)
    return change.committed_at if change is not None else None


async def _last_step(database: Database, observation: Observation) -> datetime | None:
    """When the last good step ended, up or down. An earlier tool's table has no journal, but says when it applied what."""
    for event in reversed(await database.journal(limit=_EVENTS)):
        if event.event == "finished" and event.outcome == "success":
            return event.at
    applied = await database.applied(observation.current_version) if observation.current_version else []
    return applied[-1].applied_at if applied else None
