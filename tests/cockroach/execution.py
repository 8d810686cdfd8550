"""Statements of one client of the simulated server, each done as CockroachDB would do it: transactions, schema changes, jobs."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from tests.cockroach import faults, messages, settings
from tests.cockroach.backend import Backend, error_in
from tests.cockroach.faults import Fault, Seen
from tests.cockroach.grammar import Kind, Refusal, Statement, rewritten, unknown_setting
from tests.cockroach.jobs import PAUSED, SUCCEEDED, Job
from tests.cockroach.schema_changes import SchemaChange

if TYPE_CHECKING:
    from tests.cockroach.simulator import Simulator

NONE, IMPLICIT, OPEN, FAILED = "none", "implicit", "open", "failed"
AUTOCOMMIT_NOTICE = "auto-committing transaction before processing DDL due to autocommit_before_ddl setting"
JOB_NOTICE = "waiting for job(s) to complete: {}"
JOB_NOTICE_DETAIL = "If the statement is canceled, jobs will continue in the background."
_RETRY = (
    "restart transaction: TransactionRetryWithProtoRefreshError: "
    "injected by `inject_retry_errors_enabled` session variable"
)
_ENDINGS = (Kind.COMMIT, Kind.ROLLBACK)
_SHARING = (Kind.OTHER, Kind.SETTING)
"""What shares one implicit transaction with the rest of its message."""


class Cut(Exception):
    """The connection is to end now."""


class Execution:
    """What a connected client has the server do.

    Args:
        simulator: whose client it is.
        number: from 0, over the life of the simulator.
        backend: its own connection to PostgreSQL.
        parameters: what it said of itself when it connected.
        reader: from the client.
        writer: to the client.
    """

    def __init__(
        self,
        simulator: Simulator,
        number: int,
        backend: Backend,
        parameters: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._simulator = simulator
        self._number = number
        self._backend = backend
        self._parameters = parameters
        self._reader = reader
        self._writer = writer
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._out = bytearray()
        self._state = NONE
        self._schema_changes: list[Statement] = []
        """Those that ran inside the open transaction."""
        self._ran: list[str] = []
        """The other statements that did."""
        self._changed_schema = False
        """The implicit transaction of this message has a schema change behind it, and nothing else."""
        self._retries_injected = False
        self._prepared: dict[str, str] = {}
        self.canceled = asyncio.Event()
        self._waits_for_job = False

    @property
    def identity(self) -> str:
        """What SHOW session_id says."""
        return f"{self._number + 0x17A0:032x}"

    def _say(self, *data: bytes) -> None:
        for each in data:
            self._out += messages.as_cockroach_says(each) if each[:1] in (b"E", b"N") else each

    def _fail(self, sqlstate: str, message: str) -> None:
        self._out += messages.report(messages.ERROR, sqlstate, message)

    async def _flush(self) -> None:
        self._writer.write(bytes(self._out))
        self._out.clear()
        await self._writer.drain()

    def _ready(self) -> None:
        self._say(
            messages.ready({OPEN: messages.OPEN, FAILED: messages.FAILED}.get(self._state, messages.IDLE))
        )

    # statements

    def _see(self, statement: Statement, index: int, of: int) -> Seen:
        return self._simulator.see(
            Seen(
                -1,
                self._number,
                self._parameters.get("application_name", ""),
                statement.text.strip(),
                statement.kind.value,
                self._state,
                index,
                of,
            )
        )

    async def _statement(
        self, statement: Statement, index: int, of: int, following: Statement | None
    ) -> bool:
        """Run one statement and say what came of it; False when the rest of its message is not to run."""
        seen = self._see(statement, index, of)
        fault = self._simulator.fault_for(seen)
        if fault is not None and fault.when == faults.BEFORE and not await self._harm(fault, seen, b""):
            return False
        await self._flush()
        try:
            during = fault if fault is not None and fault.when == faults.DURING else None
            went_well = await self._do(statement, of, following, seen, during)
        except Refusal as refusal:
            self._simulator.refused(statement.text, refusal)
            self._fail(refusal.sqlstate, refusal.message)
            seen.outcome = refusal.sqlstate
            await self._abort()
            went_well = False
        answer, self._out = bytes(self._out), bytearray()
        if went_well:
            seen.outcome = "done"
        elif seen.outcome == "running":
            seen.outcome = next(
                (fields.get("C", "") for fields in [error_in(_taken_apart(answer))]), "failed"
            )
        if went_well and fault is not None and fault.when == faults.AFTER:
            return await self._harm(fault, seen, answer)
        self._out += answer
        return went_well

    async def _harm(self, fault: Fault, seen: Seen, answer: bytes) -> bool:
        """Do what a test wants; True when the statement, or its answer, takes its course all the same."""
        if fault.delay:
            await self._flush()
            await asyncio.sleep(fault.delay)
        if fault.commits:
            held, self._out = self._out, bytearray()
            await self._end_transaction("COMMIT")
            self._out = held
            self._say(messages.report(messages.NOTICE, "00000", AUTOCOMMIT_NOTICE))
        if fault.sqlstate:
            seen.outcome = fault.sqlstate
            if fault.sqlstate == "XXA00" and seen.kind == Kind.COMMIT.value and self._schema_changes:
                await self._commit_without_schema_changes()
            elif not (fault.when == faults.AFTER and self._state == NONE):
                await self._abort(for_good=seen.kind in (Kind.COMMIT.value, Kind.ROLLBACK.value))
            severity = messages.FATAL if fault.ends_connection else messages.ERROR
            self._out += messages.report(severity, fault.sqlstate, fault.text)
        if fault.ends_connection:
            seen.outcome = fault.sqlstate or "cut"
            self._out += answer[: round(len(answer) * fault.portion)]
            await self._flush()
            raise Cut
        if not fault.sqlstate and fault.when == faults.AFTER:
            self._out += answer
        return not fault.sqlstate

    async def _do(
        self, statement: Statement, of: int, following: Statement | None, seen: Seen, fault: Fault | None
    ) -> bool:
        """Do it, adding what the client is told to `_out`."""
        kind = statement.kind
        if self._state == FAILED and kind not in (*_ENDINGS, Kind.ROLLBACK_TO):
            self._fail(
                "25P02", "current transaction is aborted, commands ignored until end of transaction block"
            )
            return False
        if (
            self._retries_injected
            and self._state == OPEN
            and kind not in (*_ENDINGS, Kind.SETTING)
            and await self._setting("inject_retry_errors_enabled") not in settings.OFF
        ):
            self._fail("40001", _RETRY)
            await self._abort()
            return False
        self._changed_schema = self._changed_schema and kind is Kind.DDL
        if kind is Kind.BEGIN:
            return await self._begin(statement)
        if kind in _ENDINGS:
            return await self._finish(statement)
        if kind is Kind.DDL:
            return await self._change_schema(statement, following, seen, fault)
        if kind is Kind.JOB:
            return self._control_job(statement)
        if kind is Kind.CANCEL_SESSION:
            return self._cancel_session(statement)
        if kind in _SHARING and of > 1 and self._state == NONE:
            await self._backend.run("BEGIN")
            self._state = IMPLICIT
        if kind is Kind.SETTING and statement.words[2:3] == ["WHEN"]:
            await self._wait_for_job(statement)
        return await self._pass_on(self._translated(statement))

    def _translated(self, statement: Statement) -> str:
        """A statement for PostgreSQL.

        Raises:
            Refusal: CockroachDB would not run it.
        """
        if statement.kind is Kind.SETTING:
            return self._translated_setting(statement)
        return rewritten(statement, self._simulator.version, self._simulator.jobs.as_query)

    def _translated_setting(self, statement: Statement) -> str:
        words = [word.strip('"').lower() for word in statement.words]
        plain = " ".join(token.text for token in statement.tokens)
        if words[0] == "show":
            if words[1] in ("job", "jobs"):
                if "(" in words:
                    raise Refusal("0A000", "the simulator shows jobs by number, or all of them")
                only = re.search(r"\d+", plain)
                return (
                    f"SELECT * FROM {self._simulator.jobs.as_query(int(only[0]) if only else None)} AS jobs"
                )
            name = "transaction_isolation" if words[1] == "transaction" else words[1]
            name = "timezone" if words[1:3] == ["time", "zone"] else name
            if not settings.known(name) and name not in settings.READ_ONLY:
                raise unknown_setting(name)
            return settings.shown(name, self._simulator.answers | {"session_id": self.identity})
        local = words[1] in ("local", "session")
        name = words[1 + local]
        if name in ("transaction", "characteristics", "time", "authorization") or (words[0], name) == (
            "reset",
            "all",
        ):
            return plain
        if name == "allow_unsafe_internals":
            raise Refusal("42501", "the adapter asks for unsafe internals", violation=True)
        if not settings.known(name):
            raise unknown_setting(name)
        if name == "inject_retry_errors_enabled":
            self._retries_injected = True
        if name not in settings.OWN:
            return statement.text
        rest = " ".join(token.text for token in statement.tokens[2 + local :])
        return " ".join([*words[: 1 + local], settings.kept_as(name), rest])

    async def _pass_on(self, text: str) -> bool:
        """Have PostgreSQL run it."""

        async def rows(asked: bytes) -> bytes:
            if asked:
                self._say(asked)
                await self._flush()
            return await self._inbox.get()

        answer = await self._backend.run(text, rows)
        self._say(*answer)
        if error_in(answer):
            await self._abort()
            return False
        if self._state in (OPEN, IMPLICIT):
            self._ran.append(text)
        if self._state == FAILED and self._backend.status == messages.OPEN:
            # back to a savepoint
            self._state = OPEN
        return True

    async def _setting(self, name: str) -> str:
        """The value of one of CockroachDB's own settings."""
        answer = await self._backend.run(f"SELECT current_setting('{settings.kept_as(name)}')")
        row = next(data for data in answer if data[:1] == b"D")
        return row[11:].decode().lower()

    # transactions

    async def _begin(self, statement: Statement) -> bool:
        if self._state == OPEN:
            self._fail("25001", "there is already a transaction in progress")
            await self._abort()
            return False
        if self._state == IMPLICIT:
            # it becomes the explicit one
            self._say(messages.complete("BEGIN"))
            self._state = OPEN
            return True
        answer = await self._backend.run(statement.text)
        self._say(*answer)
        self._state = NONE if error_in(answer) else OPEN
        return self._state == OPEN

    async def _finish(self, statement: Statement) -> bool:
        """COMMIT or ROLLBACK."""
        verb = "COMMIT" if statement.kind is Kind.COMMIT else "ROLLBACK"
        if self._state in (NONE, IMPLICIT):
            if not await self._end_implicit():
                return False
            if await self._setting("autocommit_before_ddl") in settings.OFF:
                self._fail("25P01", "there is no transaction in progress")
                return False
            self._say(
                messages.report(messages.WARNING, "25P01", "there is no transaction in progress"),
                messages.complete(verb),
            )
            return True
        return await self._end_transaction(verb)

    async def _end_transaction(self, verb: str) -> bool:
        answer = await self._backend.run(verb)
        self._say(*answer)
        self._state = NONE
        well = not error_in(answer)
        if well and verb == "COMMIT":
            for statement in self._schema_changes:
                job = self._simulator.jobs.create(statement.text.strip(), self._parameters.get("user", ""))
                self._simulator.jobs.change(job, SUCCEEDED)
                self._tell_of(job)
        self._schema_changes.clear()
        self._ran.clear()
        return well

    async def _end_implicit(self) -> bool:
        """Commit what the statements of this message did; False when that failed."""
        if self._state != IMPLICIT:
            return True
        held, self._out = self._out, bytearray()
        well = await self._end_transaction("COMMIT")
        answer, self._out = self._out, held
        if not well:
            self._out += answer
        return well

    async def _abort(self, *, for_good: bool = False) -> None:
        """What an error does to the transaction: an implicit one is over, an explicit one waits for its ROLLBACK."""
        if self._state == IMPLICIT or (for_good and self._state != NONE):
            await self._backend.run("ROLLBACK")
            self._state = NONE
        elif self._state == OPEN:
            if self._backend.status == messages.OPEN:
                await self._backend.run("SELECT 1/0")
            self._state = FAILED
        if self._state == NONE:
            self._schema_changes.clear()
            self._ran.clear()

    async def _commit_without_schema_changes(self) -> None:
        """What XXA00 says: the data is committed, the schema change is not."""
        ran = list(self._ran)
        for text in ("ROLLBACK", "BEGIN", *ran, "COMMIT"):
            await self._backend.run(text)
        self._schema_changes.clear()
        self._ran.clear()
        self._state = NONE

    # schema changes

    async def _change_schema(
        self, statement: Statement, following: Statement | None, seen: Seen, fault: Fault | None
    ) -> bool:
        text = rewritten(statement, self._simulator.version, self._simulator.jobs.as_query)
        commits_first = await self._setting("autocommit_before_ddl") not in settings.OFF
        if commits_first and (self._state != NONE or self._changed_schema):
            self._say(messages.report(messages.NOTICE, "00000", AUTOCOMMIT_NOTICE))
        if commits_first and self._state != NONE:
            held, self._out = self._out, bytearray()
            well = await self._end_transaction("COMMIT")
            answer, self._out = self._out, held
            if not well:
                self._out += answer
                return False
        # with others in one implicit transaction, unless the next one commits before it begins
        shares = following is not None and not (commits_first and following.kind is Kind.DDL)
        if self._state != NONE or (shares and following is not None and following.kind in _SHARING):
            return await self._change_schema_in_transaction(statement, text)
        change = await SchemaChange.plan(
            self._simulator, self._backend, self._parameters, statement.text.strip(), text
        )
        if change.refusal:
            self._say(*change.refusal)
            return False
        job = change.start()
        self._changed_schema = True
        if fault is None or not fault.cut or fault.portion:
            # the client hears of the job before it is over
            self._tell_of(job)
            await self._flush()
        if fault is not None and not await self._harm(fault, seen, b""):
            return False
        return await self._await_job(change, job)

    def _tell_of(self, job: Job) -> None:
        if self._simulator.job_notices:
            text = f"{JOB_NOTICE.format(job.job_id)}\n{JOB_NOTICE_DETAIL}"
            self._say(messages.report(messages.NOTICE, "00000", text))

    async def _change_schema_in_transaction(self, statement: Statement, text: str) -> bool:
        if "TYPE" in statement.words and statement.words[:2] == ["ALTER", "TABLE"] and self._state == OPEN:
            raise Refusal("0A000", "unimplemented: ALTER COLUMN TYPE is not supported inside a transaction")
        if self._state == NONE:
            await self._backend.run("BEGIN")
            self._state = IMPLICIT
        ran = len(self._ran)
        well = await self._pass_on(text)
        if well:
            del self._ran[ran:]
            self._schema_changes.append(statement)
        return well

    async def _await_job(self, change: SchemaChange, job: Job) -> bool:
        """Wait for it as long as the client may, and say what came of it."""
        self.canceled.clear()
        self._waits_for_job = True
        waiting = [
            asyncio.ensure_future(self._simulator.jobs.settled(job)),
            asyncio.ensure_future(self.canceled.wait()),
        ]
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=change.statement_timeout or None, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._waits_for_job = False
            for task in waiting:
                task.cancel()
        if waiting[0] not in done:
            reason = "" if done else " due to statement timeout"
            self._fail("57014", f"query execution canceled{reason}")
            return False
        if job.status == SUCCEEDED:
            self._say(*change.answer)
            return True
        if job.status == PAUSED:
            self._fail("XXUUU", f"job {job.job_id} was paused before it completed")
        else:
            self._fail(job.sqlstate or "XXUUU", job.error or f"job {job.job_id}: {job.status}")
        return False

    async def _wait_for_job(self, statement: Statement) -> None:
        for number in [int(token.text) for token in statement.tokens if token.text.isdigit()]:
            job = self._simulator.jobs.get(number)
            if job is not None:
                self._waits_for_job = True
                self.canceled.clear()
                settled = asyncio.ensure_future(self._simulator.jobs.settled(job, or_paused=False))
                canceled = asyncio.ensure_future(self.canceled.wait())
                await asyncio.wait([settled, canceled], return_when=asyncio.FIRST_COMPLETED)
                self._waits_for_job = False
                for task in (settled, canceled):
                    task.cancel()
                if not job.is_over:
                    raise Refusal("57014", "query execution canceled")

    def _control_job(self, statement: Statement) -> bool:
        numbers = [int(token.text) for token in statement.tokens if token.text.isdigit()]
        status = {"PAUSE": PAUSED, "RESUME": "running", "CANCEL": "canceled"}[statement.words[0]]
        for number in numbers:
            job = self._simulator.jobs.get(number)
            if job is None or job.is_over:
                self._fail("22023", f"job with ID {number} does not exist or is over")
                return False
            self._simulator.jobs.change(job, status)
        self._say(messages.complete(f"{statement.words[0]} JOBS {len(numbers)}"))
        return True

    def _cancel_session(self, statement: Statement) -> bool:
        wanted = statement.tokens[-1].text.strip("'")
        for session in self._simulator.sessions:
            if session.identity == wanted:
                session.end()
                self._say(messages.complete("CANCEL SESSIONS 1"))
                return True
        self._fail("42704", f"session ID {wanted} not found")
        return False


def _taken_apart(data: bytes) -> list[bytes]:
    """The messages in a run of bytes."""
    found: list[bytes] = []
    while data:
        end = int.from_bytes(data[1:5], "big") + 1
        found.append(data[:end])
        data = data[end:]
    return found
