"""One connection: how it is opened, how a message is sent and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reconciler.database.failures import remedy_of, translate
from reconciler.database.queries import Queries
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.value import value
from reconciler.redaction import Secret, redact

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

_CONNECTION_DEFAULTS = {
    "application_name": "reconciler",
    "client_encoding": "UTF8",
    "target_session_attrs": "read-write",
    # a migration may keep a connection silent for hours: notice within a minute when the other end is gone
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""A DSN may say otherwise for each but the encoding."""

_SHORT = 128
"""Characters of the longest text whose literal is remembered."""
_CANCEL_PATIENCE = 5.0
"""Seconds the server has to answer a cancel request before the connection is given up."""

_READ_ONLY_SERVER = (
    "session is read-only",
    "server is in hot standby mode",
    "server is not in hot standby mode",
)


@value(kw_only=True)
class ConnectionSettings:
    """How to reach one database and who to be there.

    Args:
        dsn: a libpq URI or key=value string.
        connect_timeout: seconds.
        role: `SET ROLE` to this, or None.
        history_schema: where our tables live.
        root_certificate: path of a PEM file to trust, or None for the DSN's own choice.
    """

    dsn: Secret
    connect_timeout: float = 30.0
    role: str | None = None
    history_schema: str = "public"
    root_certificate: str | None = None


class Session:
    """An open connection with our settings, one message at a time.

    Everything is sent by the simple protocol: several statements travel in one message, no statement is prepared, and
    a `%` in a migration stays a `%`.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], settings: ConnectionSettings, queries: Queries
    ) -> None:
        self._connection = connection
        self._settings = settings
        self.queries = queries
        self.interrupted = False

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> Session:
        """Connect.

        Raises:
            ProblemError: `ConnectionFailed` or `ReadOnly`, naming host and user and never the DSN.
        """
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
        from psycopg.pq import Escaping

        try:
            parameters = conninfo_to_dict(settings.dsn.reveal())
        except psycopg.Error:
            # the driver's message quotes the text it could not read, which may be the password
            raise ProblemError(
                Problem(
                    reason=Reason.CONNECTION_FAILED,
                    message="the DSN is not a connection string that libpq can read",
                    remedy="write postgresql://user@host:port/database, or key=value pairs",
                )
            ) from None
        parameters = {**_CONNECTION_DEFAULTS, **parameters, "client_encoding": "UTF8"}
        parameters.setdefault("connect_timeout", str(max(1, round(settings.connect_timeout))))
        if settings.root_certificate:
            parameters.setdefault("sslrootcert", settings.root_certificate)
            parameters.setdefault("sslmode", "verify-full")
        password = parameters.get("password")
        if isinstance(password, str):
            redact.add(password)
        try:
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(**{key: str(value) for key, value in parameters.items() if value is not None}),
                autocommit=True,
                prepare_threshold=None,
            )
        except (psycopg.Error, UnicodeError) as error:
            raise _connection_problem(error, parameters) from None
        if connection.info.parameter_status("crdb_version") is not None:
            # its schema changes are jobs outside any transaction: what we promise does not hold there
            await connection.close()
            raise ProblemError(engine_unsupported("the server is a CockroachDB"))
        escaping = Escaping(connection.pgconn)

        def escape(text: str) -> str:
            # text columns hold no NUL; nothing we write has one but an error message that quotes a broken file
            return bytes(escaping.escape_literal(text.replace("\0", "\\0").encode())).decode()

        # who we are, at which commit and by which policy is written with every event
        remembered = lru_cache(maxsize=256)(escape)

        def literal(text: str) -> str:
            return remembered(text) if len(text) <= _SHORT else escape(text)

        queries = Queries("postgresql", settings.history_schema, settings.role, literal)
        session = cls(connection, settings, queries)
        try:
            await session.read(session.settings_message, doing="opening the session")
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def alive(self) -> bool:
        """False once the connection was closed or found broken."""
        return not self._connection.closed

    @property
    def in_transaction(self) -> bool:
        """True inside a transaction block, also a failed one."""
        return bool(self._connection.pgconn.transaction_status) and self.alive

    @property
    def settings_message(self) -> str:
        """The statements that give a session our settings."""
        parts = [self.queries("session_settings")]
        if self._settings.role:
            parts.append(self.queries("set_role"))
        return ";\n".join(parts)

    @property
    def reset_message(self) -> str:
        """The statements that undo whatever a migration did to the session, and set our settings again."""
        return self.queries("reset_session") + ";\n" + self.settings_message

    async def read(self, *blocks: str, doing: str) -> list[list[tuple[Any, ...]]]:
        """Send `blocks` as one message and return the rows of every statement that returns any.

        Args:
            blocks: SQL without a final `;`.
            doing: what this is about, for error messages.

        Raises:
            ProblemError: the server refused or the connection broke.
            psycopg.errors.UndefinedTable, UndefinedColumn: our tables are not there, or are somebody else's.
        """
        import psycopg

        try:
            cursor = self._connection.cursor()
            await cursor.execute(";\n".join(blocks).encode())
            answers: list[list[tuple[Any, ...]]] = []
            while True:
                if cursor.description is not None:
                    answers.append(await cursor.fetchall())
                if not cursor.nextset():
                    return answers
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            await self._end_failed_transaction()
            raise
        except psycopg.Error as error:
            await self._end_failed_transaction()
            raise translate(error, doing) from None

    async def _end_failed_transaction(self) -> None:
        """A message that failed behind its own BEGIN must not leave the session unable to answer anything else."""
        if self.in_transaction:
            await self.send("ROLLBACK")

    async def send(self, message: str) -> Sequence[PGresult]:
        """Send one message and return the results at libpq level, the one of an error included.

        When the task is cancelled meanwhile, the server is asked to cancel the statement and its answer is still waited
        for: only the answer tells what happened. `interrupted` is True from then on, and the caller, who has the results,
        raises the cancellation again when it has recorded them.

        Raises:
            ProblemError: `ConnectionFailed`: the connection broke; what the message did is not known.
        """
        work = asyncio.ensure_future(self._exchange(message))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.interrupted = True
            return await self._cancel(work)

    async def _exchange(self, message: str) -> Sequence[PGresult]:
        import psycopg
        from psycopg import generators

        try:
            async with self._connection.lock:
                self._connection.pgconn.send_query(message.encode())
                return await self._connection.wait(generators.execute(self._connection.pgconn))
        except psycopg.Error as error:
            raise translate(error, "talking to the server") from None

    async def _cancel(self, work: asyncio.Future[Sequence[PGresult]]) -> Sequence[PGresult]:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            await self._connection.cancel_safe(timeout=_CANCEL_PATIENCE)
        try:
            async with asyncio.timeout(_CANCEL_PATIENCE):
                return await work
        except TimeoutError:
            await self._connection.close()
            error = psycopg.OperationalError("the server did not answer a cancel request")
            raise translate(error, "stopping a statement") from None

    async def close(self) -> None:
        """Close the connection; never fails."""
        await self._connection.close()


def engine_unsupported(what: str) -> Problem:
    """The problem of a database server that this version cannot work with."""
    return Problem(
        reason=Reason.ENGINE_UNSUPPORTED,
        message=f"{what}, which this version of reconciler does not work with yet",
        remedy="use a PostgreSQL database, 13 or newer",
    )


def _connection_problem(error: Exception, parameters: dict[str, Any]) -> ProblemError:
    text = redact(str(error).strip())
    where = f"{parameters.get('host') or parameters.get('hostaddr') or 'the local socket'}"
    who = parameters.get("user") or "the login name"
    reason = Reason.READ_ONLY if any(sign in text for sign in _READ_ONLY_SERVER) else Reason.CONNECTION_FAILED
    if "password authentication failed" in text or "no password supplied" in text:
        remedy = f"check the password of {who} in the DSN's source; it is tried again by itself"
    elif "permission denied for database" in text:
        reason, remedy = Reason.PERMISSION_DENIED, f"grant CONNECT on the database to {who}"
    else:
        remedy = remedy_of(reason)
    return ProblemError(
        Problem(
            reason=reason,
            message=f"cannot connect to {where} as {who}: {_one_line(text)}",
            remedy=remedy,
            sqlstate=getattr(error, "sqlstate", None) or "",
        )
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
