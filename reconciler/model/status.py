"""The status of a database, an environment and the source, as the API, the metrics and the terminal show them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from reconciler.model.git import Revision
from reconciler.model.migration import Direction
from reconciler.model.problem import Problem
from reconciler.model.reasons import Condition, Reason
from reconciler.model.value import value
from reconciler.model.watching import Blocker, StepProgress


class State(StrEnum):
    """One word for where a database stands: the values of `reconciler_database_state`'s `state` label."""

    IN_SYNC = "in_sync"
    PENDING = "pending"
    MIGRATING = "migrating"
    FAILED = "failed"
    DRIFTED = "drifted"
    UNREACHABLE = "unreachable"
    SUSPENDED = "suspended"
    BLOCKED = "blocked"
    AHEAD = "ahead"
    WAITING = "waiting"


@value(kw_only=True)
class ConditionStatus:
    """One condition of a database."""

    type: Condition
    status: bool
    reason: Reason
    message: str
    revision: str
    last_transition: datetime


@value(kw_only=True)
class PendingStep:
    """A step of the current plan, in the short form the status shows."""

    version: int
    name: str
    direction: Direction
    source: str
    transactional: bool


@value(kw_only=True)
class Work:
    """A step that runs now.

    Args:
        step: which one.
        since: its start, UTC.
        progress: how far it has come; None when it is over soon, or the server counts nothing, or keeps that from us.
        blocked_by: who holds what it waits for.
    """

    step: PendingStep
    since: datetime | None = None
    progress: StepProgress | None = None
    blocked_by: tuple[Blocker, ...] = ()


@value(kw_only=True)
class LastStep:
    """The last good step in one direction."""

    direction: Direction
    version: int
    finished_at: datetime
    duration: float
    """Seconds."""


@value(kw_only=True)
class DatabaseStatus:
    """Everything known of one database of one environment. Times are UTC; None means never or unknown.

    Args:
        state: one word; None before the first look.
        target: the declared version; None when the manifest does not say.
        current: the version found; None when the database was never reached.
        target_ordinal: how many migrations of the catalog are at or below the target.
        current_ordinal: how many migrations of the catalog are at or below the current version.
        pending: the steps of the current plan.
        problem: what stands against it, the first one when there are several.
        problems: all of them.
        since: when it entered this state.
        failing_since: the first failure of the current run of failures, None when the last attempt worked.
        drift_since: when it left its declared state.
        target_since: commit time of the change that declared this target.
        holder: who else holds the lock, when that is waited for or a step of it runs.
        running_since: the start of the step that runs now.
        running: the step that runs now, here or by the process that holds the lock.
        progress: how far it has come; None when it is over soon, or the server counts nothing.
        blocked_by: who holds what it waits for.
        next_retry_at: when it will be tried again by itself.
    """

    environment: str
    database: str
    state: State | None
    target: int | None
    current: int | None
    target_ordinal: int | None = None
    current_ordinal: int | None = None
    pending: tuple[PendingStep, ...] = ()
    problem: Problem | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    conditions: tuple[ConditionStatus, ...] = ()
    engine: str = ""
    server_version: str = ""
    holder: str = ""
    holder_since: datetime | None = None
    observed_revision: str = ""
    target_revision: str = ""
    last_applied_revision: str = ""
    since: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    drift_since: datetime | None = None
    target_since: datetime | None = None
    suspended_since: datetime | None = None
    running: PendingStep | None = None
    running_since: datetime | None = None
    progress: StepProgress | None = None
    blocked_by: tuple[Blocker, ...] = ()
    last_reconcile_at: datetime | None = None
    last_success_at: datetime | None = None
    next_retry_at: datetime | None = None
    reachable: bool | None = None
    last_steps: tuple[LastStep, ...] = ()


@value(kw_only=True)
class SourceStatus:
    """What is known of the git repository. `repository` is shown without user or password."""

    repository: str
    branch: str
    revision: Revision | None = None
    last_success_at: datetime | None = None
    problem: Problem | None = None


@value(kw_only=True)
class EnvironmentStatus:
    """One manifest and its databases.

    Args:
        environment: its name.
        target: the declared version; None when the manifest cannot be read.
        suspended: nothing may run.
        problem: why the manifest cannot be used, the first one when there are several.
        problems: all of them, as far as they are known.
        databases: in the manifest's order.
    """

    environment: str
    target: int | None
    suspended: bool
    problem: Problem | None = None
    problems: tuple[Problem, ...] = ()
    databases: tuple[DatabaseStatus, ...] = ()


@value(kw_only=True)
class DaemonStatus:
    """One immutable reading of the whole daemon.

    Args:
        ready: manifests were read and each database was attempted once.
        queue_depth: keys that wait for a worker.
        queue_oldest: when the one that waits longest was put there.
    """

    source: SourceStatus
    environments: tuple[EnvironmentStatus, ...] = ()
    problems: tuple[Problem, ...] = ()
    ready: bool = False
    not_ready_because: str = ""
    started_at: datetime | None = None
    queue_depth: int = 0
    queue_oldest: datetime | None = None
    workers: int = 0
    workers_busy: int = 0
    resync_interval: float = 60.0
