"""The table of jobs: what a schema change becomes, how far it is, and what a test has in mind for it."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.cockroach.grammar import literal

PENDING, RUNNING, PAUSED, REVERTING = "pending", "running", "paused", "reverting"
SUCCEEDED, FAILED, CANCELED, REVERT_FAILED = "succeeded", "failed", "canceled", "revert-failed"
TERMINAL = frozenset({SUCCEEDED, FAILED, CANCELED, REVERT_FAILED})
SHOWN_CHARACTERS = 100
"""How much of a statement the list of jobs shows as description."""
_FIRST = 990_000_000_000_000_001
_COLUMNS = (
    ("job_id", "bigint"),
    ("job_type", "text"),
    ("description", "text"),
    ("statement", "text"),
    ("user_name", "text"),
    ("status", "text"),
    ("running_status", "text"),
    ("created", "timestamptz"),
    ("started", "timestamptz"),
    ("finished", "timestamptz"),
    ("modified", "timestamptz"),
    ("fraction_completed", "float8"),
    ("error", "text"),
    ("coordinator_id", "bigint"),
)


@dataclass(frozen=True)
class Fate:
    """What becomes of the next schema change that `Jobs.plan` is told of.

    Args:
        end: the status it comes to: `succeeded`, `failed`, `canceled`, `revert-failed`, or `paused` (until `resume`).
        hold: it does not begin before `Jobs.release`; nothing of it is in effect before.
        delay: seconds it takes before it takes effect.
        applied: the statement takes effect although the job does not succeed.
        linger: seconds between its effect and its end.
        sqlstate: of the error that whoever waits for it is given, and its message.
        message: see `sqlstate`.
    """

    end: str = SUCCEEDED
    hold: bool = False
    delay: float = 0.0
    applied: bool = False
    linger: float = 0.0
    sqlstate: str = "XXUUU"
    message: str = ""


@dataclass
class Job:
    """One row of the table. `end` is set when nobody needs to wait any longer: it is over, or paused."""

    job_id: int
    statement: str
    user_name: str
    job_type: str = "NEW SCHEMA CHANGE"
    status: str = RUNNING
    running_status: str = ""
    error: str = ""
    sqlstate: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    fraction_completed: float = 0.0

    @property
    def description(self) -> str:
        """The statement, cut."""
        return " ".join(self.statement.split())[:SHOWN_CHARACTERS]

    @property
    def is_over(self) -> bool:
        """Whether its status is final."""
        return self.status in TERMINAL


class Jobs:
    """All jobs of a simulated cluster.

    The methods that change something may be called from any thread.

    Args:
        call: runs a function on the simulator's own thread and waits for what it returns.
    """

    def __init__(self, call: Callable[[Callable[[], object]], object]) -> None:
        self._call = call
        self._jobs: dict[int, Job] = {}
        self._fates: list[tuple[re.Pattern[str], Fate, list[int]]] = []
        self._numbers = itertools.count(_FIRST)
        self._held: set[int] = set()
        self._changed = asyncio.Condition()
        self._waking: set[asyncio.Future[None]] = set()

    # what tests say and ask

    def plan(self, fate: Fate, *, matching: str = "", times: int = 1) -> None:
        """Decide what becomes of the next `times` schema changes whose text the regular expression is found in."""
        self._call(lambda: self._fates.append((re.compile(matching, re.IGNORECASE), fate, [times])))

    def all(self) -> list[Job]:
        """Copies of all jobs, the oldest first."""
        return [copy.copy(job) for job in list(self._jobs.values())]

    def find(self, matching: str, *, status: str = "", timeout: float = 10.0) -> Job:
        """The newest job whose statement the regular expression is found in, as soon as it has that status (any if empty)."""
        deadline = time.monotonic() + timeout
        while True:
            found = [job for job in self.all() if re.search(matching, job.statement, re.IGNORECASE)]
            if found and status in ("", found[-1].status):
                return found[-1]
            assert time.monotonic() < deadline, f"no job {status} of {matching!r} among {self.all()}"
            time.sleep(0.005)

    def add(self, statement: str = "", *, job_type: str = "SCHEMA CHANGE", status: str = RUNNING) -> int:
        """A job of somebody else, which stays as it is until `set_status`; its number."""
        job = self.create(statement, "somebody", job_type)
        self.set_status(job.job_id, status)
        return job.job_id

    def set_status(self, job_id: int, status: str, *, error: str = "") -> None:
        """Make it so. A job that has not taken effect yet acts on it: paused waits, canceled and failed never do."""
        self._call(lambda: self.change(self._jobs[job_id], status, error=error))

    def pause(self, job_id: int) -> None:
        """Pause it: whoever waits for it is told so by an error."""
        self.set_status(job_id, PAUSED)

    def resume(self, job_id: int) -> None:
        """Let a paused job go on."""
        self.set_status(job_id, RUNNING)

    def cancel(self, job_id: int) -> None:
        """Cancel it: what it did is undone."""
        self.set_status(job_id, CANCELED, error="job canceled")

    def release(self, job_id: int | None = None) -> None:
        """Let what is held by its fate begin: one job, or all."""

        def begin() -> None:
            self._held -= set(self._held) if job_id is None else {job_id}
            self._wake()

        self._call(begin)

    # what the simulator does; only on its own thread

    def fate_of(self, statement: str) -> Fate:
        """What is planned for a schema change; the plan is used up by it."""
        for pattern, fate, left in self._fates:
            if left[0] and pattern.search(statement):
                left[0] -= 1
                return fate
        return Fate()

    def create(
        self, statement: str, user: str, job_type: str = "NEW SCHEMA CHANGE", *, held: bool = False
    ) -> Job:
        """A new, running job."""
        job = Job(next(self._numbers), statement, user, job_type)
        self._jobs[job.job_id] = job
        if held:
            self._held.add(job.job_id)
        return job

    def forget(self, job: Job) -> None:
        """It never came to be a job: the statement was refused before."""
        self._jobs.pop(job.job_id, None)

    def get(self, job_id: int) -> Job | None:
        """The job of that number."""
        return self._jobs.get(job_id)

    def change(self, job: Job, status: str, *, error: str = "", sqlstate: str = "") -> None:
        """Give it another status."""
        job.status = status
        job.error = error or job.error
        job.sqlstate = sqlstate or job.sqlstate
        job.modified = datetime.now(UTC)
        if job.is_over:
            job.finished = job.modified
            job.fraction_completed = 1.0 if status == SUCCEEDED else job.fraction_completed
        self._wake()

    async def begun(self, job: Job) -> None:
        """Return when it may take effect: not held, not paused; or when it is over."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: job.is_over or (job.job_id not in self._held and job.status == RUNNING)
            )

    async def settled(self, job: Job, *, or_paused: bool = True) -> None:
        """Return when it is over; or paused, when that counts."""
        async with self._changed:
            await self._changed.wait_for(lambda: job.is_over or (or_paused and job.status == PAUSED))

    def _wake(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.ensure_future(notify())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    def as_query(self, only: int | None = None) -> str:
        """A query in parentheses whose rows are the jobs, newest first, or the one of that number."""
        rows = [self._row(job) for job in reversed(self._jobs.values()) if only is None or job.job_id == only]
        names = ", ".join(name for name, _ in _COLUMNS)
        none = ", ".join(f"NULL::{kind}" for _, kind in _COLUMNS)
        return f"(SELECT * FROM (VALUES {', '.join([f'({none})', *rows])}) AS jobs ({names}) WHERE job_id IS NOT NULL)"

    def _row(self, job: Job) -> str:
        def moment(when: datetime | None) -> str:
            return f"{literal(when.isoformat())}" if when else "NULL"

        values = (
            str(job.job_id),
            literal(job.job_type),
            literal(job.description),
            literal(job.statement),
            literal(job.user_name),
            literal(job.status),
            literal(job.running_status),
            moment(job.created),
            moment(job.created),
            moment(job.finished),
            moment(job.modified),
            str(job.fraction_completed),
            literal(job.error),
            "1",
        )
        return (
            "(" + ", ".join(f"{text}::{kind}" for text, (_, kind) in zip(values, _COLUMNS, strict=True)) + ")"
        )
