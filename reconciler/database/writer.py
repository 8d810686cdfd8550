"""The one writer of a database: holds the lock, runs steps, records them, fences every write."""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from reconciler import __version__
from reconciler.database.failures import mask_literals
from reconciler.database.messages import StepMessage, run_message
from reconciler.database.outcome import failure_of, interrupted, is_lock_timeout, lock_lost
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY, Reader, read_stored_downs
from reconciler.database.session import BOOKKEEPING_LIMITS, Session
from reconciler.model import (
    Actor,
    Direction,
    ErrorClass,
    Migration,
    Observation,
    Pin,
    Problem,
    ProblemError,
    Reason,
    Step,
    StepResult,
    StoredDown,
)
from reconciler.sqltext import statements_digest

_LOCK_ATTEMPTS = 10
"""A transactional step that meets a table lock is tried this often before it stalls."""
_LOCK_PAUSE = 0.5
"""Seconds: the longest first pause between those attempts; it doubles up to eight times as much."""


class _Records(NamedTuple):
    """What is written of one attempt at a transactional step, as SQL.

    `started` is the journal's event before it; `succeeded` the rows of its own transaction, the last of which returns the
    milliseconds it took.
    """

    step: Step
    attempt_id: str
    started: str
    succeeded: tuple[str, ...]
    many_rows: bool


class HeldLock:
    """Writes to a database whose lock this process holds on this very session."""

    def __init__(self, session: Session, reader: Reader, actor: Actor, owner: uuid.UUID, fence: int) -> None:
        self._session = session
        self._reader = reader
        self._actor = actor
        self._owner = str(owner)
        self._fence = fence
        self._unflushed = False
        self._prepared: _Records | None = None

    async def observe(self) -> Observation:
        """Read the database again, now that nobody else writes."""
        return await self._reader.observe(self._session)

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`, without those that have none."""
        return await read_stored_downs(self._session, list(versions))

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Complete the rows of the earlier tool, all in one transaction, and say so in the journal."""
        blocks = []
        for pin in pins:
            blocks.append(
                self._session.queries(
                    "pin_row",
                    version=pin.version,
                    name=pin.migration.name,
                    **_kept(pin.migration, pin.token_checksum),
                )
            )
            event = self.empty_event("repair", version=pin.version, name=pin.migration.name, outcome="pinned")
            blocks.append(self._session.queries("insert_event", **event))
        await self.write(*blocks, doing="completing the rows of the earlier tool")

    async def flush(self) -> None:
        """Make every step run so far durable: a commit that waits for the log waits for all before it."""
        if self._unflushed:
            await self.write(doing="waiting for the server's log")
            self._unflushed = False

    async def run(self, step: Step, *, durable: bool, following: Step | None = None) -> StepResult:
        """Run one step and record it; see `reconciler.model.Writer.run`."""
        if not step.transactional:
            from reconciler.database.statements import run_statements

            return await run_statements(self, step)
        pause = _LOCK_PAUSE
        started = monotonic()
        records = self._records_of(step)
        attempt_id = records.attempt_id
        begun = False
        for attempt in range(1, _LOCK_ATTEMPTS + 1):
            message = self._message(step, records, durable=durable, begun=begun)
            answer = await run_message(self._session, message, meanwhile=lambda: self._prepare(following))
            begun = begun or answer.started
            if self._session.interrupted:
                if not answer.committed:
                    elapsed = monotonic() - started
                    await self.record_failure(
                        step, interrupted(step), attempt_id, elapsed=elapsed, begun=begun
                    )
                raise asyncio.CancelledError
            if answer.committed:
                self._unflushed = not durable
                return StepResult(duration=answer.duration, durable=durable)
            if not (is_lock_timeout(answer) and attempt < _LOCK_ATTEMPTS):
                break
            await self._session.roll_back()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            pause = min(pause * 2, _LOCK_PAUSE * 8)
        problem = failure_of(answer, step)
        await self.record_failure(step, problem, attempt_id, elapsed=monotonic() - started, begun=begun)
        raise ProblemError(problem)

    def _prepare(self, step: Step | None) -> None:
        """Write down what will be recorded of a step, while the server still works on the one before it."""
        if (
            step is not None
            and step.transactional
            and (self._prepared is None or self._prepared.step is not step)
        ):
            self._prepared = self._records_of(step)

    def _records_of(self, step: Step) -> _Records:
        """What history and journal will say of an attempt at `step`."""
        if self._prepared is not None and self._prepared.step is step:
            records, self._prepared = self._prepared, None
            return records
        queries = self._session.queries
        attempt_id = str(uuid.uuid4())
        facts = self.facts(step, attempt_id)
        if step.direction is Direction.UP:
            history = [
                queries("forget_failed_row", version=step.version),
                queries("insert_applied", **self.row(step)),
            ]
        else:
            history = [queries("delete_applied", version=step.version)]
        return _Records(
            step=step,
            attempt_id=attempt_id,
            started=queries("insert_started", **facts),
            succeeded=(*history, queries("insert_succeeded", **facts)),
            many_rows=_may_return_rows(step.script.text),
        )

    def _message(self, step: Step, records: _Records, *, durable: bool, begun: bool) -> StepMessage:
        """The whole step as one message."""
        # the journal's word that we began must outlive the transaction it announces; it need not be waited for
        started = ("BEGIN", "SET LOCAL synchronous_commit = off", records.started, "COMMIT")
        before = [
            "BEGIN",
            f"SET LOCAL lock_timeout = {_milliseconds(step.lock_timeout)}",
            f"SET LOCAL statement_timeout = {_milliseconds(step.statement_timeout)}",
        ]
        if not durable:
            before.append("SET LOCAL synchronous_commit = off")
        after = (
            # deferred constraints and triggers must still see the search path of the script
            "SET CONSTRAINTS ALL IMMEDIATE",
            *BOOKKEEPING_LIMITS,
            # whoever the script made us
            "SET LOCAL SESSION AUTHORIZATION DEFAULT",
            self._session.local_role,
            "SET LOCAL search_path = pg_catalog",
            "SET LOCAL synchronous_commit " + ("TO DEFAULT" if durable else "= off"),
            *records.succeeded,
            self._session.queries("fence", owner=self._owner, fence=self._fence),
            "COMMIT",
        )
        return StepMessage(
            started=() if begun else started,
            before=before,
            script=step.script,
            count=len(step.statements),
            after=after,
            reset=self._session.reset_message,
            many_rows=records.many_rows,
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
        if not self._session.alive:
            return
        queries = self._session.queries
        milliseconds = round(elapsed * 1000)
        blocks = []
        if not begun:
            blocks.append(queries("insert_started", **self.facts(step, attempt_id)))
        if step.direction is Direction.UP and problem.reason.error_class is ErrorClass.PERMANENT:
            row = self.row(step)
            blocks.append(
                queries(
                    "record_failed_up",
                    execution_time_ms=milliseconds,
                    error_message=mask_literals(str(problem)),
                    **{key: row[key] for key in _FAILED_COLUMNS},
                )
            )
        blocks.append(queries("insert_event", **self.failed_event(step, problem, attempt_id, milliseconds)))
        try:
            await self._session.roll_back()
            await self.write(*blocks, doing="recording the failure")
        except ProblemError as error:
            # the failure itself matters more than that it could not be written down
            raise ProblemError(problem) from error

    def failed_event(
        self, step: Step, problem: Problem, attempt_id: str, milliseconds: int
    ) -> dict[str, Literal]:
        """The journal's columns for a step that failed."""
        return {
            **self.empty_event("finished"),
            **self.facts(step, attempt_id),
            "outcome": "interrupted" if problem.reason is Reason.INTERRUPTED else "failed",
            "execution_time_ms": milliseconds,
            "reason": problem.reason.value,
            "message": mask_literals(problem.message),
            "remedy": problem.remedy,
            "sqlstate": problem.sqlstate or None,
            "path": problem.place.path if problem.place else step.script.path,
            "line": problem.place.line if problem.place else None,
            "column_number": problem.place.column if problem.place else None,
            "excerpt": mask_literals(problem.excerpt) or None,
            "statement_index": problem.statement_index,
        }

    async def write(self, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        """Run `blocks` in one fenced transaction that waits for the log; the rows they return.

        The fence also asks whether we still hold the advisory lock: what follows may be a statement that no rollback undoes.

        Raises:
            ProblemError: `LockLost` when the lock is no longer ours; nothing of it is in force then.
        """
        fence = self._session.queries(
            "strict_fence",
            owner=self._owner,
            fence=self._fence,
            key_high=ADVISORY_KEY >> 32,
            key_low=ADVISORY_KEY & 0xFFFFFFFF,
        )
        try:
            return await self._session.transact(*blocks, fence, doing=doing)
        except ProblemError as error:
            if error.problem.sqlstate == "22012":
                raise ProblemError(lock_lost()) from None
            raise

    @property
    def session(self) -> Session:
        """The session that holds the lock."""
        return self._session

    def facts(self, step: Step, attempt_id: str) -> dict[str, Literal]:
        """The journal's columns that every event of one attempt shares."""
        return {
            "attempt": attempt_id,
            "version": step.version,
            "name": step.name,
            "direction": step.direction.value,
            "script_source": step.source.value,
            "script_digest": step.key.script_digest,
            "policy_digest": step.key.policy_digest,
            **self._who(),
        }

    def row(self, step: Step) -> dict[str, Literal]:
        """The history row of an up."""
        migration = step.migration
        if migration is None:
            raise ValueError(f"the up of version {step.version} has no migration file")
        return {
            "version": step.version,
            "name": step.name,
            **_kept(migration, step.token_checksum),
            "statements_total": len(step.statements),
            "git_revision": self._actor.git_revision or None,
            "tool_version": __version__,
        }

    def progress(self, step: Step, done: int) -> dict[str, Literal]:
        """The columns that tell how far a step outside a transaction has come."""
        return {"statements_done": done, "statements_digest": statements_digest(step.statements, done)}

    def _who(self) -> dict[str, Literal]:
        actor = self._actor
        return {
            "git_revision": actor.git_revision or None,
            "git_author": actor.git_author or None,
            "environment": actor.claim.environment if actor.claim else None,
            "database_name": actor.claim.database if actor.claim else None,
            "verb": actor.verb,
            "os_user": actor.user,
            "host": actor.host,
            "pid": actor.pid,
            "tool_version": __version__,
            "fence": self._fence,
        }

    def empty_event(self, event: str, **known: Literal) -> dict[str, Literal]:
        """The journal's columns for an event, all empty but who writes it and what is `known`."""
        empty: dict[str, Literal] = dict.fromkeys(_EVENT_COLUMNS)
        return {**empty, "attempt": str(uuid.uuid4()), "event": event, **self._who(), **known}

    async def record(self, event: str, problem: Problem | None = None) -> None:
        """Write an event that is no step's: a retry asked for, a plan refused."""
        known = self.empty_event(event)
        if problem is not None:
            known |= {
                "version": problem.version,
                "reason": problem.reason.value,
                "message": mask_literals(problem.message),
                "remedy": problem.remedy,
                "path": problem.place.path if problem.place else None,
                "line": problem.place.line if problem.place else None,
                "column_number": problem.place.column if problem.place else None,
            }
        await self.write(self._session.queries("insert_event", **known), doing=f"recording the {event} event")

    async def release(self) -> None:
        """Give the lock back. A broken session has already lost it."""
        if not self._session.alive:
            return
        queries = self._session.queries
        try:
            if self._session.in_transaction:
                await self._session.roll_back()
            await self._session.transact(
                queries("release_lock_row", owner=self._owner, fence=self._fence),
                queries("release_advisory_lock"),
                doing="releasing the lock",
            )
        except ProblemError:
            # the lock lives and dies with the session
            await self._session.close()


_EVENT_COLUMNS = [
    "attempt",
    "event",
    "version",
    "name",
    "direction",
    "outcome",
    "script_source",
    "script_digest",
    "policy_digest",
    "execution_time_ms",
    "reason",
    "message",
    "remedy",
    "sqlstate",
    "path",
    "line",
    "column_number",
    "excerpt",
    "statement_index",
]
_FAILED_COLUMNS = [
    "version",
    "name",
    "checksum",
    "path",
    "token_checksum",
    "statements_total",
    "git_revision",
    "tool_version",
]


def _kept(migration: Migration, token_checksum: str) -> dict[str, Literal]:
    """What of a migration lives on with the database: its digests and all that a later rollback needs."""
    down = migration.down
    directives = migration.directives
    return {
        "checksum": migration.checksum,
        "token_checksum": token_checksum,
        "path": migration.path,
        "down_script": down.text if down else None,
        "down_checksum": migration.down_checksum,
        "down_first_line": down.first_line if down else None,
        "no_transaction": directives.no_transaction,
        "irreversible": directives.irreversible,
        "lock_timeout": directives.lock_timeout,
        "statement_timeout": directives.statement_timeout,
    }


_MAY_RETURN_ROWS = re.compile(
    r"(?:^|;)(?:\s|--.*\n)*(?:SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN|FETCH|CALL|EXECUTE|[(/])|\bRETURNING\b",
    re.IGNORECASE,
)
"""Also true for a statement behind a block comment: it is only a question of how results are read."""


def _may_return_rows(script: str) -> bool:
    """Whether `script` may send us rows, of which nobody knows how many."""
    return _MAY_RETURN_ROWS.search(script) is not None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
