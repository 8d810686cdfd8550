"""Running a migration outside a transaction: statement by statement, so that it is always known which ones are in force.

A statement that a transaction can hold is committed together with its record: it is done and on record, or neither. One
that cannot (`CREATE INDEX CONCURRENTLY`) is announced first, with what to look at to find out whether it took effect.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from reconciler.database.indexes import hidden_invalid_index
from reconciler.database.objects import read_states, sighting
from reconciler.database.outcome import (
    connection_lost,
    failure_of_bookkeeping,
    interrupted,
    statement_failure,
)
from reconciler.database.queries import Literal
from reconciler.model import Direction, Place, Problem, ProblemError, Reason, Statement, Step, StepResult
from reconciler.sqltext import OPAQUE, REPEATABLE, Chain, Intent, intent_digest, intent_of
from reconciler.sqltext.classification import commits, controls_transaction, sets_session
from reconciler.sqltext.lexer import tokens

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from reconciler.database.writer import HeldLock

_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_READ_ONLY = re.compile(r"\bREAD\s+ONLY\b", re.IGNORECASE)
_REFUSED_IN_TRANSACTION = ("25001", "2D000")
"""SQLSTATEs of what only the server knew: this statement must stand alone, or ends transactions itself."""
_STATEMENTS_BEFORE = 3
"""In the message of a statement that a transaction holds: BEGIN and two settings."""
_NO_INTENT: dict[str, Literal] = {"intent_digest": None, "intent_object": None, "intent_before": None}


async def run_statements(writer: HeldLock, step: Step) -> StepResult:
    """Run one step that cannot be a transaction.

    Its row says `running` before the first statement is sent, how many statements are in force, and `success` (or is gone,
    for a down) after the last. Statements between a script's own BEGIN and COMMIT are in force when it commits.

    Raises:
        ProblemError: a statement failed; the row says `failed` and how many statements are in force. Or the connection was
            lost; the row says `running`, and what it says settles how far it came.
    """
    return await _Run(writer, step).to_the_end()


class _Run:
    """One attempt."""

    def __init__(self, writer: HeldLock, step: Step) -> None:
        self._writer = writer
        self._session = writer.session
        self._step = step
        self._chain = Chain(step.statements)
        self._done = step.first_statement
        self._intent: dict[str, Literal] = _NO_INTENT
        self._block_writes = True
        self._prepared: tuple[int, str] | None = None
        self._scope = (*writer.session.bookkeeping_scope, "SET LOCAL synchronous_commit TO DEFAULT")
        # whatever the script has made the default
        limits = f"SET LOCAL statement_timeout = {round(step.statement_timeout * 1000)};\n"
        self._before = (
            f"BEGIN READ WRITE;\nSET LOCAL lock_timeout = {round(step.lock_timeout * 1000)};\n{limits}"
        )
        self._attempt_id = str(uuid.uuid4())
        self._started = monotonic()

    async def to_the_end(self) -> StepResult:
        step, session = self._step, self._session
        await self._record_start()
        problem = await self._restore_session()
        for index in range(step.first_statement, len(step.statements)):
            if problem is not None or session.interrupted:
                break
            try:
                problem = await self._run_one(index)
            except ProblemError as error:
                # between two statements: what is done is written down all the same
                problem = error.problem
        if problem is None and session.in_transaction and not session.interrupted:
            problem = self._never_committed()
        if problem is None and session.interrupted and self._done < len(step.statements):
            problem = interrupted(step)
        if problem is not None:
            problem = self._writer.watch.explain(problem)
            await self._record_failure(problem)
            if session.interrupted:
                raise asyncio.CancelledError
            raise ProblemError(problem)
        elapsed = monotonic() - self._started
        await self._record_end(elapsed)
        if session.interrupted:
            raise asyncio.CancelledError
        await session.command(session.reset_message, doing="resetting the session")
        return StepResult(duration=elapsed, durable=True)

    async def _restore_session(self) -> Problem | None:
        """Do again what statements that are done made of a session that is gone: its search path, its role."""
        for index in range(self._step.first_statement):
            statement = self._step.statements[index]
            if sets_session(list(tokens(statement.text))):
                problem = await self._send(index, "")
                if problem is not None:
                    return problem
        return None

    async def _run_one(self, index: int) -> Problem | None:
        """Run one statement. Returns why it failed, or None."""
        statement = self._step.statements[index]
        part = list(tokens(statement.text))
        if self._session.in_transaction:
            if commits(part) and self._block_writes:
                return await self._commit_block(index)
            problem = await self._send(index, "")
            if problem is None and not self._session.in_transaction:
                # rolled back, or committed after nothing was written: what stands there need not be done again
                self._done = index + 1
            return problem
        if controls_transaction(part):
            self._block_writes = not _READ_ONLY.search(statement.text)
            return await self._send(index, self._time_limits(statement))
        if sets_session(part):
            problem = await self._send(index, self._time_limits(statement))
            if problem is None:
                self._done = index + 1
            return problem
        intent = intent_of(statement, part)
        if intent is None:
            return await self._run_with_record(index)
        return await self._run_alone(index, intent)

    async def _run_with_record(self, index: int) -> Problem | None:
        """Run a statement and its record in one transaction."""
        step, session, statement = self._step, self._session, self._step.statements[index]
        if self._prepared is None or self._prepared[0] != index:
            self._prepare(index)
        assert self._prepared is not None
        text = self._prepared[1]
        try:
            results = await session.send(
                text,
                many_rows=True,
                copy_data=_copy_data(statement),
                meanwhile=lambda: self._prepare(index + 1),
            )
        except ProblemError as lost:
            return connection_lost(step, lost.problem.message)
        if results[-1].command_status == b"COMMIT":
            self._done = index + 1
            self._intent = _NO_INTENT
            return None
        if not session.alive:
            return connection_lost(step, "the server closed the connection")
        if session.in_transaction:
            await session.command("ROLLBACK", doing="rolling back")
        if session.interrupted:
            return interrupted(step)
        ran = len(results) - 1 - _STATEMENTS_BEFORE
        if ran > 1:
            return failure_of_bookkeeping(results[-1], step)
        from reconciler.database.failures import sqlstate_of

        if ran == 0 and sqlstate_of(results[-1]) in _REFUSED_IN_TRANSACTION:
            return await self._run_alone(index, Intent(OPAQUE))
        return self._failed(results[-1], index, len(self._before))

    def _prepare(self, index: int) -> None:
        """Write the message for a statement and its record, while the server works on the one before it."""
        if index < len(self._step.statements):
            after = ";\n".join((*self._bookkeeping(index + 1), "COMMIT"))
            self._prepared = index, f"{self._before}{self._step.statements[index].text}\n;\n{after}"

    async def _run_alone(self, index: int, intent: Intent) -> Problem | None:
        """Announce a statement, run it by itself, and see to it that it is on record before anything else runs."""
        statement = self._step.statements[index]
        what, state = await sighting(self._session, intent)
        await self._record(
            {"intent_digest": intent_digest(statement), "intent_object": what, "intent_before": state}
        )
        problem = await self._send(index, self._time_limits(statement))
        if problem is None:
            problem = await hidden_invalid_index(self._session, self._step, index, what)
        if problem is not None:
            return problem
        self._done = index + 1
        self._intent = _NO_INTENT
        following = self._step.statements[index + 1 : index + 2]
        if following and intent_of(following[0]) is None:
            await self._record(_NO_INTENT)
        return None

    async def _commit_block(self, index: int) -> Problem | None:
        """Commit the script's own transaction together with the record of it."""
        statement = self._step.statements[index]
        text = ";\n".join((*self._bookkeeping(index + 1), statement.text))
        try:
            results = await self._session.send(text)
        except ProblemError as lost:
            return connection_lost(self._step, lost.problem.message)
        if results[-1].command_status == b"COMMIT":
            self._done = index + 1
            self._intent = _NO_INTENT
            return None
        if not self._session.alive:
            return connection_lost(self._step, "the server closed the connection")
        if self._session.interrupted:
            return interrupted(self._step)
        return failure_of_bookkeeping(results[-1], self._step)

    async def _send(self, index: int, limits: str) -> Problem | None:
        """Send one statement as it is. Returns why it failed, or None."""
        from reconciler.database.failures import is_error, position_of

        step, session, statement = self._step, self._session, self._step.statements[index]
        try:
            if limits:
                await session.command(limits, doing="setting time limits")
            if session.interrupted:
                return interrupted(step)
            results = await session.send(statement.text, many_rows=True, copy_data=_copy_data(statement))
        except ProblemError as lost:
            return connection_lost(step, lost.problem.message)
        if not is_error(results[-1]):
            return None
        if session.interrupted:
            return interrupted(step)
        if not session.alive:
            return connection_lost(step, "the server closed the connection")
        if position_of(results[-1]) is not None:
            # found wrong when it was read, so that nothing of it was run
            self._intent = _NO_INTENT
        return self._failed(results[-1], index, 0)

    def _failed(self, error: PGresult, index: int, prefix: int) -> Problem:
        """The failure of a statement that stood behind `prefix` characters of its message."""
        from reconciler.database.failures import position_of

        statement = self._step.statements[index]
        position = position_of(error)
        offset = None
        if position is not None and 0 <= position - 1 - prefix <= len(statement.text):
            offset = statement.offset + position - 1 - prefix
        return statement_failure(error, self._step, index, offset, self._done)

    def _time_limits(self, statement: Statement) -> str:
        """The settings for one statement.

        `CONCURRENTLY` waits for every older transaction to end and blocks nobody meanwhile. Giving up on that wait would
        only leave an invalid index behind, so no `lock_timeout` applies to it.
        """
        lock_timeout = 0.0 if _CONCURRENTLY.search(statement.text) else self._step.lock_timeout
        return (
            f"SET lock_timeout = {round(lock_timeout * 1000)};"
            f"SET statement_timeout = {round(self._step.statement_timeout * 1000)}"
        )

    def _progress(self, done: int) -> dict[str, Literal]:
        return {"statements_done": done, "statements_digest": self._chain.digest(done)}

    def _bookkeeping(self, done: int) -> Sequence[str]:
        """The record of `done` statements, for a transaction that the script's statements share."""
        return (
            *self._scope,
            self._writer.record_done(version=self._step.version, **self._progress(done)),
        )

    async def _record(self, intent: dict[str, Literal]) -> None:
        """Write down what is done, and what is about to be done, in one write."""
        version = self._step.version
        await self._writer.write(
            self._session.queries("record_intent", version=version, **self._progress(self._done), **intent),
            doing=f"recording the progress of migration {version}",
        )
        self._intent = intent

    async def _record_start(self) -> None:
        writer, step = self._writer, self._step
        queries = self._session.queries
        progress = self._progress(self._done)
        if step.direction is Direction.UP:
            row = queries("begin_steps_up", **{**writer.records.row(step), **progress})
        else:
            row = queries(
                "begin_steps_down", version=step.version, statements_total=len(step.statements), **progress
            )
        rows, *_ = await writer.write(
            row,
            queries.attempts(queries("started", **writer.records.facts(step, self._attempt_id))),
            doing=f"recording the start of migration {step.version}",
        )
        if not rows:
            raise ProblemError(
                Problem(
                    reason=Reason.LOCK_LOST,
                    message=f"the row of migration {step.version} was changed by somebody else since it was read",
                    remedy="the history is read again; it is tried again by itself",
                )
            )

    async def _record_end(self, elapsed: float) -> None:
        writer, step = self._writer, self._step
        queries = self._session.queries
        milliseconds = round(elapsed * 1000)
        if step.direction is Direction.UP:
            digest = self._chain.digest(len(step.statements))
            row = queries(
                "end_steps_up",
                version=step.version,
                execution_time_ms=milliseconds,
                statements_digest=digest,
            )
        else:
            row = queries("delete_applied", version=step.version)
        event = {
            **writer.records.empty_event("finished"),
            **writer.records.facts(step, self._attempt_id),
            "outcome": "success",
            "execution_time_ms": milliseconds,
        }
        await writer.write(
            row, queries("insert_event", **event), doing=f"recording the end of migration {step.version}"
        )

    async def _record_failure(self, problem: Problem) -> None:
        from reconciler.database.failures import mask_literals

        writer, step, session = self._writer, self._step, self._session
        if not session.alive:
            return
        milliseconds = round((monotonic() - self._started) * 1000)
        try:
            await session.roll_back()
            untouched = step.direction is Direction.DOWN and not self._done and await self._as_before()
            blockers = writer.watch.blockers_behind(problem)
            failed = writer.records.failed_event(step, problem, self._attempt_id, milliseconds, blockers)
            await writer.write(
                session.queries(
                    "forget_down",
                    version=step.version,
                    **writer.way_it_was_applied(step.version),
                )
                if untouched
                else session.queries(
                    "fail_steps",
                    version=step.version,
                    execution_time_ms=milliseconds,
                    error_message=mask_literals(str(problem)),
                    **self._progress(self._done),
                    **self._intent,
                ),
                session.queries("insert_event", **failed),
                doing="recording the failure",
            )
        except ProblemError as error:
            # the failure itself matters more than that it could not be written down
            raise ProblemError(problem) from error

    async def _as_before(self) -> bool:
        """Whether the statement that failed has left nothing behind, as far as looking tells."""
        what, before = self._intent["intent_object"], self._intent["intent_before"]
        if what is None or what == REPEATABLE:
            return True
        if what == OPAQUE:
            return False
        return (await read_states(self._session, [str(what)]))[str(what)] == before

    def _never_committed(self) -> Problem:
        step, done = self._step, self._done
        return Problem(
            reason=Reason.STATEMENT_FAILED,
            message=f"migration {step.version} ({step.name}) {step.direction.value} ends inside a transaction that it began itself, which was "
            f"rolled back; {done} of its {len(step.statements)} statements are in force",
            remedy=f"end it with COMMIT in {step.script.path}",
            place=Place(step.script.path, step.statements[done].line, step.statements[done].column),
            version=step.version,
            direction=step.direction.value,
            statement_index=done + 1,
        )


def _copy_data(statement: Statement) -> tuple[str, ...]:
    return () if statement.copy_data is None else (statement.copy_data,)
