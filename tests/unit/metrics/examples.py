"""Readings of a daemon for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.model import (
    DaemonStatus,
    DatabaseStatus,
    Direction,
    EnvironmentStatus,
    LastStep,
    PendingStep,
    Problem,
    Reason,
    Revision,
    SourceStatus,
    State,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def at(second: int) -> datetime:
    """`second` seconds after the epoch."""
    return datetime.fromtimestamp(second, UTC)


def in_sync(environment: str = "dev", database: str = "dev") -> DatabaseStatus:
    return DatabaseStatus(
        environment=environment,
        database=database,
        state=State.IN_SYNC,
        target=42,
        current=42,
        target_ordinal=7,
        current_ordinal=7,
        engine="postgresql",
        server_version="18.1",
        target_revision=f"main@sha1:{COMMIT}",
        target_since=at(100),
        last_reconcile_at=at(200),
        last_success_at=at(200),
        reachable=True,
        last_steps=(
            LastStep(direction=Direction.UP, version=41, finished_at=at(140), duration=9.0),
            LastStep(direction=Direction.UP, version=42, finished_at=at(150), duration=1.5),
            LastStep(direction=Direction.DOWN, version=43, finished_at=at(120), duration=0.25),
        ),
    )


def failing(environment: str = "production", database: str = "orders") -> DatabaseStatus:
    problem = Problem(
        reason=Reason.STATEMENT_FAILED, message='relation "orders" already exists', remedy="fix it"
    )
    return DatabaseStatus(
        environment=environment,
        database=database,
        state=State.FAILED,
        target=42,
        current=41,
        target_ordinal=7,
        current_ordinal=6,
        pending=(
            PendingStep(
                version=42, name="add_index", direction=Direction.UP, source="checkout", transactional=False
            ),
        ),
        problem=problem,
        problems=(problem,),
        engine="cockroachdb",
        server_version="v25.2.1",
        failing_since=at(300),
        drift_since=at(250),
        suspended_since=at(260),
        running_since=at(310),
        reachable=False,
    )


def never_reached(environment: str = "staging", database: str = "staging") -> DatabaseStatus:
    return DatabaseStatus(environment=environment, database=database, state=None, target=None, current=None)


def daemon(*databases: DatabaseStatus, problem: Problem | None = None) -> DaemonStatus:
    """A daemon with one environment for each name that `databases` mention."""
    names = dict.fromkeys(database.environment for database in databases)
    return DaemonStatus(
        source=SourceStatus(
            repository="git.example.com/team/schema",
            branch="main",
            revision=Revision(
                commit=COMMIT, branch="main", committed_at=at(90), author="Ada Lovelace <ada@example.com>"
            ),
            last_success_at=at(199),
        ),
        environments=tuple(
            EnvironmentStatus(
                environment=name,
                target=42,
                suspended=False,
                problem=problem,
                databases=tuple(database for database in databases if database.environment == name),
            )
            for name in names
        ),
        ready=True,
        started_at=at(50),
        queue_depth=3,
        queue_oldest=at(198),
        workers=8,
        workers_busy=2,
        resync_interval=30.0,
    )
