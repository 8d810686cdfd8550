"""PostgreSQL: one database, its connection kept open between passes, and the lock that makes one writer of many."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from reconciler.database.advisory import give_advisory_lock_back, take_advisory_lock
from reconciler.database.ambiguity import AMBIGUOUS
from reconciler.database.conflicts import CONFLICT, Conflicts
from reconciler.database.connecting import ConnectionSettings, engine_mismatch
from reconciler.database.jobs import wait_for_schema_changes
from reconciler.database.lease import MARK, Lease, passed, withdraw
from reconciler.database.objects import read_states
from reconciler.database.opening import open_session
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY, Reader, read_applied, read_journal, read_stored_downs
from reconciler.database.records import known_end
from reconciler.database.session import Session
from reconciler.database.trust import strangers_problem
from reconciler.database.waiting import Waiting, lock_held
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
        self._lease_wanted = False
        self._lease_seconds = 0.0

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
        session, settings = await open_session(self._settings)
        if settings.engine not in ("auto", session.dialect.name):
            await session.close()
            raise ProblemError(engine_mismatch(settings.engine, session.dialect.name))
        self._session = session
        self._show_queries = settings.show_queries
        self._lease_wanted = settings.lock == "lease"
        self._lease_seconds = settings.lease
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
        session = await self._open_introduced()
        assert self._reader is not None
        waiting = Waiting(acquire_timeout, on_waiting)
        owner = uuid.uuid4()
        lease = None
        try:
            if self._leases(session):
                await self._make_tables(session)
                session, fence, lease = await self._take_lease(actor, owner, waiting, taking_over=taking_over)
            else:
                session, fence = await self._take_advisory(
                    session, actor, owner, waiting, taking_over=taking_over
                )
        except ProblemError:
            raise
        except BaseException:
            # cancelled on the way: whether the server has given us the lock is not known, and ends with the session
            await self.close()
            raise
        watch = Watch(self._settings, None if lease is not None else session.backend_pid, watcher)
        held = HeldLock(session, self._reader, actor, owner, fence, watch, lease)
        try:
            yield held
        finally:
            try:
                await held.release()
            finally:
                self._unrecorded = held.unrecorded
                await watch.close()

    async def _open_introduced(self) -> Session:
        """A session of which it is known who serves it, and that lives."""
        session = await self._open()
        try:
            await session.introduce()
            if self._leases(session):
                await session.read(session.queries("read_server"), doing="opening the session")
        except ProblemError:
            if session.alive:
                raise
            session = await self._open()
            await session.introduce()
        return session

    def _leases(self, session: Session) -> bool:
        """Whether the lock is to be a lease; asked of a session that is introduced."""
        return session.pooled or self._lease_wanted or not session.dialect.advisory_locks

    async def _take_advisory(
        self, session: Session, actor: Actor, owner: uuid.UUID, waiting: Waiting, *, taking_over: bool
    ) -> tuple[Session, int]:
        """Take the advisory lock, as soon as nobody has that nor a lease."""
        assert self._reader is not None
        while True:
            session = await take_advisory_lock(session, self._reader, waiting, self._open)
            try:
                await self._make_tables(session)
                return session, await self._take_row(session, actor, owner, taking_over=taking_over)
            except ProblemError as error:
                await give_advisory_lock_back(session)
                if error.problem.reason is not Reason.LOCK_HELD or error.problem.sqlstate:
                    raise
            held = (await self._read_with(session)).holder
            await waiting.pause(held or LockHolder("the holder of a lease", "lease", None))

    async def _take_lease(
        self, actor: Actor, owner: uuid.UUID, waiting: Waiting, *, taking_over: bool
    ) -> tuple[Session, int, Lease]:
        """Take the lease, as soon as nobody has it and no work of who had it goes on; and renew it from now on."""
        conflicts = Conflicts()
        while True:
            session = await self._open_introduced()
            if not session.dialect.transactional_ddl:
                # what an owner before us has begun must be over, and what we do must not begin beside what others do
                await wait_for_schema_changes(
                    session, timeout=waiting.left, on_waiting=waiting.for_schema_change
                )
            taken_at = passed()
            try:
                fence = await self._take_row(session, actor, owner, taking_over=taking_over, lease=True)
            except ProblemError as error:
                if error.problem.reason is Reason.LOCK_HELD:
                    held = (await self._read_with(session)).holder
                    await waiting.pause(
                        held or LockHolder("work that goes on after its owner", "lease", None)
                    )
                    continue
                if error.problem.sqlstate == CONFLICT and conflicts.again:
                    # another one takes it at this very moment
                    await conflicts.pause()
                    continue
                if session.alive and error.problem.sqlstate not in AMBIGUOUS:
                    raise
                # whether it was given to us before the connection broke, the row says
                session = await self._open_introduced()
                (rows,) = await session.read(
                    session.queries("own_lease", owner=str(owner)), doing="looking who holds the lease"
                )
                if not rows:
                    raise
                fence = int(rows[0][0])
            except asyncio.CancelledError:
                # nobody is to wait until a lease runs out that we may have been given
                with contextlib.suppress(ProblemError):
                    await withdraw(await self._open(), str(owner))
                raise
            lease = Lease(self._settings, str(owner), fence, self._lease_seconds, taken_at)
            try:
                await lease.begin()
            except BaseException:
                await withdraw(session, str(owner))
                await lease.close(release=False)
                raise
            return session, fence, lease

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
        if not session.dialect.transactional_ddl:
            await _make_one_by_one(session, ";\n".join(creations).split(";\n"))
            return
        # two that make them at once would be in each other's way; who has the lock already has this one too
        creations.insert(0, session.queries("hold_while_working", key=ADVISORY_KEY))
        try:
            await session.transact(*creations, doing="creating our tables")
        except ProblemError as error:
            if error.problem.sqlstate != "22012":
                raise
            # nobody was there a moment ago; who it is now, the next attempt says
            raise ProblemError(strangers_problem(self._schema, ())) from None

    async def _take_row(
        self, session: Session, actor: Actor, owner: uuid.UUID, *, taking_over: bool, lease: bool = False
    ) -> int:
        """Write ourselves into the lock's row. Returns the fence.

        Raises:
            ProblemError: `LockHeld`, `ClaimedByOther`, or the connection broke.
        """
        claim = actor.claim
        ours: dict[str, Literal] = {
            "owner": str(owner),
            "holder": actor.owner,
            "environment": claim.environment if claim else None,
            "database_name": claim.database if claim else None,
            "repository": claim.repository if claim else None,
        }
        if lease:
            row = session.queries(
                "take_lease",
                **ours,
                **_KEY,
                seconds=self._lease_seconds,
                mark=MARK,
                taking_over=taking_over,
            )
        else:
            row = session.queries("take_lock_row_of_others" if taking_over else "take_lock_row", **ours)
        (rows,) = await session.read(
            row,
            session.queries("end_open_attempts", owner=str(owner), **known_end(self._unrecorded)),
            doing="taking the lock",
        )
        if rows:
            self._unrecorded = {}
            return int(rows[0][0])
        seen = await self._read_with(session)
        if seen.claim is not None and seen.claim != claim and not taking_over:
            raise ProblemError(claimed_by_other(seen.claim, claim))
        raise ProblemError(lock_held(seen.holder or LockHolder("the holder of a lease", "lease", None)))


async def _make_one_by_one(session: Session, creations: Sequence[str]) -> None:
    conflicts = Conflicts(session.dialect)
    for creation in creations:
        while True:
            try:
                await session.alone(creation, doing="creating our tables")
                break
            except ProblemError as error:
                # somebody else makes it at this very moment; once that is done, there is nothing to do
                if error.problem.sqlstate not in _MADE_MEANWHILE or not conflicts.again:
                    raise
            await conflicts.pause()


_MADE_MEANWHILE = ("23505", "42P07", "42701", "42710")
"""SQLSTATEs of what is made `IF NOT EXISTS` and exists."""
_BOOKKEEPING_PATIENCE = 5.0
"""Seconds to wait for the lock in order to write one event."""
_KEY: dict[str, Literal] = {"key_high": ADVISORY_KEY >> 32, "key_low": ADVISORY_KEY & 0xFFFFFFFF}
