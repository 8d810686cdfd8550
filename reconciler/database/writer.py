"""The one writer of a database: holds the lock, runs steps, records them, fences every write."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, NamedTuple

from reconciler.database.ambiguity import AMBIGUOUS, committed
from reconciler.database.conflicts import Conflicts
from reconciler.database.failures import mask_literals, sqlstate_of
from reconciler.database.lease import Lease, opening_of_transaction
from reconciler.database.messages import Answer, StepMessage, may_return_rows, run_message
from reconciler.database.objects import read_states
from reconciler.database.outcome import (
    failure_of,
    interrupted,
    is_conflict,
    is_lock_timeout,
    lock_lost,
)
from reconciler.database.patience import LockPatience
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY, Reader, read_stored_downs
from reconciler.database.records import Records, kept
from reconciler.database.session import Session
from reconciler.database.watching import Watch
from reconciler.model import (
    Actor,
    AttemptKey,
    Direction,
    ErrorClass,
    HistoryRow,
    HookResult,
    Observation,
    Pin,
    Problem,
    ProblemError,
    RowStatus,
    Step,
    StepResult,
    StoredDown,
)
from reconciler.sqltext import ABSENT, OPAQUE, Chain, Sendable, intent_digest, sendable


class _Attempt(NamedTuple):
    """An attempt at a transactional step, and all that is written of it, as SQL.

    `started` and `succeeded` are rows of the journal, `history` what the step does to the history, `script` what is
    sent of its script. `many_rows` says whether that may send us rows.
    """

    step: Step
    attempt_id: str
    started: str
    succeeded: str
    history: str
    script: Sendable
    many_rows: bool


class HeldLock:
    """Writes to a database whose lock this process holds: an advisory one on this very session, or a lease."""

    def __init__(
        self,
        session: Session,
        reader: Reader,
        actor: Actor,
        owner: uuid.UUID,
        fence: int,
        watch: Watch,
        lease: Lease | None = None,
    ) -> None:
        self._session = session
        self.watch = watch
        self._reader = reader
        self.records = Records(actor, fence)
        self._owner = str(owner)
        self._fence = fence
        self._lease = lease
        self._unflushed = False
        self._prepared: _Attempt | None = None
        self._announced: _Attempt | None = None
        """Its `started` event was committed with the step before it, and it has not been run."""
        self._rows: Sequence[HistoryRow] = ()
        self.unrecorded: Mapping[str, Literal] = {}
        """The event that tells how an attempt ended, when it could not be written: whoever takes the lock next does that."""
        self._in_doubt: set[int] = set()
        """Versions with a row that says neither applied nor gone."""

    async def observe(self) -> Observation:
        """Read the database again, now that nobody else writes."""
        observation = await self._reader.observe(self._session)
        self._rows = observation.rows
        self._in_doubt = {row.version for row in observation.rows if row.status is not RowStatus.SUCCESS}
        return observation

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`, without those that have none."""
        return await read_stored_downs(self._session, list(versions))

    async def look_at(self, objects: Sequence[str]) -> dict[str, str]:
        """Return the state of each of `objects`; see `reconciler.model.Writer`."""
        return await read_states(self._session, objects)

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Complete the rows of the earlier tool, all in one transaction, and say so in the journal."""
        blocks = []
        for pin in pins:
            blocks.append(
                self._session.queries(
                    "pin_row",
                    version=pin.version,
                    name=pin.migration.name,
                    **kept(pin.migration, pin.token_checksum),
                )
            )
            event = self.records.empty_event(
                "repair", version=pin.version, name=pin.migration.name, outcome="pinned"
            )
            blocks.append(self._session.queries("insert_event", **event))
        await self.write(*blocks, doing="completing the rows of the earlier tool")

    async def forget_downs(self, versions: Sequence[int]) -> None:
        """Let rows say again that they are applied, and the journal that their downs were not run; all in one transaction."""
        blocks = []
        for row in self._rows:
            if row.version in versions:
                blocks.append(self._session.queries("settle_row", version=row.version))
                event = self.records.empty_event(
                    "finished",
                    version=row.version,
                    name=row.name,
                    direction=Direction.DOWN.value,
                    outcome="not_run",
                    message="it was cut off before it changed anything, and is not asked for any more",
                )
                blocks.append(self._session.queries("insert_event", **event))
        await self.write(*blocks, doing="recording that a down was not run")

    async def flush(self) -> None:
        """Make every step run so far durable: a commit that waits for the log waits for all before it."""
        if self._unflushed:
            await self.write(doing="waiting for the server's log")
            self._unflushed = False

    async def run(self, step: Step, *, durable: bool, following: Sequence[Step] = ()) -> StepResult:
        """Run one step and record it; see `reconciler.model.Writer.run`."""
        if self._session.interrupted:
            # told to stop while something was written down, which had to be whole
            raise asyncio.CancelledError
        self.confirm()
        with self.watch.over(step):
            if step.leftover:
                from reconciler.database.indexes import drop_leftover

                await drop_leftover(self, step)
            if step.transactional:
                return await self._run_transaction(step, following, durable=durable)
            from reconciler.database.statements import run_statements

            with self.watch.message(step.lock_timeout):
                return await run_statements(self, step)

    async def _run_transaction(self, step: Step, following: Sequence[Step], *, durable: bool) -> StepResult:
        patience, conflicts = LockPatience(), Conflicts(self._session.dialect)
        started = monotonic()
        if self._announced is not None and self._announced.step is not step:
            await self._take_back()
        begun = self._announced is not None
        attempt, self._announced = self._announced or self._attempt_at(step), None
        announced = self._attempt_at(following[0]) if following and following[0].transactional else None
        while True:
            message = self._message(attempt, announced, durable=durable, begun=begun)
            # who holds the table has to be seen before the next attempt gives up; the first is not slowed down by looking
            with self.watch.message(step.lock_timeout if patience.attempt > 1 else 0.0):
                answer = await run_message(
                    self._session, message, meanwhile=lambda: self._prepare(following[1:2])
                )
            begun = begun or answer.started
            if self._session.notices.committed_unasked:
                raise ProblemError(
                    await self._in_doubt_of(step, attempt.attempt_id, answer, monotonic() - started)
                )
            if answer.committed:
                self._announced = announced
            if self._session.interrupted:
                if not answer.committed:
                    elapsed = monotonic() - started
                    await self.record_failure(
                        step, interrupted(step), attempt.attempt_id, elapsed=elapsed, begun=begun
                    )
                raise asyncio.CancelledError
            if answer.committed:
                self._unflushed = not durable
                if self._session.dialect.resets_alone:
                    await self._session.reset()
                return StepResult(duration=answer.duration, durable=durable)
            if await self._committed_all_the_same(step, answer):
                return StepResult(duration=monotonic() - started, durable=True)
            if is_conflict(answer) and conflicts.again:
                await self._session.roll_back(step.script.text)
                await conflicts.pause()
                continue
            if not is_lock_timeout(answer):
                break
            self.watch.timed_out(step.lock_timeout)
            if patience.at_an_end:
                break
            await self._session.roll_back(step.script.text)
            await patience.pause()
        problem = self.watch.explain(failure_of(answer, step))
        await self.record_failure(
            step, problem, attempt.attempt_id, elapsed=monotonic() - started, begun=begun
        )
        raise ProblemError(problem)

    async def _committed_all_the_same(self, step: Step, answer: Answer) -> bool:
        """Whether a step whose transaction was told to have failed is in force: there is a server that may say so."""
        if self._session.dialect.transactional_ddl or answer.error is None or not self._session.alive:
            return False
        if self._session.in_transaction or sqlstate_of(answer.error) not in AMBIGUOUS:
            return False
        return await committed(self, step, None)

    async def _in_doubt_of(self, step: Step, attempt_id: str, answer: Answer, elapsed: float) -> Problem:
        """The problem of a step during which the server committed what it was not told to; nothing is run before a person has looked."""
        unasked = self._session.notices.unasked_commit
        assert unasked is not None
        problem = replace(unasked, version=step.version, direction=step.direction.value)
        failed = self.records.failed_event(step, problem, attempt_id, round(elapsed * 1000), ())
        self.unrecorded = failed
        if not self._session.alive:
            return problem
        blocks = [self._session.queries("insert_event", **failed)]
        if not answer.committed:
            blocks = [*self._rows_of_doubt(step, problem), *blocks]
        with contextlib.suppress(ProblemError):
            # what stands on record otherwise is told by whoever takes the lock next
            await self._session.roll_back(step.script.text)
            await self.write(*blocks, doing="recording the failure")
            self.unrecorded = {}
        return problem

    def _rows_of_doubt(self, step: Step, problem: Problem) -> list[str]:
        """The statements that make the history say that nobody knows how much of a step is in force."""
        queries, none_done = self._session.queries, Chain(step.statements).digest(0)
        progress: dict[str, Literal] = {"statements_done": 0, "statements_digest": none_done}
        if step.direction is Direction.UP:
            row = queries("begin_steps_up", **{**self.records.row(step), **progress})
        else:
            row = queries(
                "begin_steps_down", version=step.version, statements_total=len(step.statements), **progress
            )
        doubt = queries(
            "fail_steps",
            version=step.version,
            execution_time_ms=0,
            error_message=mask_literals(str(problem)),
            intent_digest=intent_digest(step.statements[0]),
            intent_object=OPAQUE,
            intent_before=ABSENT,
            **progress,
        )
        return [row, doubt]

    def _attempt_at(self, step: Step) -> _Attempt:
        """A new attempt at `step`."""
        if self._prepared is not None and self._prepared.step is step:
            attempt, self._prepared = self._prepared, None
            return attempt
        queries = self._session.queries
        attempt_id = str(uuid.uuid4())
        facts = self.records.facts(step, attempt_id)
        script = sendable(step.script, step.statements)
        if step.direction is Direction.DOWN:
            history = queries("delete_applied", version=step.version)
        else:
            history = queries("insert_applied", **self.records.row(step))
        return _Attempt(
            step=step,
            attempt_id=attempt_id,
            started=queries("started", **facts),
            succeeded=queries("succeeded", **facts),
            history=history,
            script=script,
            many_rows=may_return_rows(script.text),
        )

    def _prepare(self, steps: Sequence[Step]) -> None:
        """Write down what will be recorded of a step, while the server still works on another."""
        if steps and steps[0].transactional:
            self._prepared = self._attempt_at(steps[0])

    def confirm(self) -> None:
        """Make sure, before anything is sent, that the lock has not been lost meanwhile, as far as that is known here.

        Raises:
            ProblemError: `LockLost`.
        """
        if self._lease is not None:
            self._lease.confirm()

    @property
    def leased(self) -> bool:
        """The lock is a lease."""
        return self._lease is not None

    @property
    def opening(self) -> tuple[str, ...]:
        """The statements that each transaction which runs statements of a migration begins with, after its BEGIN."""
        if self._lease is None:
            return self._session.local_settings
        return (
            *self._session.local_settings,
            *opening_of_transaction(self._session, self._owner, self._fence),
        )

    async def _take_back(self) -> None:
        """Close the attempt that was announced and will not be made, since something newer is declared."""
        if self._announced is not None:
            (step, attempt_id, *_), self._announced = self._announced, None
            queries = self._session.queries
            row = queries("not_run", **self.records.facts(step, attempt_id))
            await self.write(
                queries.attempts(row), doing=f"recording that migration {step.version} was not run"
            )

    def _message(
        self, attempt: _Attempt, announced: _Attempt | None, *, durable: bool, begun: bool
    ) -> StepMessage:
        """The whole step as one message.

        Args:
            attempt: what is done.
            announced: what comes next. That it begins is committed with this step: one transaction less for each.
            durable: the commit waits for the server's log.
            begun: the journal already says that the attempt began.
        """
        session, queries = self._session, self._session.queries
        step = attempt.step
        started = (
            # the journal's word that we began must outlive the transaction it announces; it need not be waited for
            ("BEGIN", *session.durability(waits=False), queries.attempts(attempt.started), "COMMIT")
            if not begun
            else ()
        )
        before = [
            "BEGIN",
            *self.opening,
            f"SET LOCAL lock_timeout = {_milliseconds(step.lock_timeout)}",
            f"SET LOCAL statement_timeout = {_milliseconds(step.statement_timeout)}",
        ]
        if not durable:
            before += session.durability(waits=False)
        history = [attempt.history]
        if step.version in self._in_doubt and step.direction is Direction.UP:
            history.insert(0, queries("forget_failed_row", version=step.version))
        after = (
            *self._session.bookkeeping_scope(step.script.text),
            *session.durability(waits=durable),
            *history,
            queries.attempts(attempt.succeeded, *([announced.started] if announced else ())),
            self.fence,
            "COMMIT",
        )
        return StepMessage(
            started=started,
            before=before,
            script=attempt.script,
            count=len(step.statements),
            after=after,
            reset=self._session.reset_message,
            many_rows=attempt.many_rows,
        )

    async def record_failure(
        self, step: Step, problem: Problem, attempt_id: str, *, elapsed: float, begun: bool
    ) -> None:
        """Write a failed or interrupted transactional step to history and journal, as far as the database can be reached.

        Args:
            step: what failed.
            problem: why.
            attempt_id: of the attempt.
            elapsed: seconds since it began.
            begun: the journal already holds its `started` event.
        """
        milliseconds = round(elapsed * 1000)
        blockers = self.watch.blockers_behind(problem)
        failed = self.records.failed_event(step, problem, attempt_id, milliseconds, blockers)
        self.unrecorded = failed
        if not self._session.alive:
            return
        queries = self._session.queries
        blocks = []
        if not begun:
            blocks.append(queries.attempts(queries("started", **self.records.facts(step, attempt_id))))
        if step.direction is Direction.UP and problem.reason.error_class is ErrorClass.PERMANENT:
            self._in_doubt.add(step.version)
            blocks.append(queries("record_failed_up", **self.records.failed_row(step, problem, milliseconds)))
        blocks.append(queries("insert_event", **failed))
        try:
            await self._session.roll_back(step.script.text)
            await self.write(*blocks, doing="recording the failure")
            self.unrecorded = {}
        except ProblemError as error:
            # the failure itself matters more than that it could not be written down
            raise ProblemError(problem) from error

    async def write(self, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        """Run `blocks` in one fenced transaction that waits for the log; the rows they return.

        The fence also asks whether we still hold the advisory lock: what follows may be a statement that no rollback undoes.

        Raises:
            ProblemError: `LockLost` when the lock is no longer ours; nothing of it is in force then.
        """
        self.confirm()
        try:
            return await self._session.transact(*blocks, self.strict_fence, doing=doing)
        except ProblemError as error:
            if error.problem.sqlstate == "22012":
                raise ProblemError(lock_lost()) from None
            raise

    @property
    def fence(self) -> str:
        """The statement that fails, dividing by zero, when somebody else took the lock; the last before a COMMIT."""
        return self._session.queries("fence", owner=self._owner, fence=self._fence)

    def way_it_was_applied(self, version: int) -> dict[str, Literal]:
        """The columns that tell how the up of `version` ran, as they were when the lock was taken."""
        row = next(row for row in self._rows if row.version == version)
        return {
            "transactional": row.transactional,
            "statements_done": row.statements_total,
            "statements_total": row.statements_total,
            "statements_digest": row.statements_digest,
        }

    def prepare_record_done(self, **columns: Literal) -> str:
        """The statement that prepares the record of what is done of a step outside a transaction, with the fence."""
        return self._session.queries("prepare_record_done", owner=self._owner, fence=self._fence, **columns)

    @property
    def strict_fence(self) -> str:
        """As `fence`, and fails as well when the lock is gone and nobody has taken it: before what no rollback undoes."""
        if self._lease is not None:
            return self._session.queries("strict_fence_of_lease", owner=self._owner, fence=self._fence)
        return self._session.queries(
            "strict_fence",
            owner=self._owner,
            fence=self._fence,
            key_high=ADVISORY_KEY >> 32,
            key_low=ADVISORY_KEY & 0xFFFFFFFF,
        )

    @property
    def holds_lock(self) -> bool:
        """True: nobody else writes meanwhile."""
        return True

    @property
    def session(self) -> Session:
        """The session that holds the lock."""
        return self._session

    async def record(
        self, event: str, problem: Problem | None = None, *, of: AttemptKey | None = None
    ) -> None:
        """Write an event that is no step's: a retry asked for, a plan refused.

        Args:
            event: its name.
            problem: why, for a refusal.
            of: the attempt that it is about.
        """
        known = self.records.plain_event(event, problem, of=of)
        await self.write(self._session.queries("insert_event", **known), doing=f"recording the {event} event")

    async def confirm_lock(self) -> None:
        """Ask whether the lock is still ours; see `reconciler.model.Writer.confirm_lock`."""
        await self.write(doing="asking whether the lock is still ours")
        if self._session.interrupted:
            raise asyncio.CancelledError

    async def record_hook(self, result: HookResult) -> None:
        """Write a `hook` event; see `reconciler.model.Writer.record_hook`."""
        known = self.records.hook_event(result)
        await self.write(
            self._session.queries("insert_hook", **known), doing=f"recording the hook {result.hook.label}"
        )
        if self._session.interrupted:
            raise asyncio.CancelledError

    async def release(self) -> None:
        """Give the lock back. A broken session has already lost an advisory one; a lease its second connection gives back."""
        released = False
        if self._session.alive:
            queries = self._session.queries
            row = queries("release_lock_row", owner=self._owner, fence=self._fence)
            lock = (queries("release_advisory_lock"),) if self._lease is None else ()
            try:
                if self._session.in_transaction:
                    await self._session.roll_back()
                await self._take_back()
                await self._session.transact(row, *lock, doing="releasing the lock")
                released = True
            except ProblemError:
                # an advisory lock lives and dies with the session
                await self._session.close()
            if self._session.notices.committed_unasked:
                # what is wrong with it is told once
                await self._session.close()
        if self._lease is not None:
            # a change of the schema that was under way to the server when the connection broke may arrive yet: let the lease run out
            may_arrive = not self._session.dialect.transactional_ddl
            await self._lease.close(release=not released and not may_arrive)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
