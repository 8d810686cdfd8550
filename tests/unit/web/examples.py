"""Readings of a daemon, and a client of the application without sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from reconciler.model import (
    DaemonStatus,
    DatabaseStatus,
    EnvironmentStatus,
    Place,
    Problem,
    Reason,
    SourceStatus,
    State,
)
from reconciler.web.app import RenderMetrics, create_app

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
PROBLEM = Problem(
    reason=Reason.STATEMENT_FAILED,
    message='relation "orders" already exists',
    remedy="drop it, or change the migration",
    place=Place("migrations/00042_orders.sql", 7, 14),
    sqlstate="42P07",
    version=42,
)


def database(environment: str, name: str, *, problem: Problem | None = None) -> DatabaseStatus:
    return DatabaseStatus(
        environment=environment,
        database=name,
        state=State.FAILED if problem else State.IN_SYNC,
        target=42,
        current=41 if problem else 42,
        problem=problem,
        problems=(problem,) if problem else (),
        since=NOON,
    )


def environment(name: str, *databases: DatabaseStatus, problem: Problem | None = None) -> EnvironmentStatus:
    return EnvironmentStatus(
        environment=name, target=42, suspended=False, problem=problem, databases=databases
    )


def daemon(*environments: EnvironmentStatus, ready: bool = True, not_ready_because: str = "") -> DaemonStatus:
    return DaemonStatus(
        source=SourceStatus(repository="git.example.com/team/schema", branch="main"),
        environments=environments,
        ready=ready,
        not_ready_because=not_ready_because,
    )


EXAMPLE = daemon(
    environment("dev", database("dev", "dev")),
    environment(
        "production", database("production", "orders", problem=PROBLEM), database("production", "users")
    ),
)


class View:
    """A daemon that is in whatever state the test says."""

    def __init__(self, status: DaemonStatus = EXAMPLE) -> None:
        self.status = status
        self.error: Exception | None = None

    def snapshot(self) -> DaemonStatus:
        if self.error is not None:
            raise self.error
        return self.status


def render_nothing(accept: str, status: DaemonStatus) -> tuple[bytes, str]:
    return b"", "text/plain"


@asynccontextmanager
async def client(view: View | None = None, render_metrics: RenderMetrics = render_nothing) -> Any:
    """A client of the application. Errors within it become the responses that strangers see."""
    app = create_app(view or View(), render_metrics)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://reconciler.test") as http:
        yield http
