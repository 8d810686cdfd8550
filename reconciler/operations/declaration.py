"""What git (or a command line) declares for one database: the input of every verb."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from reconciler.catalog import Catalog
from reconciler.manifest import Policy, Timeouts
from reconciler.model import Claim, Observation, Plan, Reason, StoredDown
from reconciler.model.value import value
from reconciler.planner import PlanRequest, is_heavy, plan, stored_downs_needed

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
        history_schema: where our tables live.
        retry: an earlier failure does not stand against running, as when a person asks.
    """

    target: int
    catalog: Catalog
    policy: Policy
    timeouts: Timeouts
    policy_digest: str
    claim: Claim | None
    suspended: bool = False
    history_schema: str = ""
    retry: bool = False


class Readable(Protocol):
    """What planning needs of a database; one that is locked offers it as well."""

    async def observe(self) -> Observation:
        """Read history, lock, claim and last failure."""
        ...

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`."""
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
            history_schema=declaration.history_schema,
        )

    needed = stored_downs_needed(request({}))
    stored = await database.stored_downs(needed) if needed else {}
    complete = request(stored)
    # taking megabytes of SQL apart takes seconds, and other databases wait for this thread
    planned = await asyncio.to_thread(plan, complete) if is_heavy(complete) else plan(complete)
    if not needed:
        _latest[database] = _Planned(observation, declaration, rested, planned)
    return observation, planned
