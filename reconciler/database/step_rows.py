"""The history row of a step outside a transaction, and its events: what tells, at every moment, how far it came."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler.database.objects import read_states
from reconciler.database.queries import Literal
from reconciler.model import Direction, Problem, ProblemError, Reason, Step
from reconciler.sqltext import ABSENT, OPAQUE, REINDEX, REPEATABLE, Chain, intent_digest, state_word

if TYPE_CHECKING:
    from reconciler.database.writer import HeldLock

ROW_GONE = "2201E"
"""The SQLSTATE by which our statements say that the row is not there any more."""
_PREPARED = "reconciler_record_done"
_NO_INTENT: dict[str, Literal] = {"intent_digest": None, "intent_object": None, "intent_before": None}


class StepRow:
    """What is on record of one attempt.

    Args:
        writer: holds the lock.
        step: what is attempted.
    """

    def __init__(self, writer: HeldLock, step: Step) -> None:
        self._writer = writer
        self._session = writer.session
        self._step = step
        self._chain = Chain(step.statements)
        self._intent = _NO_INTENT
        self._scope = (
            *writer.session.bookkeeping_scope(step.script.text),
            *writer.session.durability(waits=True),
        )
        # whatever the script has made the default
        self._attempt_id = str(uuid.uuid4())
        self._started = monotonic()
        self._prepared = 0
        """How many statements were prepared so far: each has a name of its own."""
        self.lasting = False
        """The statement that says what is done is prepared."""

    @property
    def elapsed(self) -> float:
        """Seconds since the attempt began."""
        return monotonic() - self._started

    async def begin(self, done: int) -> None:
        """Say that the step runs, before its first statement is sent.

        Raises:
            ProblemError: the row is not as it was read, or the connection broke.
        """
        writer, step = self._writer, self._step
        queries = self._session.queries
        progress = self._progress(done)
        if step.direction is Direction.UP:
            row = queries("begin_steps_up", **{**writer.records.row(step), **progress})
        else:
            row = queries(
                "begin_steps_down", version=step.version, statements_total=len(step.statements), **progress
            )
        facts = writer.records.facts(step, self._attempt_id)
        started = queries.attempts(queries("started", **facts))
        if done:
            going_on: dict[str, Literal] = {
                "statement_index": done + 1,
                "message": f"went on at statement {done + 1} of {len(step.statements)}",
            }
            started = queries(
                "insert_event", **writer.records.empty_event("started", **{**facts, **going_on})
            )
        # behind a pooler what is prepared is not there any more in the next transaction
        lasting = not self._session.pooled and not self._session.dialect.resets_alone
        rows, *_ = await writer.write(
            row,
            started,
            *((self._prepare(),) if lasting else ()),
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
        self.lasting = lasting

    def done(self, count: int) -> Sequence[str]:
        """The statements that record that `count` statements are done, for a transaction that the script's own share."""
        if self.lasting:
            return (*self._scope, self._record_done(count))
        return (*self._scope, self._prepare(), self._record_done(count), f"DEALLOCATE {self._name}")

    def settled(self) -> None:
        """No statement is in doubt: the one that was announced is done, or was never run."""
        self._intent = _NO_INTENT

    def doubt(self, index: int) -> None:
        """Whether the statement at `index` is in force nobody knows: no look at the database would tell."""
        statement = self._step.statements[index]
        self._intent = {
            "intent_digest": intent_digest(statement),
            "intent_object": OPAQUE,
            "intent_before": ABSENT,
        }

    async def announce(self, done: int, index: int, what: str, state: str) -> None:
        """Write down what is done and, in the same write, what is about to be done.

        Args:
            done: how many statements are.
            index: of the statement that is about to be run, from 0.
            what: to look at, to find out whether it took effect.
            state: of that, now.
        """
        statement = self._step.statements[index]
        intent: dict[str, Literal] = {
            "intent_digest": intent_digest(statement),
            "intent_object": what,
            "intent_before": state,
        }
        await self._record(done, intent)

    async def record(self, done: int) -> None:
        """Write down what is done."""
        await self._record(done, _NO_INTENT)

    async def end(self) -> None:
        """Say that the step is done."""
        writer, step = self._writer, self._step
        queries = self._session.queries
        milliseconds = round(self.elapsed * 1000)
        total = len(step.statements)
        if step.direction is Direction.UP:
            row = queries(
                "end_steps_up",
                version=step.version,
                execution_time_ms=milliseconds,
                statements_digest=self._chain.digest(total),
            )
        else:
            row = queries("delete_applied", version=step.version)
        event = {
            **writer.records.empty_event("finished"),
            **writer.records.facts(step, self._attempt_id),
            "outcome": "success",
            "execution_time_ms": milliseconds,
        }
        await self._write(
            total,
            row,
            queries("insert_event", **event),
            doing=f"recording the end of migration {step.version}",
        )

    async def fail(self, problem: Problem, done: int) -> None:
        """Say that the step failed, and how much of it is done, as far as the database can be reached.

        Raises:
            ProblemError: `problem` itself, when that could not be written down.
        """
        from reconciler.database.failures import mask_literals

        writer, step, session = self._writer, self._step, self._session
        milliseconds = round(self.elapsed * 1000)
        blockers = writer.watch.blockers_behind(problem)
        failed = writer.records.failed_event(step, problem, self._attempt_id, milliseconds, blockers)
        writer.unrecorded = failed
        if not session.alive:
            return
        try:
            await session.roll_back(step.script.text)
            untouched = step.direction is Direction.DOWN and not done and await self._as_before()
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
                    **self._progress(done),
                    **self._intent,
                ),
                session.queries("insert_event", **failed),
                doing="recording the failure",
            )
            writer.unrecorded = {}
        except ProblemError as error:
            # the failure itself matters more than that it could not be written down
            raise ProblemError(problem) from error

    async def _as_before(self) -> bool:
        """Whether the statement that failed has left nothing behind, as far as looking tells."""
        what, before = self._intent["intent_object"], self._intent["intent_before"]
        if what is None or what in (REPEATABLE, REINDEX):
            return True
        if what == OPAQUE:
            return False
        return state_word((await read_states(self._session, [str(what)]))[str(what)]) == before

    def gone(self, done: int) -> Problem:
        """The problem of a row that somebody deleted while its step ran."""
        step = self._step
        applied = f"`reconciler repair --mark-applied {step.version} --reason ...`"
        if step.direction is Direction.UP:
            reason = Reason.STATEMENT_FAILED
            remedy = f"finish it by hand and run {applied}, or undo by hand what is in force and run `reconciler retry`"
        else:
            reason = Reason.DOWN_FAILED
            remedy = f"finish it by hand, or undo by hand what is in force and run {applied}"
        return Problem(
            reason=reason,
            message=f"somebody deleted the row of migration {step.version} ({step.name}) from schema_migrations while its "
            f"{step.direction.value} ran; {done} of its {len(step.statements)} statements are in force",
            remedy=remedy,
            version=step.version,
            direction=step.direction.value,
        )

    @property
    def _name(self) -> str:
        return f"{_PREPARED}_{self._prepared}"

    def _prepare(self) -> str:
        self._prepared += 1
        text = self._writer.prepare_record_done(version=self._step.version)
        return text.replace("{prepared}", self._name)

    def _record_done(self, count: int) -> str:
        return self._session.queries("record_done", **self._progress(count)).replace("{prepared}", self._name)

    def _progress(self, done: int) -> dict[str, Literal]:
        return {"statements_done": done, "statements_digest": self._chain.digest(done)}

    async def _record(self, done: int, intent: dict[str, Literal]) -> None:
        version = self._step.version
        await self._write(
            done,
            self._session.queries("record_intent", version=version, **self._progress(done), **intent),
            doing=f"recording the progress of migration {version}",
        )
        self._intent = intent

    async def _write(self, done: int, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        try:
            return await self._writer.write(*blocks, doing=doing)
        except ProblemError as error:
            if error.problem.sqlstate == ROW_GONE:
                raise ProblemError(self.gone(done)) from None
            raise
