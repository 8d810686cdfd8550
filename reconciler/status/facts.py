"""What is known of one database at one moment."""

from __future__ import annotations

from datetime import datetime

from reconciler.model import Blocker, LockHolder, Observation, PendingStep, Plan, Problem, StepProgress, Work
from reconciler.model.value import value


@value(kw_only=True)
class Facts:
    """What is known of one database of one environment at one moment.

    Args:
        environment: its name.
        database: its name within the environment.
        target: the declared version, None when the manifest cannot be read.
        target_since: commit time of the change that declared it, UTC.
        observed_revision: `branch@sha1:...` of the commit that was acted on.
        target_revision: the commit that declared the target.
        last_applied_revision: the newest commit that was brought about in full; empty when not known.
        suspended: nothing may run, and nobody looks.
        manifest_problems: why the manifest cannot be used.
        source_problem: why git could not be asked for something newer.
        observation: the newest reading; None when the database was not reached.
        plan: what was decided from that reading, after whatever failed; None when the database was not reached.
        error: what made this pass stop short.
        holder: who else holds the lock.
        work: what that holder is at; None when it runs no step, or nobody looked.
        running: our own step that runs now.
        running_since: its start, UTC.
        progress: how far it has come.
        hook: the hook that runs now, in words; empty when none does.
        warnings: what went wrong beside the steps of the newest run.
        blocked_by: who holds what it waits for.
        target_ordinal: how many migrations are at or below the target.
        current_ordinal: how many migrations are at or below the version found.
        next_retry_at: when it is tried again by itself, UTC.
        failures: how many passes in a row have failed.
    """

    environment: str
    database: str
    target: int | None
    target_since: datetime | None = None
    observed_revision: str = ""
    target_revision: str = ""
    last_applied_revision: str = ""
    suspended: bool = False
    manifest_problems: tuple[Problem, ...] = ()
    source_problem: Problem | None = None
    observation: Observation | None = None
    plan: Plan | None = None
    error: Problem | None = None
    holder: LockHolder | None = None
    work: Work | None = None
    running: PendingStep | None = None
    running_since: datetime | None = None
    hook: str = ""
    warnings: tuple[Problem, ...] = ()
    progress: StepProgress | None = None
    blocked_by: tuple[Blocker, ...] = ()
    target_ordinal: int | None = None
    current_ordinal: int | None = None
    next_retry_at: datetime | None = None
    failures: int = 0
