"""What one revision asks for one database, and whether a newer one asks for something else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reconciler.model import Actor, Step
from reconciler.model.value import value
from reconciler.operations import Declaration


@value(kw_only=True)
class Assignment:
    """What one revision declares for one database, and who acts on it.

    Args:
        declaration: what it is to be.
        actor: who acts, with the revision and its author.
        revision: `branch@sha1:...`.
        target_since: commit time of the manifest's last change.
        declared_at: when this process learned of it, by the monotonic clock, in seconds.
    """

    declaration: Declaration
    actor: Actor
    revision: str
    target_since: datetime | None
    declared_at: float

    def changes(self, other: Assignment, steps: Sequence[Step]) -> bool:
        """True when `other` asks for something else: another target, policy or hooks, or another script for one of `steps`."""
        ours, theirs = self.declaration, other.declaration
        if (ours.target, ours.policy_digest, ours.suspended, ours.hooks) != (
            theirs.target,
            theirs.policy_digest,
            theirs.suspended,
            theirs.hooks,
        ):
            return True
        return any(_digest(ours, step.version) != _digest(theirs, step.version) for step in steps)


def _digest(declaration: Declaration, version: int) -> str | None:
    migration = declaration.catalog.get(version)
    return migration.checksum if migration is not None else None
