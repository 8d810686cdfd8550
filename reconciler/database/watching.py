"""Looking, from another connection, at a step that takes its time: who blocks it, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler.database.jobs import progress_of_jobs
from reconciler.database.lease import MARK
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY
from reconciler.database.session import Session
from reconciler.model import (
    Blocker,
    Direction,
    PendingStep,
    Problem,
    ProblemError,
    Reason,
    Step,
    StepProgress,
    StepWatcher,
    Work,
)
from reconciler.model.watching import how_to_end
from reconciler.redaction import redact

if TYPE_CHECKING:
    from reconciler.database.connecting import ConnectionSettings

_PATIENCE = 0.7
"""Seconds a message may take before anybody looks: most are over by then, and cost nothing but a timer."""
_INTERVAL = 1.0
"""Seconds between two looks."""
_SOONEST = 0.005
"""Seconds: no look comes earlier, however short the `lock_timeout`."""
_AFTER_FAILURE = 10.0
"""Seconds until a failed look is tried again: a server that has no connection left must not be asked every second."""
_LONGEST_LOOK = 5.0
"""Seconds a look may take, connecting included."""
_FAREWELL = 1.0
"""Seconds that a look which is under way has to end when the lock is given back."""
_KEY: dict[str, Literal] = {"key_high": ADVISORY_KEY >> 32, "key_low": ADVISORY_KEY & 0xFFFFFFFF}
_Sight = tuple[tuple[Blocker, ...], float, StepProgress | None]
"""Who is in the way, for how many seconds, and how far the work has come."""
_MAY_HAVE_WAITED = frozenset({Reason.STATEMENT_TIMEOUT, Reason.INTERRUPTED})


class Watch:
    """Watches the steps of one writer.

    While a message of a step is with the server for longer than `_PATIENCE`, a connection of its own looks once a second. It is
    opened for the first look and lives until `close`. That nobody could look never fails a step: the watcher is told once a step
    (`unwatched`), and the step runs as it would have.

    Args:
        settings: how to connect, asked anew for every connection.
        pid: the backend that runs the steps; None when the lock is a lease: then it is looked for each time.
        watcher: hears what is seen; None when nobody cares: then it is only kept for the journal.
    """

    def __init__(
        self,
        settings: Callable[[], Awaitable[ConnectionSettings]],
        pid: int | None,
        watcher: StepWatcher | None,
    ) -> None:
        self._settings = settings
        self._pid = pid
        self._watcher: StepWatcher = watcher if watcher is not None else _Nobody()
        self._session: Session | None = None
        self._show_queries = False
        self._step: Step | None = None
        self._turn: object | None = None
        """Stands for the message that is with the server; None between messages."""
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self._pause = _INTERVAL
        self._told_of_failure = False
        self._progress: StepProgress | None = None
        self._blockers: tuple[Blocker, ...] = ()
        self._last_blockers: tuple[Blocker, ...] = ()
        self._blocked_since: float | None = None

    @contextmanager
    def over(self, step: Step) -> Iterator[None]:
        """What happens inside is about `step`, all its attempts."""
        self._step = step
        self._told_of_failure = False
        self._last_blockers = ()
        self._pause = _INTERVAL
        try:
            yield
        finally:
            self._step = None
            self._progress = None
            self._blockers = ()
            self._tell_waited(step)

    @contextmanager
    def message(self, lock_timeout: float = 0.0) -> Iterator[None]:
        """A message of the step is with the server. Pauses between attempts are not looked at: nobody waits for a lock then.

        Args:
            lock_timeout: seconds after which the message may fail on a locked table. Where that is short, who holds the table
                has to be seen before; 0 when there is no such hurry.
        """
        patience = max(_SOONEST, lock_timeout / 2) if 0 < lock_timeout < 2 * _PATIENCE else _PATIENCE
        self._turn = turn = object()
        self._timer = asyncio.get_running_loop().call_later(patience, self._begin_look, turn)
        try:
            yield
        finally:
            self._turn = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def timed_out(self, lock_timeout: float) -> None:
        """A message waited so many seconds for a table and gave up: that is a wait, whether anybody saw it or not."""
        if self._blocked_since is None:
            self._blocked_since = monotonic() - lock_timeout

    def explain(self, problem: Problem) -> Problem:
        """`problem` with who was in the way and how to end that, when waiting for a lock is what it is about."""
        if problem.reason is Reason.LOCK_TIMEOUT and self._step is not None:
            self.timed_out(self._step.lock_timeout)
        blockers = self.blockers_behind(problem)
        if problem.reason is Reason.INTERRUPTED or not blockers:
            return problem
        remedy = f"end what holds the lock, if it may be ended: {how_to_end(blockers)}"
        if problem.reason is Reason.LOCK_TIMEOUT:
            remedy += "; then run `reconciler retry`"
        else:
            remedy += f"; or {problem.remedy}"
        who = "; ".join(str(blocker) for blocker in blockers)
        return replace(problem, message=f"{problem.message}; blocked by {who}", remedy=remedy)

    def blockers_behind(self, problem: Problem) -> tuple[Blocker, ...]:
        """Who was last seen in the way of a step that waited in vain; nobody for one that failed of something else.

        Without the text of their queries: what is kept of a problem is read by people who did not ask to see that.
        """
        if problem.reason is Reason.LOCK_TIMEOUT:
            seen = self._last_blockers
        else:
            seen = self._blockers if problem.reason in _MAY_HAVE_WAITED else ()
        return tuple(replace(blocker, query="") for blocker in seen)

    async def close(self) -> None:
        """Stop looking and close the connection; never fails."""
        look, self._look = self._look, None
        if look is not None:
            look.cancel()
            await asyncio.wait([look], timeout=_FAREWELL)
        await self._disconnect()

    def _begin_look(self, turn: object) -> None:
        self._timer = None
        if turn is not self._turn:
            return
        if self._look is not None and not self._look.done():
            # still busy with the message before, at a server that takes its time
            self._look_again(turn)
            return
        self._look = asyncio.get_running_loop().create_task(self._look_once(turn))

    def _look_again(self, turn: object) -> None:
        if turn is self._turn:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._begin_look, turn)

    async def _look_once(self, turn: object) -> None:
        import psycopg

        try:
            async with asyncio.timeout(_LONGEST_LOOK):
                blockers, waited, progress = await self._read()
        except (ProblemError, psycopg.Error, OSError, TimeoutError) as error:
            await self._disconnect()
            self._pause = _AFTER_FAILURE
            self._tell_failure(turn, error)
        else:
            self._pause = _INTERVAL
            # the message may have ended meanwhile: what was seen is then of no interest any more
            if turn is self._turn and self._step is not None:
                self._tell(self._step, blockers, waited, progress)
        self._look_again(turn)

    async def _read(self) -> _Sight:
        session = self._session
        if session is None or not session.alive:
            session = await self._connect()
        doing = "watching the running step"
        if not session.dialect.progress_views:
            return (), 0.0, await progress_of_jobs(session)
        pid = self._pid
        if pid is None:
            (rows,) = await session.read(session.queries("working_process", **_KEY, mark=MARK), doing=doing)
            if not rows:
                return (), 0.0, None
            pid = int(rows[0][0])
        return await _look(session, pid, doing=doing, show_queries=self._show_queries)

    async def _connect(self) -> Session:
        settings = await self._settings()
        self._show_queries = settings.show_queries
        # beside the connection that works, and under a lease the one that renews it
        needs = 2 if self._pid is not None else 3
        # as whom we log in may see what the backend of the same login does; a role that it sets may not
        self._session = session = await Session.open(replace(settings, role=None, needs=needs))
        await session.read(session.queries("watch_name"), doing="saying that this connection watches")
        return session

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _tell(
        self, step: Step, blockers: tuple[Blocker, ...], waited: float, progress: StepProgress | None
    ) -> None:
        if progress != self._progress:
            self._progress = progress
            self._watcher.progressed(step, progress)
        if blockers:
            self._last_blockers = blockers
            if self._blocked_since is None:
                self._blocked_since = monotonic() - waited
        if blockers or self._blockers:
            self._blockers = blockers
            self._watcher.blocked(step, blockers)
        if not blockers:
            self._tell_waited(step)

    def _tell_waited(self, step: Step) -> None:
        if self._blocked_since is not None:
            since, self._blocked_since = self._blocked_since, None
            self._watcher.waited(step, monotonic() - since)

    def _tell_failure(self, turn: object, error: Exception) -> None:
        if turn is self._turn and self._step is not None and not self._told_of_failure:
            self._told_of_failure = True
            self._watcher.unwatched(self._step, _unwatched(error))


async def read_work(session: Session, *, show_queries: bool) -> Work | None:
    """What the session that holds the lock is at; None when it runs no migration, or has just ended.

    Raises:
        ProblemError: the database cannot be read.
    """
    import psycopg.errors

    key = session.queries("read_work", **_KEY)
    doing = "looking at what holds the lock"
    held = ("hold_history", "hold_journal", "hold_lock", "read_strangers")
    try:
        _, found = await session.read(key, before=[session.queries(name) for name in held], doing=doing)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName):
        return None
    except ProblemError as error:
        # somebody has put a view into the place of one of our tables: it is not read
        if error.problem.sqlstate != "22012":
            raise
        return None
    if not found:
        return None
    pid, version, name, direction, source, since, transactional = found[0]
    # the session's own role, which a role that it sets may not see into, is most likely the one at work
    blockers: tuple[Blocker, ...] = ()
    if session.dialect.progress_views:
        blockers, _, progress = await _look(
            session, int(pid), "SET LOCAL ROLE NONE", doing=doing, show_queries=show_queries
        )
    else:
        progress = await progress_of_jobs(session)
    return Work(
        step=PendingStep(
            version=int(version),
            name=name or "",
            direction=Direction(direction),
            source=source or "",
            transactional=bool(transactional),
        ),
        since=datetime.fromtimestamp(since, UTC),
        progress=progress,
        blocked_by=blockers,
    )


async def _look(session: Session, pid: int, *before: str, doing: str, show_queries: bool) -> _Sight:
    """Who is in the way of backend `pid`, for how many seconds, and how far it has come."""
    queries = session.queries
    blocks = [
        *before,
        queries("watch_blockers", pid=pid, show_queries=show_queries),
        queries("watch_progress", pid=pid),
    ]
    if session.server_version >= 140000:
        blocks.append(queries("watch_copy", pid=pid))
    blocking, *working = await session.read(*blocks, doing=doing)
    # a session of another role has no phase for us
    rows = [row for answer in working for row in answer if row[0] is not None]
    waited = max((float(row[-1]) for row in blocking if row[-1] is not None), default=0.0)
    return tuple(blocker_of(row) for row in blocking), waited, progress_of(rows[0]) if rows else None


class _Nobody:
    """Hears what nobody cares for."""

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """Ignored."""

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Ignored."""

    def waited(self, step: Step, seconds: float) -> None:
        """Ignored."""

    def unwatched(self, step: Step, problem: Problem) -> None:
        """Ignored."""


def blocker_of(row: Sequence[Any]) -> Blocker:
    """A row of the block `watch_blockers`."""
    pid, user, application, state, age, query_id, query, prepared, _ = row
    return Blocker(
        pid=int(pid),
        user=user or "",
        application=application or "",
        state=state or "",
        # the server's clock may go back between two readings of it
        transaction_age=None if age is None else max(0.0, float(age)),
        # 0 is what the server says when it computes none
        query_id=int(query_id) if query_id and int(query_id) else None,
        query=redact(query or ""),
        prepared=prepared or "",
    )


_COUNTED_IN_TUPLES = ("loading tuples in tree",)
_COUNTED_FROM_THE_END = "building index: scanning table"
"""In its first block the server says that all of them are done, as it says after the last."""
_NOT_COUNTED = ("sorting", "waiting", "initializing")


def progress_of(row: Sequence[Any]) -> StepProgress:
    """A row of the blocks `watch_progress` and `watch_copy`.

    The counters of a phase that is over keep standing there, so which of them tells something depends on the phase.
    """
    phase, thing, done, total, tuples_done, tuples_total, parts_done, parts_total = row
    phase = str(phase)
    if any(word in phase for word in _COUNTED_IN_TUPLES):
        done, total = tuples_done, tuples_total
    elif any(word in phase for word in _NOT_COUNTED) or (phase == _COUNTED_FROM_THE_END and done == total):
        done = total = None
    if parts_total:
        phase += f" (part {min(int(parts_done or 0) + 1, int(parts_total))} of {int(parts_total)})"
    percent = round(min(100.0, 100.0 * float(done or 0) / float(total)), 1) if total else None
    return StepProgress(phase=phase, percent=percent, object=thing or "")


def _unwatched(error: Exception) -> Problem:
    if isinstance(error, ProblemError):
        return error.problem
    said = "it took too long" if isinstance(error, TimeoutError) else redact(" ".join(str(error).split()))
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"watching the running step failed: {said}",
        remedy="the step runs on; who blocks it and how far it has come is not shown",
    )
