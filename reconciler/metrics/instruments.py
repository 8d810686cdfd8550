"""Counters and histograms: what happened, counted as it happens."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reconciler import __version__
from reconciler.metrics.state import state_families
from reconciler.model import DaemonStatus, Direction, Reason

StepOutcome = Literal["success", "failed"]
PassOutcome = Literal["in_sync", "migrated", "failed", "skipped"]
FetchOutcome = Literal["success", "failed"]
LockKind = Literal["advisory", "ddl"]

FAILURE_REASONS = tuple(sorted({reason.metric_label for reason in Reason} - {""}))

_STEP_OUTCOMES: tuple[StepOutcome, ...] = ("success", "failed")
_PASS_OUTCOMES: tuple[PassOutcome, ...] = ("in_sync", "migrated", "failed", "skipped")
_FETCH_OUTCOMES: tuple[FetchOutcome, ...] = ("success", "failed")
_LOCK_KINDS: tuple[LockKind, ...] = ("advisory", "ddl")
_ENGINES = ("postgresql",)
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEVEL_ALIASES = {"warn": "warning", "exception": "error", "fatal": "critical"}

_MIGRATION_SECONDS = (
    0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400
)  # fmt: skip
_RECONCILE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LOCK_WAIT_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_FETCH_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MERGE_TO_APPLIED_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 14400, 86400)

_switch_off_created_series: Callable[[], None] = disable_created_metrics
"""A switch of the whole process, the only one the client has. `_created` would be a third of our series."""


class Metrics:
    """All metrics of one daemon, in a registry of its own.

    What happens to a database or an environment that is not declared (any more) is not counted: the step of a released
    database that still runs must not bring its series back.

    Args:
        registry: where to register; a new one by default.
        revision: the commit this program was built from, if that is known.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, revision: str = "") -> None:
        _switch_off_created_series()
        self.registry = CollectorRegistry() if registry is None else registry
        self._declared: dict[str, set[str]] = {}
        self._engines = set(_ENGINES)

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"reconciler_{name}", documentation, labels, registry=self.registry)

        def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"reconciler_{name}", documentation, labels, buckets=buckets, registry=self.registry
            )

        self._migrations = counter(
            "migrations_total", "Steps that ended.", "environment", "database", "direction", "result"
        )
        self._failures = counter(
            "migration_failures_total", "Failures and refusals by cause.", "environment", "database", "reason"
        )
        self._migration_duration = histogram(
            "migration_duration_seconds",
            "How long steps took, failed ones included.",
            _MIGRATION_SECONDS,
            "environment",
            "engine",
            "direction",
        )
        self._reconciles = counter(
            "reconciles_total", "Passes over a database by outcome.", "environment", "result"
        )
        self._reconcile_duration = histogram(
            "reconcile_duration_seconds", "How long passes took.", _RECONCILE_SECONDS, "environment"
        )
        self._lock_wait = histogram(
            "lock_wait_seconds", "How long a lock was waited for.", _LOCK_WAIT_SECONDS, "environment", "lock"
        )
        self._merge_to_applied = histogram(
            "merge_to_applied_seconds",
            "From the commit that declared a version until it was in force.",
            _MERGE_TO_APPLIED_SECONDS,
            "environment",
        )
        self._fetches = counter("git_fetches_total", "Readings of the repository.", "repository", "result")
        self._fetch_duration = histogram(
            "git_fetch_duration_seconds",
            "How long readings of the repository took.",
            _FETCH_SECONDS,
            "repository",
        )
        self._log_messages = counter("log_messages_total", "Log messages by level.", "level")
        for level in _LEVELS:
            self._log_messages.labels(level)
        build = Gauge(
            "reconciler_build_info",
            "Always 1. What is running.",
            ("version", "revision", "python_version"),
            registry=self.registry,
        )
        build.labels(__version__, revision, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def declare(self, environment: str, database: str) -> None:
        """Create every series of a database at 0. Does nothing to one that is declared already."""
        databases = self._declared.setdefault(environment, set())
        if not databases:
            self._declare_environment(environment)
        if database in databases:
            return
        databases.add(database)
        for direction, result in product(Direction, _STEP_OUTCOMES):
            self._migrations.labels(environment, database, direction.value, result)
        for reason in FAILURE_REASONS:
            self._failures.labels(environment, database, reason)

    def forget(self, environment: str, database: str) -> None:
        """Remove every series of a database, and those of its environment with the last one."""
        databases = self._declared.get(environment, set())
        if database not in databases:
            return
        databases.remove(database)
        for direction, result in product(Direction, _STEP_OUTCOMES):
            self._migrations.remove(environment, database, direction.value, result)
        for reason in FAILURE_REASONS:
            self._failures.remove(environment, database, reason)
        if not databases:
            del self._declared[environment]
            self._forget_environment(environment)

    def declare_repository(self, repository: str) -> None:
        """Create the series of a repository at 0. `repository` must be free of user and password."""
        for result in _FETCH_OUTCOMES:
            self._fetches.labels(repository, result)
        self._fetch_duration.labels(repository)

    def migration(
        self,
        environment: str,
        database: str,
        engine: str,
        direction: Direction,
        result: StepOutcome,
        seconds: float,
    ) -> None:
        """Count one step that ended, well or not, after `seconds`."""
        if not self._is_declared(environment, database):
            return
        self._engines.add(engine)
        self._migrations.labels(environment, database, direction.value, result).inc()
        self._migration_duration.labels(environment, engine, direction.value).observe(seconds)

    def failure(self, environment: str, database: str, reason: Reason) -> None:
        """Count one failure or refusal. A reason that is no failure, such as a held lock, is not counted."""
        if reason.metric_label and self._is_declared(environment, database):
            self._failures.labels(environment, database, reason.metric_label).inc()

    def reconcile(self, environment: str, result: PassOutcome, seconds: float) -> None:
        """Count one pass over a database of `environment` that took `seconds`."""
        if environment in self._declared:
            self._reconciles.labels(environment, result).inc()
            self._reconcile_duration.labels(environment).observe(seconds)

    def lock_wait(self, environment: str, kind: LockKind, seconds: float) -> None:
        """Record that a lock was waited for, `seconds` long, whether or not it was got.

        Args:
            environment: whose database it was.
            kind: `advisory` for our own lock, `ddl` for the tables that a migration needs.
            seconds: of our own lock 0 counts too: most waits are none.
        """
        if environment in self._declared:
            self._lock_wait.labels(environment, kind).observe(seconds)

    def merge_to_applied(self, environment: str, seconds: float) -> None:
        """Record that a declared version is in force, `seconds` after the commit that declared it."""
        if environment in self._declared:
            # the committer's clock may be ahead of ours
            self._merge_to_applied.labels(environment).observe(max(0.0, seconds))

    def git_fetch(self, repository: str, result: FetchOutcome, seconds: float) -> None:
        """Count one reading of the repository that took `seconds`."""
        self._fetches.labels(repository, result).inc()
        self._fetch_duration.labels(repository).observe(seconds)

    def log(self, level: str) -> None:
        """Count one log message, under the level's standard name. Safe in any thread."""
        level = level.lower()
        self._log_messages.labels(_LEVEL_ALIASES.get(level, level)).inc()

    def render(self, accept: str, status: DaemonStatus) -> tuple[bytes, str]:
        """Everything, as a scrape is answered. Safe in any thread.

        Args:
            accept: the request's `Accept` header, which chooses between the text format and OpenMetrics.
            status: the reading that the state gauges are computed from.

        Returns:
            The body and its content type.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # the client compares the version that a header names as it comes, and lets the error through
            encode, content_type = choose_encoder("")
        return encode(_Everything(self.registry, status)), content_type

    def _is_declared(self, environment: str, database: str) -> bool:
        return database in self._declared.get(environment, ())

    def _declare_environment(self, environment: str) -> None:
        for result in _PASS_OUTCOMES:
            self._reconciles.labels(environment, result)
        for kind in _LOCK_KINDS:
            self._lock_wait.labels(environment, kind)
        for engine, direction in product(_ENGINES, Direction):
            self._migration_duration.labels(environment, engine, direction.value)
        self._reconcile_duration.labels(environment)
        self._merge_to_applied.labels(environment)

    def _forget_environment(self, environment: str) -> None:
        for result in _PASS_OUTCOMES:
            self._reconciles.remove(environment, result)
        for kind in _LOCK_KINDS:
            self._lock_wait.remove(environment, kind)
        for engine, direction in product(self._engines, Direction):
            self._migration_duration.remove(environment, engine, direction.value)
        self._reconcile_duration.remove(environment)
        self._merge_to_applied.remove(environment)


class _Everything(Collector):
    """The counters and the state of one moment, for one rendering."""

    def __init__(self, registry: CollectorRegistry, status: DaemonStatus) -> None:
        self._registry = registry
        self._status = status

    def collect(self) -> Iterator[Metric]:
        counted: Iterable[Metric] = self._registry.collect()
        yield from counted
        yield from state_families(self._status)
