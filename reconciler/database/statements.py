"""Running a migration outside a transaction: statement by statement, so that it is always known which ones are in force.

A statement that a transaction can hold is committed together with its record: it is done and on record, or neither. One
that cannot (`CREATE INDEX CONCURRENTLY`) is announced first, with what to look at to find out whether it took effect.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.database.ambiguity import AMBIGUOUS, committed, settled
from reconciler.database.conflicts import CONFLICT, Conflicts
from reconciler.database.indexes import hidden_invalid_index, tell_of_leftovers, with_leftovers
from reconciler.database.lease import MARK
from reconciler.database.messages import may_return_rows
from reconciler.database.notices import with_jobs
from reconciler.database.objects import sighting
from reconciler.database.outcome import (
    connection_lost,
    failure_of_bookkeeping,
    interrupted,
    statement_failure,
)
from reconciler.database.patience import LockPatience
from reconciler.database.step_rows import ROW_GONE, StepRow
from reconciler.model import Place, Problem, ProblemError, Reason, Statement, Step, StepResult
from reconciler.sqltext import OPAQUE, Intent, cockroachdb_intent_of, intent_of, settings_in_force
from reconciler.sqltext.classification import (
    begins_read_only,
    commits,
    controls_transaction,
    is_concurrent,
    sets_session,
)
from reconciler.sqltext.lexer import Token, tokens

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from reconciler.database.writer import HeldLock

_REFUSED_IN_TRANSACTION = ("25001", "2D000")
"""SQLSTATEs of what only the server knew: this statement must stand alone, or ends transactions itself."""
_NOT_PREPARED = "26000"
_LOCK_NOT_AVAILABLE = "55P03"
_OUTLIVES_A_ROLLBACK = ("PREPARE", "DEALLOCATE")


async def run_statements(writer: HeldLock, step: Step) -> StepResult:
    """Run one step that cannot be a transaction.

    Its row says `running` before the first statement is sent, how many statements are in force, and `success` (or is gone,
    for a down) after the last. Statements between a script's own BEGIN and COMMIT are in force when it commits. What waited
    in vain for a table's lock and changed nothing is tried again, as a whole transaction is.

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
        self._row = StepRow(writer, step)
        self._done = step.first_statement
        self._conflicts = Conflicts(writer.session.dialect)
        self._block_writes = True
        self._block_repeatable = True
        self._repeatable = False
        """What failed has changed nothing, and may be run again from the first statement that is not done."""
        self._warnings: list[Problem] = []
        self._prepared: tuple[int, str] | None = None
        self._limits = (
            f"SET LOCAL lock_timeout = {round(step.lock_timeout * 1000)}",
            f"SET LOCAL statement_timeout = {round(step.statement_timeout * 1000)}",
        )
        before = ("BEGIN READ WRITE", *writer.opening, *self._limits)
        self._before = ";\n".join(before) + ";\n"
        self._statements_before = len(before)

    async def to_the_end(self) -> StepResult:
        step, session = self._step, self._session
        await self._row.begin(self._done)
        problem = await self._restore_session()
        if problem is None:
            problem = await self._run_all()
        if problem is None and session.in_transaction and not session.interrupted:
            problem = self._never_committed()
        if problem is None and session.interrupted and self._done < len(step.statements):
            problem = interrupted(step)
        if problem is None:
            try:
                await self._row.end()
            except ProblemError as error:
                problem = error.problem
        if problem is not None:
            problem = self._writer.watch.explain(problem)
            await self._row.fail(problem, self._done)
            if session.interrupted:
                raise asyncio.CancelledError
            raise ProblemError(problem)
        elapsed = self._row.elapsed
        if session.interrupted:
            raise asyncio.CancelledError
        await session.reset()
        return StepResult(duration=elapsed, durable=True, warnings=tuple(self._warnings))

    async def _run_all(self) -> Problem | None:
        """Run what is not done. Returns why that ended early, or None."""
        index, patience, since = self._done, LockPatience(), self._done
        while index < len(self._step.statements) and not self._session.interrupted:
            self._repeatable = False
            try:
                self._writer.confirm()
                problem = await self._run_one(index)
            except ProblemError as error:
                # between two statements: what is done is written down all the same
                problem = error.problem
            unasked = self._session.notices.unasked_commit
            if unasked is not None:
                # whether this statement is in force a person has to find out
                if self._done == index:
                    self._row.doubt(index)
                return replace(unasked, version=self._step.version, direction=self._step.direction.value)
            if problem is None:
                index += 1
                continue
            if since != self._done:
                patience, since = LockPatience(), self._done
            if not self._gave_up_waiting(problem) or patience.at_an_end:
                return problem
            self._writer.watch.timed_out(self._step.lock_timeout)
            if self._session.in_transaction:
                await self._session.roll_back_only(self._step.script.text)
            try:
                await patience.pause()
            except asyncio.CancelledError:
                self._session.interrupted = True
                return interrupted(self._step)
            # of a block of the script's own nothing is left: it begins again
            index = self._done
        return None

    def _gave_up_waiting(self, problem: Problem) -> bool:
        """Whether a statement waited in vain for a table's lock, and all that is not on record is undone or was never begun."""
        return (
            self._repeatable
            and problem.reason is Reason.LOCK_TIMEOUT
            and problem.sqlstate == _LOCK_NOT_AVAILABLE
            and self._session.alive
            and not self._session.interrupted
        )

    async def _restore_session(self) -> Problem | None:
        """Do again what statements that are done made of a session that is gone: its search path, its role."""
        for index in settings_in_force(self._step.statements[: self._step.first_statement]):
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
            self._block_repeatable = self._block_repeatable and not _outlives_a_rollback(part)
            problem = await self._send(index, "")
            self._repeatable = self._block_repeatable
            if problem is None and not self._session.in_transaction:
                # rolled back, or committed after nothing was written: what stands there need not be done again
                self._done = index + 1
            return problem
        if controls_transaction(part):
            self._block_writes = not begins_read_only(part)
            self._block_repeatable = True
            return await self._begin_block(index, part)
        if sets_session(part):
            problem = await self._send(index, self._time_limits(part))
            if problem is None:
                self._done = index + 1
            return problem
        intent = self._intent_of(statement, part)
        run = self._run_with_record(index) if intent is None else self._run_alone(index, intent, part)
        problem = await run
        if problem is not None and problem.sqlstate == CONFLICT and self._conflicts.again:
            # rolled back for certain, and nothing of it is in force
            await self._conflicts.pause()
            return await self._run_one(index)
        return problem

    def _intent_of(self, statement: Statement, part: list[Token] | None = None) -> Intent | None:
        """What to write down before a statement that runs by itself; None for one that a transaction can hold."""
        if self._session.dialect.transactional_ddl:
            return intent_of(statement, part)
        return cockroachdb_intent_of(statement, part)

    async def _begin_block(self, index: int, part: list[Token]) -> Problem | None:
        """Begin the script's own transaction, with all that each of ours begins with."""
        problem = await self._send(index, self._time_limits(part))
        opening = (*self._writer.opening, *(self._limits if self._session.pooled else ()))
        if problem is None and opening:
            await self._session.command(";\n".join(opening), doing="beginning a transaction")
        return problem

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
                many_rows=may_return_rows(statement.text),
                copy_data=_copy_data(statement),
                meanwhile=lambda: self._prepare(index + 1),
            )
        except ProblemError as lost:
            return connection_lost(step, lost.problem.message)
        if results[-1].command_status == b"COMMIT":
            self._done = index + 1
            self._row.settled()
            return None
        if not session.alive:
            return connection_lost(step, "the server closed the connection")
        if session.in_transaction:
            await session.roll_back_only(step.script.text)
        if session.interrupted:
            return interrupted(step)
        from reconciler.database.failures import sqlstate_of

        ran, sqlstate = len(results) - 1 - self._statements_before, sqlstate_of(results[-1])
        if (
            not session.dialect.transactional_ddl
            and sqlstate in AMBIGUOUS
            and await committed(self._writer, step, index + 1)
        ):
            self._done = index + 1
            self._row.settled()
            return None
        if ran > 1:
            if sqlstate == _NOT_PREPARED and self._row.lasting:
                # a function of the script's has thrown away what was prepared
                self._forget_prepared()
                return await self._run_with_record(index)
            return self._not_recorded(results[-1])
        if ran == 0 and sqlstate in _REFUSED_IN_TRANSACTION:
            return await self._run_alone(index, Intent(OPAQUE), list(tokens(statement.text)))
        self._repeatable = True
        return self._failed(results[-1], index, len(self._before))

    def _prepare(self, index: int) -> None:
        """Write the message for a statement and its record, while the server works on the one before it."""
        if index < len(self._step.statements):
            after = ";\n".join((*self._row.done(index + 1), "COMMIT"))
            self._prepared = index, f"{self._before}{self._step.statements[index].text}\n;\n{after}"

    def _forget_prepared(self) -> None:
        self._row.lasting = False
        self._prepared = None

    async def _run_alone(self, index: int, intent: Intent, part: list[Token]) -> Problem | None:
        """Announce a statement, run it by itself, and see to it that it is on record before anything else runs."""
        what, state = await sighting(self._session, intent)
        await self._row.announce(self._done, index, what, state)
        problem = await self._send(index, self._time_limits(part))
        if self._session.notices.committed_unasked:
            return problem
        if not self._session.dialect.transactional_ddl:
            if problem is not None:
                problem, in_doubt = await settled(self._writer, self._step, index, problem, what, state)
                if not in_doubt:
                    # nothing of it is in force, and nothing goes on
                    self._row.settled()
        elif problem is None:
            problem = await hidden_invalid_index(self._session, self._step, index, what)
        elif self._session.alive and not self._session.interrupted:
            problem = await with_leftovers(self._session, problem, what, state)
        self._repeatable = intent.is_repeatable and self._session.dialect.transactional_ddl
        if problem is not None:
            return problem
        warning = await tell_of_leftovers(self._writer, self._step, what)
        if warning is not None:
            self._warnings.append(warning)
        self._done = index + 1
        self._row.settled()
        following = self._step.statements[index + 1 : index + 2]
        if following and self._intent_of(following[0]) is None:
            await self._row.record(self._done)
        return None

    async def _commit_block(self, index: int) -> Problem | None:
        """Commit the script's own transaction together with the record of it."""
        # within the block nobody knows what is prepared still
        self._forget_prepared()
        text = ";\n".join((*self._row.done(index + 1), self._step.statements[index].text))
        try:
            results = await self._session.send(text)
        except ProblemError as lost:
            return connection_lost(self._step, lost.problem.message)
        if results[-1].command_status == b"COMMIT":
            self._done = index + 1
            self._row.settled()
            return None
        if not self._session.alive:
            return connection_lost(self._step, "the server closed the connection")
        if self._session.interrupted:
            return interrupted(self._step)
        return self._not_recorded(results[-1])

    async def _send(self, index: int, limits: str) -> Problem | None:
        """Send one statement as it is. Returns why it failed, or None."""
        from reconciler.database.failures import is_error, position_of

        step, session, statement = self._step, self._session, self._step.statements[index]
        try:
            if limits:
                await session.command(limits, doing="setting time limits")
            if session.interrupted:
                return interrupted(step)
            # found by it among what the server runs, also when our connection is gone
            marked = self._writer.leased and session.dialect.progress_views and not session.in_transaction
            mark = MARK if marked else ""
            results = await session.send(
                mark + statement.text, many_rows=True, copy_data=_copy_data(statement)
            )
        except ProblemError as lost:
            return connection_lost(step, with_jobs(lost.problem.message, session.notices.jobs))
        if not is_error(results[-1]):
            if (results[-1].command_status or b"").startswith(b"DEALLOCATE"):
                self._forget_prepared()
            return None
        if session.interrupted:
            return interrupted(step)
        if not session.alive:
            return connection_lost(step, with_jobs("the server closed the connection", session.notices.jobs))
        if position_of(results[-1]) is not None:
            # found wrong when it was read, so that nothing of it was run
            self._row.settled()
        return self._failed(results[-1], index, len(mark))

    def _failed(self, error: PGresult, index: int, prefix: int) -> Problem:
        """The failure of a statement that stood behind `prefix` characters of its message."""
        from reconciler.database.failures import position_of

        statement = self._step.statements[index]
        position = position_of(error)
        offset = None
        if position is not None and 0 <= position - 1 - prefix <= len(statement.text):
            offset = statement.offset + position - 1 - prefix
        return statement_failure(error, self._step, index, offset, self._done)

    def _not_recorded(self, error: PGresult) -> Problem:
        """Why what was run could not be recorded, and so was rolled back."""
        from reconciler.database.failures import sqlstate_of

        if sqlstate_of(error) == ROW_GONE:
            return self._row.gone(self._done)
        return failure_of_bookkeeping(error, self._step, self._done)

    def _time_limits(self, part: list[Token]) -> str:
        """The settings for one statement.

        `CONCURRENTLY` waits for every older transaction to end and blocks nobody meanwhile. Giving up on that wait would
        only leave an invalid index behind, so no `lock_timeout` applies to it.
        """
        if self._session.pooled:
            # what is set outside a transaction is set for whoever comes next
            return ""
        lock_timeout = 0.0 if is_concurrent(part) else self._step.lock_timeout
        return (
            f"SET lock_timeout = {round(lock_timeout * 1000)};"
            f"SET statement_timeout = {round(self._step.statement_timeout * 1000)}"
        )

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


def _outlives_a_rollback(part: list[Token]) -> bool:
    """Whether a statement cannot be run again after the transaction it stood in was rolled back."""
    return part[0].text.upper() in _OUTLIVES_A_ROLLBACK
