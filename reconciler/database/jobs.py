"""Changes of CockroachDB's schema are jobs, which go on when whoever asked for them is gone.

So nothing is decided while one runs: what it does would come after whatever was decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

from reconciler.database.session import Session
from reconciler.model import Problem, ProblemError, Reason, StepProgress

_KINDS = frozenset({"SCHEMA CHANGE", "NEW SCHEMA CHANGE"})
"""What is waited for. What collects the garbage after them may take a day, and is in nobody's way."""
_ENDED = frozenset({"succeeded", "failed", "canceled", "revert-failed"})
_PAUSED = frozenset({"paused", "pause-requested"})
_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
"""Seconds between two looks."""


class SchemaChange(NamedTuple):
    """One job that changes, or changed, the schema.

    `percent` from 0 to 100, `created` in seconds since 1970.
    """

    number: str
    status: str
    description: str
    error: str
    percent: float | None
    created: float

    def __str__(self) -> str:
        """`job 1234 (CREATE INDEX ON ...), 40 %`."""
        percent = f", {self.percent:.0f} %" if self.percent is not None else ""
        return f"job {self.number} ({self.description}){percent}"


async def schema_changes(session: Session) -> list[SchemaChange]:
    """The jobs that change the schema: those that run, and those that ended in the last hours.

    Raises:
        ProblemError: they cannot be read.
    """
    found = await session.read_named(session.queries("schema_changes"), doing="looking at schema changes")
    return [_of(row) for row in found if row.get("job_type") in _KINDS]


async def progress_of_jobs(session: Session) -> StepProgress | None:
    """How far the change of the schema that is under way has come; None when there is none.

    Raises:
        ProblemError: the jobs cannot be read.
    """
    running = await _under_way(session)
    if not running:
        return None
    # the newest is what is being waited for
    job = max(running, key=lambda job: job.created)
    return StepProgress(
        phase=f"schema change {job.status}",
        percent=None if job.percent is None else round(job.percent, 1),
        object=f"job {job.number}",
    )


async def wait_for_schema_changes(
    session: Session, *, timeout: float | None, on_waiting: Callable[[SchemaChange], None] | None = None
) -> None:
    """Wait until no change of the schema is under way.

    Args:
        session: the connection.
        timeout: seconds, None for as long as it takes.
        on_waiting: told of each look at one that still runs.

    Raises:
        ProblemError: `LockHeld`: one still runs, and the time is over. `OutcomeUnknown`: one is paused, and somebody has to say
            what becomes of it.
    """
    deadline = None if timeout is None else monotonic() + timeout
    pause = _PAUSE
    while True:
        running = await _under_way(session)
        if not running:
            return
        paused = next((job for job in running if job.status in _PAUSED), None)
        if paused is not None:
            raise ProblemError(
                Problem(
                    reason=Reason.OUTCOME_UNKNOWN,
                    message=f"a change of the schema is paused: {paused}; nothing is run before it has ended",
                    remedy=f"RESUME JOB {paused.number}, or CANCEL JOB {paused.number}; it is looked at again by itself",
                )
            )
        if deadline is not None and monotonic() >= deadline:
            raise ProblemError(
                Problem(
                    reason=Reason.LOCK_HELD,
                    message=f"a change of the schema is under way: {running[0]}",
                    remedy="it is tried again by itself when that has ended",
                )
            )
        if on_waiting is not None:
            on_waiting(running[0])
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _under_way(session: Session) -> list[SchemaChange]:
    return [job for job in await schema_changes(session) if job.status not in _ENDED]


def _of(row: Mapping[str, Any]) -> SchemaChange:
    fraction = row.get("fraction_completed")
    return SchemaChange(
        number=str(row.get("job_id")),
        status=str(row.get("status")),
        description=" ".join(str(row.get("description") or "").split()),
        error=str(row.get("error") or ""),
        percent=None if fraction is None else float(fraction) * 100,
        created=_seconds(row.get("created")),
    )


def _seconds(time: object) -> float:
    """Seconds since 1970. The column has a time zone on some versions, and none on others; 0 where it is empty."""
    if not isinstance(time, datetime):
        return 0.0
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
