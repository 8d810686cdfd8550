"""PostgreSQL: one database, its connection kept open between passes, and the lock that makes one writer of many."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from reconciler.database.connecting import ConnectionSettings
from reconciler.database.objects import read_states
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY, Reader, read_applied, read_journal, read_stored_downs
from reconciler.database.records import known_end
from reconciler.database.session import Session
from reconciler.database.trust import strangers_problem
from reconciler.database.watching import Watch, read_work
from reconciler.database.writer import HeldLock
from reconciler.model import (
    Actor,
    AppliedMigration,
    JournalEvent,
    LockHolder,
    LockState,
    Observation,
    Problem,
    ProblemError,
    Reason,
    Repairer,
    StepWatcher,
    StoredDown,
    Work,
    Writer,
)
from reconciler.planner import claimed_by_other, foreign_history

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two attempts at the lock. Never a blocking wait: that would be an open transaction on the server, and
`CREATE INDEX CONCURRENTLY` of the lock's holder would wait for it for ever."""

_LOOKS = 5
"""A holder of the lock that has not said who it is is looked at this often."""


class PostgresDatabase:
    """Implements `reconciler.model.Database`. One task at a time uses it.

    Args:
        settings: how to connect, called for each new connection, so that a rotated password is used at the next one.
    """

    def __init__(self, settings: Callable[[], Awaitable[ConnectionSettings]]) -> None:
        self._settings = settings
        self._session: Session | None = None
        self._reader: Reader | None = None
        self._schema = ""
        self._unrecorded: Mapping[str, Literal] = {}
        """The end of an attempt of ours that the journal does not have yet, since the connection broke."""
        self._show_queries = False

    async def observe(self) -> Observation:
        """Read history, lock, claim and last failure; see `reconciler.model.Database`. While nothing has changed, the same
        object is returned."""
        session = await self._open()
        try:
            return await self._glance_with(session)
        except ProblemError:
            if session.alive:
                raise
        # the server went away since the last pass: what matters is whether it is there now
        return await self._glance_with(await self._open())

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`, without those that have none."""
        return await read_stored_downs(await self._open(), list(versions))

    async def look_at(self, objects: Sequence[str]) -> dict[str, str]:
        """Return the state of each of `objects`; see `reconciler.model.Database`."""
        return await read_states(await self._open(), objects)

    @property
    def holds_lock(self) -> bool:
        """False: somebody else may write at any time."""
        return False

    async def applied(self, version: int | None = None) -> list[AppliedMigration]:
        """The rows of `schema_migrations`, oldest first."""
        return await read_applied(await self._open(), version)

    async def journal(self, version: int | None = None, limit: int = 100) -> list[JournalEvent]:
        """The newest `limit` events, oldest first."""
        return await read_journal(await self._open(), version, limit)

    async def request_retry(self, actor: Actor) -> None:
        """Write a `retry` event to the journal: the last failure no longer stands against a new attempt."""
        async with self._held(actor, acquire_timeout=_BOOKKEEPING_PATIENCE) as held:
            failure = (await held.observe()).last_failure
            await held.record("retry", of=failure.key if failure is not None else None)

    async def record_refusal(self, actor: Actor, problem: Problem) -> None:
        """Write a refusal to the journal, if it is not already the newest event there."""
        from reconciler.database.failures import mask_literals

        async with self._held(actor, acquire_timeout=_BOOKKEEPING_PATIENCE) as held:
            session = held.session
            (newest,) = await session.read(session.queries("newest_refusal"), doing="reading the journal")
            if newest[:1] != [(problem.reason.value, mask_literals(problem.message))]:
                await held.record("refused", problem)

    @asynccontextmanager
    async def writer(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        watcher: StepWatcher | None = None,
    ) -> AsyncIterator[Writer]:
        """Take the lock, make our tables if need be, claim the database, and hand out a writer."""
        async with self._held(
            actor, acquire_timeout=acquire_timeout, on_waiting=on_waiting, watcher=watcher
        ) as held:
            yield held

    @asynccontextmanager
    async def repairer(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        taking_over: bool = False,
    ) -> AsyncIterator[Repairer]:
        """Take the lock as `writer` does, to repair; see `reconciler.model.Database.repairer`."""
        from reconciler.database.repairing import LockedRepairer

        async with self._held(
            actor, acquire_timeout=acquire_timeout, on_waiting=on_waiting, taking_over=taking_over
        ) as held:
            yield LockedRepairer(held, actor.git_revision)

    async def read_lock(self) -> LockState:
        """Read all there is to know of the lock; see `reconciler.model.Database.read_lock`."""
        from reconciler.database.unlocking import read_lock

        return await read_lock(await self._open())

    async def read_work(self) -> Work | None:
        """Read what the holder of the lock is at; see `reconciler.model.Database.read_work`."""
        return await read_work(await self._open(), show_queries=self._show_queries)

    async def unlock(self, state: LockState, actor: Actor, reason: str) -> None:
        """Free the lock; see `reconciler.model.Database.unlock`."""
        from reconciler.database.unlocking import free_lock

        session = await self._open()
        try:
            await session.read(doing="freeing the lock")
        except ProblemError:
            # the server has ended it while a person was asked
            if session.alive:
                raise
            session = await self._open()
        await free_lock(session, state, actor, reason)

    async def close(self) -> None:
        """Close the connection. The next use opens a new one."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _open(self) -> Session:
        if self._session is not None and self._session.alive and not self._session.interrupted:
            return self._session
        await self.close()
        settings = await self._settings()
        self._session = await Session.open(settings)
        self._show_queries = settings.show_queries
        if self._reader is None or self._schema != settings.history_schema:
            self._reader = Reader(settings.history_schema)
            self._schema = settings.history_schema
        return self._session

    async def _glance_with(self, session: Session) -> Observation:
        assert self._reader is not None
        return await self._reader.glance(session)

    async def _read_with(self, session: Session) -> Observation:
        assert self._reader is not None
        return await self._reader.observe(session)

    @asynccontextmanager
    async def _held(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        watcher: StepWatcher | None = None,
        taking_over: bool = False,
    ) -> AsyncIterator[HeldLock]:
        session = await self._open()
        assert self._reader is not None
        owner = uuid.uuid4()
        try:
            session = await self._take_advisory_lock(session, acquire_timeout, on_waiting)
            try:
                await self._make_tables(session)
                fence = await self._take_row(session, actor, owner, taking_over=taking_over)
            except ProblemError:
                with contextlib.suppress(ProblemError):
                    await session.read(session.queries("release_advisory_lock"), doing="releasing the lock")
                raise
        except ProblemError:
            raise
        except BaseException:
            # cancelled on the way: whether the server has given us the lock is not known, and ends with the session
            await self.close()
            raise
        watch = Watch(self._settings, session.backend_pid, watcher)
        held = HeldLock(session, self._reader, actor, owner, fence, watch)
        try:
            yield held
        finally:
            try:
                await held.release()
            finally:
                self._unrecorded = held.unrecorded
                await watch.close()

    async def _take_advisory_lock(
        self, session: Session, acquire_timeout: float, on_waiting: Callable[[LockHolder], None] | None
    ) -> Session:
        """Take the lock on `session`, or on a new one when the server has ended that meanwhile: nothing has begun yet."""
        deadline = monotonic() + acquire_timeout
        pause = _FIRST_PAUSE
        looks = 0
        opened_anew = False
        while True:
            try:
                ((answer,),) = await session.read(
                    session.queries("try_advisory_lock", key=ADVISORY_KEY), doing="taking the lock"
                )
            except ProblemError:
                if session.alive or opened_anew:
                    raise
                session, opened_anew = await self._open(), True
                continue
            if answer[0]:
                return session
            holder = (await self._read_with(session)).holder
            if holder is None or holder.since is None:
                # it has the lock and not yet said who it is, or is just giving it back: either takes a moment
                looks += 1
                if looks < _LOOKS:
                    await asyncio.sleep(_FIRST_PAUSE)
                    continue
                from reconciler.database.unlocking import nameless_holder

                holder = await nameless_holder(session)
            if on_waiting is not None:
                on_waiting(holder)
                on_waiting = None
            if monotonic() >= deadline:
                raise ProblemError(_lock_held(holder, acquire_timeout))
            await asyncio.sleep(min(pause * (0.5 + random.random()), max(0.0, deadline - monotonic())))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _make_tables(self, session: Session) -> None:
        seen = await self._read_with(session)
        if seen.read_only:
            raise ProblemError(
                Problem(
                    reason=Reason.READ_ONLY,
                    message="the server takes no writes: it is a standby, or the session is read-only",
                    remedy="point the DSN at the primary, or wait for the failover to end",
                )
            )
        if seen.foreign_history is not None:
            raise ProblemError(foreign_history(seen.foreign_history))
        assert self._reader is not None
        if self._reader.strangers:
            raise ProblemError(strangers_problem(self._schema, self._reader.strangers))
        if seen.initialised:
            return
        ((exists,),) = await session.read(
            session.queries("schema_exists", schema=self._schema), doing="looking for our schema"
        )
        creations = [session.queries("create_tables"), session.queries("refuse_strangers")]
        if not exists[0]:
            creations.insert(0, session.queries("create_schema"))
        try:
            await session.transact(*creations, doing="creating our tables")
        except ProblemError as error:
            if error.problem.sqlstate != "22012":
                raise
            # nobody was there a moment ago; who it is now, the next attempt says
            raise ProblemError(strangers_problem(self._schema, ())) from None

    async def _take_row(self, session: Session, actor: Actor, owner: uuid.UUID, *, taking_over: bool) -> int:
        claim = actor.claim
        (rows,) = await session.read(
            session.queries(
                "take_lock_row_of_others" if taking_over else "take_lock_row",
                owner=str(owner),
                holder=actor.owner,
                environment=claim.environment if claim else None,
                database_name=claim.database if claim else None,
                repository=claim.repository if claim else None,
            ),
            session.queries("end_open_attempts", owner=str(owner), **known_end(self._unrecorded)),
            doing="taking the lock",
        )
        if rows:
            self._unrecorded = {}
            return int(rows[0][0])
        seen = await self._read_with(session)
        if seen.claim is not None and seen.claim != claim and not taking_over:
            raise ProblemError(claimed_by_other(seen.claim, claim))
        raise ProblemError(_lock_held(seen.holder or LockHolder("the holder of a lease", "lease", None), 0.0))


_BOOKKEEPING_PATIENCE = 5.0
"""Seconds to wait for the lock in order to write one event."""


def _lock_held(holder: LockHolder, waited: float) -> Problem:
    since = f" since {holder.since:%Y-%m-%d %H:%M:%S} UTC" if holder.since else ""
    waiting = f"; waited {waited:g} s" if waited else ""
    return Problem(
        reason=Reason.LOCK_HELD,
        message=f"another process holds the lock of this database: {holder.owner}{since}{waiting}",
        remedy="`reconciler unlock` shows it, and can end it if it hangs; it is tried again by itself",
    )
