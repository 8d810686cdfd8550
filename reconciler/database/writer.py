"""The one writer of a database: holds the lock, runs steps, records them, fences every write."""

from __future__ import annotations

import asyncio
import json
import random
import re
import uuid
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from reconciler import __version__
from reconciler.database.failures import mask_literals
from reconciler.database.messages import StepMessage, run_message
from reconciler.database.objects import read_states
from reconciler.database.outcome import (
    excerpt_for_journal,
    failure_of,
    interrupted,
    is_lock_timeout,
    lock_lost,
)
from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY, Reader, read_stored_downs
from reconciler.database.session import Session
from reconciler.database.watching import Watch
from reconciler.model import (
    Actor,
    AttemptKey,
    Blocker,
    Direction,
    ErrorClass,
    HistoryRow,
    HookResult,
    Migration,
    Observation,
    Pin,
    Problem,
    ProblemError,
    Reason,
    RowStatus,
    Step,
    StepResult,
    StoredDown,
)
from reconciler.model.encoding import blocker_as_dict
from reconciler.redaction import redact
from reconciler.sqltext import Sendable, sendable

_LOCK_ATTEMPTS = 10
"""A transactional step that meets a table lock is tried this often before it stalls."""
_LOCK_PAUSE = 0.5
"""Seconds: the longest first pause between those attempts; it doubles up to eight times as much."""


_LONGEST_DURATION = 2**31 - 1
"""Milliseconds that the journal's column has room for: 24 days."""


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
    """Writes to a database whose lock this process holds on this very session."""

    def __init__(
        self, session: Session, reader: Reader, actor: Actor, owner: uuid.UUID, fence: int, watch: Watch
    ) -> None:
        self._session = session
        self.watch = watch
        self._reader = reader
        self._actor = actor
        self._owner = str(owner)
        self._fence = fence
        self._unflushed = False
        self._prepared: _Attempt | None = None
        self._announced: _Attempt | None = None
        """Its `started` event was committed with the step before it, and it has not been run."""
        self._rows: Sequence[HistoryRow] = ()
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
            event = self.empty_event("repair", version=pin.version, name=pin.migration.name, outcome="pinned")
            blocks.append(self._session.queries("insert_event", **event))
        await self.write(*blocks, doing="completing the rows of the earlier tool")

    async def flush(self) -> None:
        """Make every step run so far durable: a commit that waits for the log waits for all before it."""
        if self._unflushed:
            await self.write(doing="waiting for the server's log")
            self._unflushed = False

    async def run(self, step: Step, *, durable: bool, following: Sequence[Step] = ()) -> StepResult:
        """Run one step and record it; see `reconciler.model.Writer.run`."""
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
        pause = _LOCK_PAUSE
        started = monotonic()
        if self._announced is not None and self._announced.step is not step:
            await self._take_back()
        begun = self._announced is not None
        attempt, self._announced = self._announced or self._attempt_at(step), None
        announced = self._attempt_at(following[0]) if following and following[0].transactional else None
        for count in range(1, _LOCK_ATTEMPTS + 1):
            message = self._message(attempt, announced, durable=durable, begun=begun)
            # who holds the table has to be seen before the next attempt gives up; the first is not slowed down by looking
            with self.watch.message(step.lock_timeout if count > 1 else 0.0):
                answer = await run_message(
                    self._session, message, meanwhile=lambda: self._prepare(following[1:2])
                )
            begun = begun or answer.started
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
                return StepResult(duration=answer.duration, durable=durable)
            if not is_lock_timeout(answer):
                break
            self.watch.timed_out(step.lock_timeout)
            if count == _LOCK_ATTEMPTS:
                break
            await self._session.roll_back()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            pause = min(pause * 2, _LOCK_PAUSE * 8)
        problem = self.watch.explain(failure_of(answer, step))
        await self.record_failure(
            step, problem, attempt.attempt_id, elapsed=monotonic() - started, begun=begun
        )
        raise ProblemError(problem)

    def _attempt_at(self, step: Step) -> _Attempt:
        """A new attempt at `step`."""
        if self._prepared is not None and self._prepared.step is step:
            attempt, self._prepared = self._prepared, None
            return attempt
        queries = self._session.queries
        attempt_id = str(uuid.uuid4())
        facts = self.facts(step, attempt_id)
        script = sendable(step.script, step.statements)
        if step.direction is Direction.DOWN:
            history = queries("delete_applied", version=step.version)
        else:
            history = queries("insert_applied", **self.row(step))
        return _Attempt(
            step=step,
            attempt_id=attempt_id,
            started=queries("started", **facts),
            succeeded=queries("succeeded", **facts),
            history=history,
            script=script,
            many_rows=_may_return_rows(script.text),
        )

    def _prepare(self, steps: Sequence[Step]) -> None:
        """Write down what will be recorded of a step, while the server still works on another."""
        if steps and steps[0].transactional:
            self._prepared = self._attempt_at(steps[0])

    async def _take_back(self) -> None:
        """Close the attempt that was announced and will not be made, since something newer is declared."""
        if self._announced is not None:
            (step, attempt_id, *_), self._announced = self._announced, None
            queries = self._session.queries
            row = queries("not_run", **self.facts(step, attempt_id))
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
        queries = self._session.queries
        step = attempt.step
        started = (
            # the journal's word that we began must outlive the transaction it announces; it need not be waited for
            ("BEGIN", "SET LOCAL synchronous_commit = off", queries.attempts(attempt.started), "COMMIT")
            if not begun
            else ()
        )
        before = [
            "BEGIN",
            f"SET LOCAL lock_timeout = {_milliseconds(step.lock_timeout)}",
            f"SET LOCAL statement_timeout = {_milliseconds(step.statement_timeout)}",
        ]
        if not durable:
            before.append("SET LOCAL synchronous_commit = off")
        history = [attempt.history]
        if step.version in self._in_doubt and step.direction is Direction.UP:
            history.insert(0, queries("forget_failed_row", version=step.version))
        after = (
            *self._session.bookkeeping_scope,
            "SET LOCAL synchronous_commit " + ("TO DEFAULT" if durable else "= off"),
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
        if not self._session.alive:
            return
        queries = self._session.queries
        milliseconds = round(elapsed * 1000)
        blocks = []
        if not begun:
            blocks.append(queries.attempts(queries("started", **self.facts(step, attempt_id))))
        if step.direction is Direction.UP and problem.reason.error_class is ErrorClass.PERMANENT:
            row = self.row(step)
            self._in_doubt.add(step.version)
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
            "excerpt": mask_literals(excerpt_for_journal(step, problem)) or None,
            "statement_index": problem.statement_index,
            "blockers": _as_json(self.watch.blockers_behind(problem)),
        }

    async def write(self, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        """Run `blocks` in one fenced transaction that waits for the log; the rows they return.

        The fence also asks whether we still hold the advisory lock: what follows may be a statement that no rollback undoes.

        Raises:
            ProblemError: `LockLost` when the lock is no longer ours; nothing of it is in force then.
        """
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

    def record_done(self, **columns: Literal) -> str:
        """The statement that records what is done of a step outside a transaction, with the fence."""
        return self._session.queries("record_done", owner=self._owner, fence=self._fence, **columns)

    @property
    def strict_fence(self) -> str:
        """As `fence`, and fails as well when the lock is gone and nobody has taken it: before what no rollback undoes."""
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
            **kept(migration, step.token_checksum),
            "statements_total": len(step.statements),
            "git_revision": self._actor.git_revision or None,
            "tool_version": __version__,
        }

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

    async def record(
        self, event: str, problem: Problem | None = None, *, of: AttemptKey | None = None
    ) -> None:
        """Write an event that is no step's: a retry asked for, a plan refused.

        Args:
            event: its name.
            problem: why, for a refusal.
            of: the attempt that it is about.
        """
        known = self.empty_event(event)
        if of is not None:
            known |= {"version": of.version, "direction": of.direction.value}
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

    async def record_hook(self, result: HookResult) -> None:
        """Write a `hook` event; see `reconciler.model.Writer.record_hook`."""
        occasion, problem = result.occasion, result.problem
        way = f"{occasion.moment}, from version {occasion.from_version} to {occasion.target_version}"
        lines = [way] if problem is None else [f"{way}: {problem.message}", *problem.detail.splitlines()]
        known: dict[str, Literal] = {
            "attempt": str(uuid.uuid4()),
            "name": result.hook.label[:255],
            "outcome": "success" if problem is None else "failed",
            "execution_time_ms": min(round(result.duration * 1000), _LONGEST_DURATION),
            "reason": problem.reason.value if problem is not None else None,
            "message": redact("\n".join(lines)),
            "artefact": redact(result.artefact) or None,
            **self._who(),
        }
        await self.write(
            self._session.queries("insert_hook", **known), doing=f"recording the hook {result.hook.label}"
        )

    async def release(self) -> None:
        """Give the lock back. A broken session has already lost it."""
        if not self._session.alive:
            return
        queries = self._session.queries
        try:
            if self._session.in_transaction:
                await self._session.roll_back()
            await self._take_back()
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
    "blockers",
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


def kept(migration: Migration, token_checksum: str) -> dict[str, Literal]:
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


def _as_json(blockers: Sequence[Blocker]) -> str | None:
    """Who was in the way, for the journal."""
    return json.dumps([blocker_as_dict(blocker) for blocker in blockers]) if blockers else None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
