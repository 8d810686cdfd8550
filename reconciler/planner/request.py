"""All that a plan depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from reconciler.catalog import Catalog
from reconciler.manifest.values import Policy, Timeouts
from reconciler.model import Claim, Observation, StoredDown
from reconciler.model.value import value


@value(kw_only=True)
class PlanRequest:
    """All that a plan depends on.

    Args:
        catalog: the migrations at the revision to be applied.
        observation: the newest reading of the database.
        target: the declared version, 0 for nothing applied.
        policy: what the manifest allows.
        timeouts: the manifest's, for migrations that do not set their own.
        policy_digest: `Manifest.policy_digest`; part of the key a failure is filed under.
        claim: whom the database is to belong to; None for a one-off command that knows only a DSN.
        objects: the state of what `objects_needed` names; None while somebody else holds the lock, since it may change.
        stored_downs: the stored down scripts of (at least) the versions that `stored_downs_needed` names.
        retry: plan again what failed before, although nothing changed.
        suspended: the environment is suspended: nothing may run.
    """

    catalog: Catalog
    observation: Observation
    target: int
    policy: Policy
    timeouts: Timeouts
    policy_digest: str
    claim: Claim | None
    stored_downs: Mapping[int, StoredDown]
    retry: bool
    suspended: bool
    objects: Mapping[str, str] | None = field(default_factory=dict)
