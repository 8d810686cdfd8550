"""The gauges that say where every database stands, computed from one reading of the daemon.

A timestamp of 0 means "none" or "never"; a series that is absent means "not known". Which of the two a gauge uses follows
from its alert: `time() - 0` must fire where never having happened is the fault, and must not where nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from reconciler.model import DaemonStatus, DatabaseStatus, LastStep, State

_DATABASE = ("environment", "database")
_SHORT_REVISION = 12


class _Gauge:
    """One family under construction."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = _DATABASE) -> None:
        self.family = GaugeMetricFamily(f"reconciler_{name}", documentation, labels=labels)

    def add(self, labels: Sequence[str], value: float | bool | None) -> None:
        """Add a sample; none when the value is not known."""
        if value is not None:
            self.family.add_metric(labels, float(value))


def state_families(status: DaemonStatus) -> Iterator[Metric]:
    """Every state gauge of the catalogue, as `status` has it. Each family is given even when it has no sample."""
    databases = [database for environment in status.environments for database in environment.databases]
    yield from _version_families(databases)
    yield from _condition_families(databases)
    yield from _last_step_families(databases)
    yield from _configuration_families(status)
    yield from _source_families(status)
    yield from _queue_families(status)


def _version_families(databases: Sequence[DatabaseStatus]) -> Iterator[Metric]:
    target = _Gauge("target_version", "Version that git declares.")
    current = _Gauge("current_version", "Version found in the database; absent until it was reached.")
    target_ordinal = _Gauge(
        "target_version_ordinal", "How many migrations there are up to the declared version."
    )
    current_ordinal = _Gauge(
        "current_version_ordinal", "How many migrations there are up to the version found."
    )
    pending = _Gauge("pending_migrations", "Steps, up or down, that the current plan holds.")
    info = _Gauge(
        "database_info",
        "Always 1. Versions as text, and the revision that declares the target.",
        (*_DATABASE, "engine", "server_version", "target", "current", "target_revision"),
    )
    for database in databases:
        labels = _labels(database)
        target.add(labels, database.target)
        current.add(labels, database.current)
        target_ordinal.add(labels, database.target_ordinal)
        current_ordinal.add(labels, database.current_ordinal)
        pending.add(labels, len(database.pending))
        texts = (
            database.engine,
            database.server_version,
            _as_text(database.target),
            _as_text(database.current),
            _short(database.target_revision),
        )
        info.add((*labels, *texts), 1)
    for gauge in (target, current, target_ordinal, current_ordinal, pending, info):
        yield gauge.family


def _condition_families(databases: Sequence[DatabaseStatus]) -> Iterator[Metric]:
    state = _Gauge(
        "database_state", "1 for the state the database is in, 0 for the others.", (*_DATABASE, "state")
    )
    up = _Gauge("database_up", "1 when the last connection worked, 0 when not; absent before the first.")
    target_since = _Gauge(
        "target_since_timestamp_seconds", "When the declared version was committed; absent when not known."
    )
    drift_since = _Gauge("drift_since_timestamp_seconds", "When it left its declared state; 0 = it has not.")
    failing_since = _Gauge(
        "failing_since_timestamp_seconds",
        "First failure of the current run of failures, also during retries; 0 = the last attempt worked.",
    )
    suspended_since = _Gauge("suspended_since_timestamp_seconds", "When it was suspended; 0 = it is not.")
    started = _Gauge("migration_started_timestamp_seconds", "When the running step began; 0 = none runs.")
    reconciled = _Gauge("last_reconcile_timestamp_seconds", "When it was last looked at; 0 = never.")
    succeeded = _Gauge(
        "last_reconcile_success_timestamp_seconds", "When it was last found or made in sync; 0 = never."
    )
    for database in databases:
        labels = _labels(database)
        for candidate in State:
            state.add((*labels, candidate.value), database.state is candidate)
        up.add(labels, database.reachable)
        if database.target_since is not None:
            target_since.add(labels, _timestamp(database.target_since))
        drift_since.add(labels, _timestamp(database.drift_since))
        failing_since.add(labels, _timestamp(database.failing_since))
        suspended_since.add(labels, _timestamp(database.suspended_since))
        started.add(labels, _timestamp(database.running_since))
        reconciled.add(labels, _timestamp(database.last_reconcile_at))
        succeeded.add(labels, _timestamp(database.last_success_at))
    for gauge in (
        state, up, target_since, drift_since, failing_since, suspended_since, started, reconciled, succeeded
    ):  # fmt: skip
        yield gauge.family


def _last_step_families(databases: Sequence[DatabaseStatus]) -> Iterator[Metric]:
    finished = _Gauge(
        "last_migration_timestamp_seconds",
        "When the last good step of a direction ended, and which version it was.",
        (*_DATABASE, "direction", "version"),
    )
    duration = _Gauge(
        "last_migration_duration_seconds",
        "How long the last good step of a direction took.",
        (*_DATABASE, "direction"),
    )
    for database in databases:
        labels = _labels(database)
        for step in _newest_by_direction(database.last_steps):
            finished.add((*labels, step.direction.value, str(step.version)), _timestamp(step.finished_at))
            duration.add((*labels, step.direction.value), step.duration)
    yield finished.family
    yield duration.family


def _configuration_families(status: DaemonStatus) -> Iterator[Metric]:
    errors = _Gauge(
        "config_errors",
        "What git declares and does not load. Without environment: what concerns all of them.",
        ("environment",),
    )
    errors.add(("",), len(status.problems))
    for environment in status.environments:
        errors.add((environment.environment,), environment.problem is not None)
    interval = _Gauge("reconcile_interval_seconds", "How often every database is looked at, unasked.", ())
    interval.add((), status.resync_interval)
    yield errors.family
    yield interval.family


def _source_families(status: DaemonStatus) -> Iterator[Metric]:
    source = status.source
    fetched = _Gauge(
        "git_last_fetch_success_timestamp_seconds",
        "When the repository was last read; 0 = never.",
        ("repository",),
    )
    committed = _Gauge(
        "git_head_commit_timestamp_seconds", "Commit time of the revision that is acted on.", ("repository",)
    )
    info = _Gauge(
        "git_head_info", "Always 1. The revision that is acted on.", ("repository", "branch", "revision")
    )
    fetched.add((source.repository,), _timestamp(source.last_success_at))
    if source.revision is not None:
        committed.add((source.repository,), _timestamp(source.revision.committed_at))
        info.add((source.repository, source.branch, source.revision.short), 1)
    for gauge in (fetched, committed, info):
        yield gauge.family


def _queue_families(status: DaemonStatus) -> Iterator[Metric]:
    values = (
        ("queue_depth", "Databases that are due and wait for a worker.", status.queue_depth),
        (
            "queue_oldest_timestamp_seconds",
            "Since when the longest overdue one waits; 0 = none does.",
            _timestamp(status.queue_oldest),
        ),
        ("workers", "How many databases can be worked on at a time.", status.workers),
        ("workers_busy", "How many databases are being worked on.", status.workers_busy),
    )
    for name, documentation, value in values:
        gauge = _Gauge(name, documentation, ())
        gauge.add((), value)
        yield gauge.family


def _labels(database: DatabaseStatus) -> tuple[str, str]:
    return database.environment, database.database


def _newest_by_direction(steps: Sequence[LastStep]) -> list[LastStep]:
    newest = {step.direction: step for step in sorted(steps, key=lambda step: _timestamp(step.finished_at))}
    return list(newest.values())


def _timestamp(instant: datetime | None) -> float:
    """Seconds since the epoch, 0 for None. An instant without time zone is UTC, as our tables store it."""
    if instant is None:
        return 0.0
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def _as_text(version: int | None) -> str:
    return "" if version is None else str(version)


def _short(revision: str) -> str:
    """Twelve hex digits of `branch@sha1:commit` or of a bare commit."""
    return revision.rpartition(":")[2][:_SHORT_REVISION]
