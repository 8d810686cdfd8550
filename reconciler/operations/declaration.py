"""What git (or a command line) declares for one database: the input of every verb."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from reconciler.catalog import Catalog
from reconciler.manifest import Policy, Timeouts
from reconciler.model import Claim, Hooks, Observation, Plan, Reason, StoredDown
from reconciler.model.value import value
from reconciler.planner import PlanRequest, is_heavy, objects_needed, plan, stored_downs_needed

LOCK_TIMEOUT_REST = timedelta(minutes=30)
"""After a plan stalled on a table's lock it is tried again by itself when this has passed."""


@value(kw_only=True)
class Declaration:
    """What one database is to be.

    Args:
        target: the version to bring it to; 0 = nothing applied.
        catalog: the migrations of the revision.
        policy: what may be done to it.
        timeouts: in seconds.
        policy_digest: see `reconciler.manifest.Manifest.policy_digest`.
        claim: whom it is to belong to; None for a one-off command that has only a DSN.
        suspended: nothing may run.
        retry: an earlier failure does not stand against running, as when a person asks.
        hooks: commands to run around the steps of a plan.
        hooks_allowed: whoever started this process lets them run; if not, a plan with hooks is refused.
    """

    target: int
    catalog: Catalog
    policy: Policy
    timeouts: Timeouts
    policy_digest: str
    claim: Claim | None
    suspended: bool = False
    retry: bool = False
    hooks: Hooks = Hooks()
    hooks_allowed: bool = True


class Readable(Protocol):
    """What planning needs of a database; one that is locked offers it as well."""

    async def observe(self) -> Observation:
        """Read history, lock, claim and last failure."""
        ...

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`."""
        ...

    async def look_at(self, objects: Sequence[str]) -> dict[str, str]:
        """Return the state of each of `objects`."""
        ...

    @property
    def holds_lock(self) -> bool:
        """True when nobody else writes meanwhile."""
        ...


class _Planned(NamedTuple):
    observation: Observation
    declaration: Declaration
    rested: bool
    plan: Plan


_latest: WeakKeyDictionary[Readable, _Planned] = WeakKeyDictionary()
"""The latest plan of each database. Planning has no other input, so the very same objects give the same plan; for a quiet
database with thousands of rows that is most of a pass."""


async def plan_for(database: Readable, declaration: Declaration, now: datetime) -> tuple[Observation, Plan]:
    """Look at the database and decide what it takes to bring it to what is declared. Writes nothing.

    Raises:
        ProblemError: the database cannot be reached or read.
    """
    observation = await database.observe()
    failure = observation.last_failure
    rested = (
        failure is not None
        and failure.reason is Reason.LOCK_TIMEOUT
        and now - failure.failed_at >= LOCK_TIMEOUT_REST
    )
    latest = _latest.get(database)
    if (
        latest is not None
        and latest.observation is observation
        and latest.declaration is declaration
        and latest.rested is rested
    ):
        return observation, latest.plan

    # what somebody else is at work on is looked at when the lock is ours
    busy = observation.holder is not None and not database.holds_lock
    doubtful = [] if busy else objects_needed(observation)
    objects = await database.look_at(doubtful) if doubtful else {}

    def request(stored_downs: dict[int, StoredDown]) -> PlanRequest:
        return PlanRequest(
            catalog=declaration.catalog,
            observation=observation,
            target=declaration.target,
            policy=declaration.policy,
            timeouts=declaration.timeouts,
            policy_digest=declaration.policy_digest,
            claim=declaration.claim,
            stored_downs=stored_downs,
            retry=declaration.retry or rested,
            suspended=declaration.suspended,
            objects=None if busy else objects,
        )

    needed = stored_downs_needed(request({}))
    stored = await database.stored_downs(needed) if needed else {}
    complete = request(stored)
    # taking megabytes of SQL apart takes seconds, and other databases wait for this thread
    planned = await asyncio.to_thread(plan, complete) if is_heavy(complete) else plan(complete)
    if declaration.hooks and not declaration.suspended:
        planned = _with_hooks(planned, declaration)
    if not needed and not busy and not doubtful:
        _latest[database] = _Planned(observation, declaration, rested, planned)
    return observation, planned


def _with_hooks(planned: Plan, declaration: Declaration) -> Plan:
    """`planned` with the hooks that run around it, refused when they may not: also when nothing is to be done, so that this
    is noticed before something is."""
    from reconciler.operations.hooking import hooks_not_allowed

    refusals = planned.refusals
    if not declaration.hooks_allowed:
        environment = declaration.claim.environment if declaration.claim else "this environment"
        refusals = (*refusals, hooks_not_allowed(declaration.hooks, environment))
    return replace(planned, refusals=refusals, hooks=declaration.hooks if planned.steps else Hooks())
