"""One connection: how it is opened, how a message is sent and what comes back."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler.database.conflicts import CONFLICT, Conflicts
from reconciler.database.connecting import ConnectionSettings, connect
from reconciler.database.copying import exchange
from reconciler.database.dialect import COCKROACHDB_DIALECT, POSTGRESQL_DIALECT, Dialect
from reconciler.database.failures import is_error, refused, translate
from reconciler.database.notices import Notices
from reconciler.database.queries import Queries
from reconciler.model import ProblemError

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

BOOKKEEPING_LIMITS = ("SET LOCAL lock_timeout = 10000", "SET LOCAL statement_timeout = 60000")
"""What is written down is written fast, or somebody holds our tables: give up then, and with it the migration's own locks."""
_CLOCKS_APART = 3.0
"""Seconds by which the server may count more since we connected than we do: it may have been busy before it looked."""
_SHORT = 128
"""Characters of the longest text whose literal is remembered."""
_CANCEL_PATIENCE = 5.0
"""Seconds the server has to answer a cancel request before the connection is given up."""


class Session:
    """An open connection with our settings, one message at a time.

    Everything is sent by the simple protocol: several statements travel in one message, no statement is prepared, and
    a `%` in a migration stays a `%`.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        settings: ConnectionSettings,
        dialect: Dialect,
        literal: Callable[[str], str],
        opened_at: float,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self.notices = Notices()
        connection.add_notice_handler(self.notices.hear)
        self.dialect = dialect
        self.queries = Queries(dialect.name, settings.history_schema, settings.role, literal)
        self.interrupted = False
        self._introduced = False
        """It is known who serves us, and our own process has our settings."""
        self.pooled = False
        """A pooler stands before the server, and every transaction may be served by another process, which others use as well:
        no setting may outlive a transaction."""
        self._opened_at = opened_at

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> Session:
        """Connect.

        Raises:
            ProblemError: `ConnectionFailed` or `ReadOnly`, naming host and user and never the DSN.
        """
        from psycopg.pq import Escaping

        opened_at = monotonic()
        connection = await connect(settings)
        escaping = Escaping(connection.pgconn)
        representable = _representable(connection.info.parameter_status("server_encoding") or "UTF8")

        def escape(text: str) -> str:
            return bytes(escaping.escape_literal(representable(text).encode())).decode()

        # who we are, at which commit and by which policy is written with every event
        remembered = lru_cache(maxsize=256)(escape)

        def literal(text: str) -> str:
            return remembered(text) if len(text) <= _SHORT else escape(text)

        return cls(connection, settings, await _dialect_of(connection), literal, opened_at)

    @property
    def alive(self) -> bool:
        """False once the connection was closed or found broken."""
        return not self._connection.closed

    @property
    def backend_pid(self) -> int:
        """The process id of our backend."""
        return self._connection.info.backend_pid

    @property
    def place(self) -> str:
        """Host and port, to tell one server from another."""
        return f"{self._connection.info.host}:{self._connection.info.port}"

    @property
    def history_schema(self) -> str:
        """Where our tables live."""
        return self._settings.history_schema

    @property
    def sets_role(self) -> bool:
        """We are to be another role than the one that logs in."""
        return self._settings.role is not None

    @property
    def server_version(self) -> int:
        """As libpq counts it: 180001 for 18.1."""
        return self._connection.info.server_version

    @property
    def in_transaction(self) -> bool:
        """True inside a transaction block, also a failed one."""
        return bool(self._connection.pgconn.transaction_status) and self.alive

    @cached_property
    def settings(self) -> dict[str, str]:
        """Our settings, by name."""
        settings = dict(self.dialect.settings)
        for version, more in self.dialect.settings_since.items():
            if self.server_version >= version:
                settings |= more
        return settings

    @cached_property
    def settings_message(self) -> str:
        """The statements that give a session our settings."""
        parts = [f"SET {name} = '{value}'" for name, value in self.settings.items()]
        if self._settings.role:
            parts.append(self.queries("set_role"))
        return ";\n".join(parts)

    @property
    def local_settings(self) -> tuple[str, ...]:
        """The statements that give one transaction our settings, where the session must not have them; otherwise none."""
        if not self.pooled:
            return ()
        settings = (f"SET LOCAL {name} = '{value}'" for name, value in self.settings.items())
        return (*settings, self.queries("set_local_role")) if self._settings.role else tuple(settings)

    @property
    def local_role(self) -> str:
        """The statement that makes us, for the rest of the transaction, the role that our tables belong to."""
        return self.queries("set_local_role") if self._settings.role else "SET LOCAL role TO DEFAULT"

    def durability(self, *, waits: bool) -> tuple[str, ...]:
        """The statement that says whether this transaction's commit waits for the server's log, where that can be said.

        Args:
            waits: it does, as far as the server's own settings ask for it.
        """
        if not self.dialect.transactional_ddl:
            return ()
        return ("SET LOCAL synchronous_commit " + ("TO DEFAULT" if waits else "= off"),)

    def bookkeeping_scope(self, script: str) -> tuple[str, ...]:
        """The statements between those of a migration and our records of it, in one transaction.

        Args:
            script: the migration's SQL.
        """
        if self.dialect.resets_alone:
            return BOOKKEEPING_LIMITS
        return (
            # deferred constraints and triggers must still see the search path of the script
            "SET CONSTRAINTS ALL IMMEDIATE",
            *(self._tidying(script) if self.pooled else ()),
            *BOOKKEEPING_LIMITS,
            # whoever the script made us
            "SET LOCAL SESSION AUTHORIZATION DEFAULT",
            self.local_role,
            "SET LOCAL search_path = pg_catalog",
        )

    def _tidying(self, script: str) -> list[str]:
        """The statements that undo what `script` made of the session, where that is everybody's."""
        application = self._connection.info.parameter_status("application_name") or ""
        tidying = self.queries("leave_nothing_behind", application_name=application).split(";\n")
        return [*tidying, *self.after_rollback(script)]

    def after_rollback(self, script: str) -> list[str]:
        """The statements that undo what no rollback of `script` undoes, where the session is everybody's; to be sent with it.

        They would undo as well what others have left there and may need, a pooler that prepares statements for its clients say, so
        they are only for scripts that may have done such a thing.
        """
        if not self.pooled:
            return []
        undoing = []
        if "prepare" in script.lower():
            undoing.append("DEALLOCATE ALL")
        if "advisory" in script.lower():
            undoing.append(self.queries("release_advisory_lock"))
        return undoing

    @property
    def reset_message(self) -> str:
        """The statements that undo whatever a migration did to the session, and set our settings again."""
        if self.pooled or self.dialect.resets_alone:
            return ""
        return self.queries("reset_session") + ";\n" + self.settings_message

    async def reset(self) -> None:
        """Undo whatever a migration did to the session, outside of any transaction.

        Raises:
            ProblemError: the connection broke.
        """
        doing = "resetting the session"
        if self.dialect.resets_alone:
            await self.command(self.queries("reset_session"), doing=doing)
            await self.command(self.settings_message, doing=doing)
        else:
            await self.command(self.reset_message, doing=doing)

    async def read(self, *blocks: str, doing: str, before: Sequence[str] = ()) -> list[list[tuple[Any, ...]]]:
        """Send `blocks` as one message and return the rows of every statement that returns any.

        Args:
            blocks: SQL without a final `;`. They see no schema but `pg_catalog` unless they name it.
            doing: what this is about, for error messages.
            before: SQL that is sent in the same message and sees the session's own search path.

        Raises:
            ProblemError: the server refused or the connection broke.
            psycopg.errors.UndefinedTable, UndefinedColumn: our tables are not there, or are somebody else's.
        """
        import psycopg

        introducing = not self._introduced
        opening = self._introduction if introducing else self.local_settings
        try:
            cursor = self._connection.cursor()
            scoped = (*self.dialect.own_scope, *blocks) if blocks else ()
            # what a dialect has no words for is empty
            message = ";\n".join(filter(None, (*opening, *before, *scoped)))
            await cursor.execute(message.encode())
            answers: list[list[tuple[Any, ...]]] = []
            more: bool | None = True
            while more:
                if cursor.description is not None:
                    answers.append(await cursor.fetchall())
                more = cursor.nextset()
        except psycopg.Error as error:
            await self._end_failed_transaction()
            if introducing and self.alive and (before or blocks):
                # it may have been said as somebody who may not: without the role and the settings that a pooler keeps from us
                await self.introduce()
                if self.pooled:
                    return await self.read(*blocks, doing=doing, before=before)
            if isinstance(
                error,
                (
                    psycopg.errors.UndefinedTable,
                    psycopg.errors.UndefinedColumn,
                    psycopg.errors.InvalidSchemaName,
                ),
            ):
                raise
            raise translate(error, doing) from None
        if introducing:
            self._introduced, self.pooled = True, not answers.pop(0)[0][0]
            if self.pooled and (before or blocks):
                return await self.read(*blocks, doing=doing, before=before)
        return answers

    async def read_named(self, block: str, *, doing: str) -> list[dict[str, Any]]:
        """The rows of one statement, each by the names of its columns.

        Raises:
            ProblemError: the server refused or the connection broke.
        """
        import psycopg

        await self.introduce()
        try:
            cursor = await self._connection.cursor().execute(block.encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        except psycopg.Error as error:
            raise translate(error, doing) from None

    async def introduce(self) -> None:
        """Find out who serves us and settle our settings, if that is not known yet; nothing else is sent in that message.

        Raises:
            ProblemError: the connection broke.
        """
        if not self._introduced:
            await self.read(doing="opening the session")

    @property
    def _introduction(self) -> tuple[str, ...]:
        settings = dict(self.settings)
        if self._settings.role:
            settings["role"] = self._settings.role
        introduction = self.queries(
            "introduce", pid=self.backend_pid, age=monotonic() - self._opened_at + _CLOCKS_APART
        )
        if "{settings}" not in introduction:
            return introduction, self.settings_message
        given = (
            self.queries("introduce_setting", name=name, value=value) for name, value in settings.items()
        )
        return (introduction.replace("{settings}", ", ".join(given)),)

    async def transact(self, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        """Run `blocks` in one transaction of our own, whatever a migration made of the session, and leave that as it is.

        A cancelled task is told so by `interrupted` after the transaction has ended: what is written down must be whole.

        Raises:
            ProblemError: nothing of it is in force, or the connection broke.
        """
        await self.introduce()
        opening = (
            *self.dialect.opening,
            *(() if self.dialect.resets_alone else (self.local_role,)),
            *self.dialect.own_scope,
            *BOOKKEEPING_LIMITS,
            *self.durability(waits=True),
        )
        conflicts = Conflicts()
        while True:
            work = asyncio.ensure_future(self._transact_once((*opening, *blocks, "COMMIT"), doing))
            try:
                answers: list[list[tuple[Any, ...]]] = await self._to_the_end(work)
                return answers
            except ProblemError as error:
                # what we write down ourselves can be written once more, on any server
                if error.problem.sqlstate != CONFLICT or not conflicts.again or self.interrupted:
                    raise
            await conflicts.pause()

    async def _transact_once(self, statements: Sequence[str], doing: str) -> list[list[tuple[Any, ...]]]:
        import psycopg

        try:
            return await self.read(before=statements, doing=doing)
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ) as error:
            raise translate(error, doing) from None

    async def alone(self, statement: str, *, doing: str) -> None:
        """Run one statement that may run twice by itself; again when it came into conflict with others.

        Raises:
            ProblemError: it failed, or the connection broke.
        """
        conflicts = Conflicts(self.dialect)
        while statement:
            try:
                await self.command(statement, doing=doing)
                return
            except ProblemError as error:
                if error.problem.sqlstate != CONFLICT or not conflicts.again:
                    raise
            await conflicts.pause()

    async def command(self, message: str, *, doing: str) -> None:
        """Send statements that return nothing of interest; none at all for an empty message.

        Raises:
            ProblemError: one of them failed, or the connection broke.
        """
        if message:
            results = await self.send(message)
            if is_error(results[-1]):
                raise refused(results[-1], doing)

    async def roll_back(self, script: str = "") -> None:
        """Undo the transaction that is open, if one is, and whatever a migration did to the session.

        Args:
            script: the migration's SQL.

        Raises:
            ProblemError: the connection broke.
        """
        undoing = self.after_rollback(script) if self.pooled else [self.reset_message]
        await self.command(";\n".join(filter(None, ("ROLLBACK", *undoing))), doing="rolling back")
        if self.dialect.resets_alone:
            await self.reset()

    async def roll_back_only(self, script: str) -> None:
        """Undo the transaction that is open, and leave the session as the statements of `script` before it have made it.

        Raises:
            ProblemError: the connection broke.
        """
        await self.command(";\n".join(("ROLLBACK", *self.after_rollback(script))), doing="rolling back")

    async def _end_failed_transaction(self) -> None:
        """A message that failed behind its own BEGIN must not leave the session unable to answer anything else."""
        if self.in_transaction:
            await self._exchange("ROLLBACK")

    async def send(
        self,
        message: str,
        *,
        many_rows: bool = False,
        copy_data: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Sequence[PGresult]:
        """Send one message and return the results at libpq level, the one of an error included.

        When the task is cancelled meanwhile, the server is asked to cancel the statement and its answer is still waited
        for: only the answer tells what happened. `interrupted` is True from then on, and the caller, who has the results,
        raises the cancellation again when it has recorded them.

        Args:
            message: SQL.
            many_rows: it may return rows beyond what memory should hold: they are thrown away as they come. Of each
                statement the first row is kept.
            copy_data: the rows of each `COPY ... FROM STDIN` in it, in the order they run, as they stand in the script.
            meanwhile: called once the message is on its way, to do what can be done while the server works.

        Raises:
            ProblemError: `ConnectionFailed`: the connection broke; what the message did is not known.
        """
        await self.introduce()
        self.notices.jobs = ()
        work = asyncio.ensure_future(self._exchange(message, many_rows, copy_data))
        try:
            if meanwhile is not None:
                # one turn of the loop is what it takes to send
                await asyncio.sleep(0)
                try:
                    meanwhile()
                except Exception:
                    # what was sent must be answered before the session can be used again
                    await asyncio.shield(work)
                    raise
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.interrupted = True
            return await self._cancel(work)

    async def _exchange(
        self, message: str, many_rows: bool = False, copy_data: Sequence[str] = ()
    ) -> Sequence[PGresult]:
        import psycopg
        from psycopg import generators

        try:
            async with self._connection.lock:
                pgconn = self._connection.pgconn
                pgconn.send_query(message.encode())
                if not many_rows and not copy_data:
                    return await self._connection.wait(generators.execute(pgconn))
                if many_rows:
                    pgconn.set_single_row_mode()
                reading = exchange(pgconn, copy_data, lambda: self.interrupted, keep_rows=not many_rows)
                return await self._connection.wait(reading)
        except psycopg.Error as error:
            raise translate(error, "talking to the server") from None

    async def _to_the_end(self, work: asyncio.Future[Any]) -> Any:
        """The outcome of `work`, also when this task is cancelled meanwhile; then `interrupted` says so."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.interrupted = True
            return await self._in_time(work)

    async def _cancel(self, work: asyncio.Future[Sequence[PGresult]]) -> Sequence[PGresult]:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            await self._connection.cancel_safe(timeout=_CANCEL_PATIENCE)
        answer: Sequence[PGresult] = await self._in_time(work)
        return answer

    async def _in_time(self, work: asyncio.Future[Any]) -> Any:
        import psycopg

        try:
            async with asyncio.timeout(_CANCEL_PATIENCE):
                return await work
        except TimeoutError:
            await self._connection.close()
            error = psycopg.OperationalError(
                "the server did not answer in time while this process was ending"
            )
            raise translate(error, "stopping") from None

    async def close(self) -> None:
        """Close the connection; never fails."""
        await self._connection.close()


def _representable(server_encoding: str) -> Callable[[str], str]:
    """A function that makes a text one that the server's encoding can hold.

    What a database in another encoding than UTF-8 cannot hold, the name of an author say, becomes `\\u0141`: a name must
    not keep a migration from being recorded. Texts hold no NUL either; only a message that quotes a broken file has one.
    """
    try:
        codec = codecs.lookup(server_encoding.replace("WIN", "cp").replace("SQL_ASCII", "utf-8")).name
    except LookupError:
        codec = "utf-8"

    def convert(text: str) -> str:
        text = text.replace("\0", "\\0")
        return (
            text
            if codec == "utf-8" or text.isascii()
            else text.encode(codec, "backslashreplace").decode(codec)
        )

    return convert


async def _dialect_of(connection: psycopg.AsyncConnection[Any]) -> Dialect:
    """What kind of server has answered.

    CockroachDB says so in a parameter, which a pooler may keep to itself. The version of a PostgreSQL never has three numbers, so
    only who shows none of that, or three, is asked.

    Raises:
        ProblemError: it does not answer.
    """
    import psycopg

    if connection.info.parameter_status("crdb_version") is not None:
        return COCKROACHDB_DIALECT
    shown = (connection.info.parameter_status("server_version") or "").split(" ")[0]
    if shown.count(".") == 1 or (shown[:2].isdigit() and "." not in shown):
        return POSTGRESQL_DIALECT
    try:
        cursor = await connection.execute("SELECT version()")
        row = await cursor.fetchone()
    except psycopg.Error as error:
        await connection.close()
        raise translate(error, "asking what kind of server it is") from None
    return COCKROACHDB_DIALECT if row is not None and "CockroachDB" in str(row[0]) else POSTGRESQL_DIALECT
