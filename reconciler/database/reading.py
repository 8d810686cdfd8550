"""Reading a database without writing to it: history, lock, claim and last failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from reconciler.database.session import Session
from reconciler.database.trust import Stranger, read_table, strangers_problem
from reconciler.model import (
    AppliedMigration,
    AttemptKey,
    Claim,
    Direction,
    ErrorClass,
    HistoryRow,
    JournalEvent,
    LastFailure,
    LockHolder,
    Observation,
    Problem,
    ProblemError,
    Reason,
    RowStatus,
    ServerIdentity,
    StoredDown,
)

ADVISORY_KEY = 0x7265636F6E63696C
"""The bytes of `reconcil`. PostgreSQL's advisory locks are per database, so one key serves."""
_LOCK_KEY = {"key_high": ADVISORY_KEY >> 32, "key_low": ADVISORY_KEY & 0xFFFFFFFF}

_OWNER_COLUMNS = ["version", "name", "applied_at", "checksum", "execution_time_ms", "status", "error_message"]
"""The seven columns of the earlier tool's table, fixed by contract."""
_SIGN_OF_OURS = "statements_digest"

_STATUSES = {status.value: status for status in RowStatus}
_DIRECTIONS = {direction.value: direction for direction in Direction}


class Reader:
    """Reads one database, and remembers what it read for as long as the server says that nothing has changed.

    Args:
        history_schema: where our tables live.
    """

    def __init__(self, history_schema: str) -> None:
        self._schema = history_schema
        self._rows: tuple[HistoryRow, ...] = ()
        self._rows_of: tuple[ServerIdentity, str] | None = None
        self._marks: tuple[Any, ...] | None = None
        self._seen: Observation | None = None
        self.strangers: tuple[Stranger, ...] = ()
        """Those of our tables that belong to a role we do not trust, as they were read last: to be read and not to be written."""

    async def glance(self, session: Session) -> Observation:
        """As `observe`, for one statement while nothing has changed: then the very same object again.

        That the lock's holder has died without a word, or that somebody wrote into the journal by hand that a failure is
        to be forgotten, changes nothing that is compared; so a database found locked or failed is observed in full.

        Raises:
            ProblemError: the database cannot be read.
        """
        import psycopg.errors

        seen = self._seen
        if seen is None or seen.holder is not None or seen.last_failure is not None:
            return await self.observe(session)
        try:
            (marks,) = await session.read(
                before=[session.queries("read_marks")], doing="looking whether the history has changed"
            )
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            return await self.observe(session)
        return seen if marks[:1] == [self._marks] else await self.observe(session)

    async def observe(self, session: Session) -> Observation:
        """One reading of everything a plan needs. The history's rows are read only when one of them has changed.

        Raises:
            ProblemError: the database cannot be read.
        """
        import psycopg.errors

        known, self._seen = self._rows_of, None
        queries = session.queries
        # before all else: what changes while we read is then seen as a change the next time
        first = [
            *(queries(name) for name in ("hold_history", "hold_journal", "hold_lock", "read_strangers")),
            queries("read_marks"),
            queries("read_elsewhere", schema=self._schema),
        ]
        blocks = [
            queries("identity", place=session.place),
            queries("read_server"),
            queries("read_lock", **_LOCK_KEY),
            queries("read_last_attempt"),
        ]
        if known is None:
            blocks.append(queries("read_history"))
        try:
            strangers, *answers = await session.read(
                *blocks, before=first, doing="reading the migration history"
            )
            marks = answers[0][0] if answers[0] else None
            rows_of = (_identity(answers[2]), marks[-1]) if marks is not None else None
            if known is not None and rows_of != known:
                # a change between the two messages is noticed the next time: the rows are newer than the marks
                answers += await read_table(
                    session, "history", queries("read_history"), doing="reading the migration history"
                )
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            self._rows_of = None
            return await self._observe_uninitialised(session)
        except ProblemError as error:
            if error.problem.sqlstate != "22012":
                raise
            self._rows_of = None
            return await self._observe_uninitialised(session)
        self.strangers = tuple(Stranger(*found[:3]) for found in strangers)
        _, elsewhere, identity, server, lock, attempts = answers[:6]
        if len(answers) > 6:
            self._rows = tuple(_row(values) for values in answers[6])
        claim, holder = _lock_state(lock)
        self._marks, self._rows_of = marks, rows_of
        observation = Observation(
            rows=self._rows,
            claim=claim,
            holder=holder,
            last_failure=_last_failure(attempts),
            foreign_history=_elsewhere(elsewhere, self._schema),
            initialised=True,
            adoptable=False,
            identity=_identity(identity),
            engine=session.dialect.name,
            server_version=_version(identity),
            read_only=bool(server[0][0]),
            pooled=session.pooled,
            sets_role=session.sets_role,
            unwritable=self._unwritable(any(found[4] for found in strangers)),
        )
        # a glance does not ask again to whom it is that the tables belong
        self._seen = observation if marks is not None and not strangers else None
        return observation

    async def _observe_uninitialised(self, session: Session) -> Observation:
        """Our tables are not all there: find out what is."""
        queries = session.queries
        elsewhere, relations, identity, server = await session.read(
            queries("identity", place=session.place),
            queries("read_server"),
            before=[queries("read_elsewhere", schema=self._schema), queries("inspect", schema=self._schema)],
            doing="looking for the migration history",
        )
        may_write = any(relation[-1] is True for relation in relations if relation[0] == self._schema)
        here = [relation for schema, *relation in relations if schema == self._schema]
        columns = {name: list(found) for name, found, *_ in here}
        history = columns.get("schema_migrations")
        foreign = _elsewhere(elsewhere, self._schema)
        strange = [
            (Stranger(name, owner, we), kind) for name, _, owner, we, kind, *_ in here if owner is not None
        ]
        self.strangers = tuple(stranger for stranger, _ in strange)
        views = [stranger for stranger, kind in strange if kind != "r"]
        rows: tuple[HistoryRow, ...] = ()
        claim, holder, adoptable = None, None, False
        if views:
            foreign = f"{self._schema}.{views[0].table} (no table, and of {views[0].owner}, whose code it would run with our rights)"
        elif history is not None and _SIGN_OF_OURS in history:
            # a version of this program made it, an earlier one maybe
            (found,) = await read_table(
                session, "history", queries("read_earlier_history"), doing="reading the migration history"
            )
            rows = tuple(_row(values) for values in found)
            if "repository" in columns.get("schema_migrations_lock", ()):
                (lock,) = await read_table(
                    session, "lock", queries("read_lock", **_LOCK_KEY), doing="reading the lock"
                )
                claim, holder = _lock_state(lock)
        elif history is not None and sorted(history) == sorted(_OWNER_COLUMNS):
            (found,) = await read_table(
                session,
                "history",
                queries("read_adoptable_history"),
                doing="reading the earlier tool's history",
            )
            rows = tuple(_row(values) for values in found)
            adoptable = True
        elif history is not None:
            foreign = f"{self._schema}.schema_migrations ({_tool(history)}; columns {', '.join(history)})"
        return Observation(
            rows=rows,
            claim=claim,
            holder=holder,
            last_failure=None,
            foreign_history=foreign,
            initialised=False,
            adoptable=adoptable,
            identity=_identity(identity),
            engine=session.dialect.name,
            server_version=_version(identity),
            read_only=bool(server[0][0]),
            pooled=session.pooled,
            sets_role=session.sets_role,
            unwritable=self._unwritable(may_write),
        )

    def _unwritable(self, may_write: bool) -> Problem | None:
        # who may only read cannot run anybody's triggers, and sees what those see who write
        return strangers_problem(self._schema, self.strangers) if self.strangers and may_write else None


async def read_stored_downs(session: Session, versions: list[int]) -> dict[int, StoredDown]:
    """The stored down scripts of `versions`, without those that have none."""
    import psycopg.errors

    if not versions:
        return {}
    try:
        (rows,) = await read_table(
            session, "history", session.queries.stored_downs(versions), doing="reading stored down scripts"
        )
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return {}
    return {
        int(version): StoredDown(
            text, path or "", first_line or 1, checksum or "", bool(alone), lock, statement
        )
        for version, text, path, first_line, checksum, alone, lock, statement in rows
    }


async def read_applied(session: Session, version: int | None) -> list[AppliedMigration]:
    """The rows of `schema_migrations`, oldest first; empty when there is no such table."""
    import psycopg.errors

    rows: list[tuple[Any, ...]] = []
    for block in ("read_applied", "read_adoptable_applied"):
        try:
            (rows,) = await read_table(
                session, "history", session.queries(block, version=version), doing="reading the history"
            )
            break
        except psycopg.errors.UndefinedColumn:
            continue
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return []
    return [
        AppliedMigration(
            int(number),
            name,
            _time(at),
            checksum,
            elapsed,
            _status(status),
            _DIRECTIONS.get(direction, Direction.UP),
            error,
            revision,
        )
        for number, name, at, checksum, elapsed, status, direction, error, revision in rows
    ]


_DETAILS = [
    "name",
    "script_source",
    "remedy",
    "path",
    "line",
    "column_number",
    "excerpt",
    "sqlstate",
    "statement_index",
    "execution_time_ms",
    "git_revision",
    "git_author",
    "environment",
    "database_name",
    "verb",
    "os_user",
    "database_user",
    "host",
    "pid",
    "tool_version",
    "blockers",
    "artefact",
]


async def read_journal(session: Session, version: int | None, limit: int) -> list[JournalEvent]:
    """The newest `limit` events, oldest first; empty when there is no journal."""
    import psycopg.errors

    try:
        (rows,) = await read_table(
            session,
            "journal",
            session.queries("read_journal", version=version, limit=limit),
            doing="reading the journal",
        )
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName):
        return []
    return [
        JournalEvent(
            at=_time(row[0]),
            attempt=row[1],
            event=row[2],
            version=row[3],
            direction=row[4],
            outcome=row[5],
            reason=row[6],
            message=row[7],
            details=_details(row[8:]),
        )
        for row in rows
    ]


def _details(values: tuple[Any, ...]) -> dict[str, Any]:
    details = {key: value for key, value in zip(_DETAILS, values, strict=False) if value is not None}
    if "blockers" in details:
        try:
            details["blockers"] = json.loads(details["blockers"])
        except ValueError:
            # somebody else's writing: shown as it stands there
            pass
    return details


def _identity(rows: list[tuple[Any, ...]]) -> ServerIdentity:
    return ServerIdentity(str(rows[0][0]), int(rows[0][1]))


def _version(rows: list[tuple[Any, ...]]) -> str:
    return str(rows[0][2]).split(" ", 1)[0]


def _row(values: tuple[Any, ...]) -> HistoryRow:
    version, name, status, direction, *rest = values
    if direction not in _DIRECTIONS:
        return HistoryRow(int(version), name, RowStatus.RUNNING, Direction.UP, *rest)
    return HistoryRow(int(version), name, _status(status), _DIRECTIONS[direction], *rest)


def _status(text: str) -> RowStatus:
    # a word we did not write is doubt, and doubt must not count as applied
    return _STATUSES.get(text, RowStatus.RUNNING)


def _lock_state(rows: list[tuple[Any, ...]]) -> tuple[Claim | None, LockHolder | None]:
    if not rows:
        return None, None
    environment, database, repository, owner, holder, mode, since, leased, locked = rows[0]
    claim = Claim(environment, database, repository) if environment is not None else None
    if not (leased or locked):
        return claim, None
    if owner is None:
        # taken a moment ago: the row is written after the lock
        return claim, LockHolder("another session that has not yet said its name", "advisory", None)
    return claim, LockHolder(holder, mode, _time(since))


def _last_failure(rows: list[tuple[Any, ...]]) -> LastFailure | None:
    if not rows:
        return None
    event, outcome, version, direction, script, policy, reason, *rest = rows[0]
    if event != "finished" or outcome != "failed" or reason not in set(Reason):
        return None
    cause = Reason(reason)
    if cause.error_class is not ErrorClass.PERMANENT:
        return None
    message, remedy, path, line, column, excerpt, sqlstate, statement, failed_at, _ = rest
    return LastFailure(
        key=AttemptKey(int(version), _DIRECTIONS[direction], script, policy),
        reason=cause,
        message=message or "",
        remedy=remedy or "",
        path=path or "",
        line=line,
        column=column,
        excerpt=excerpt or "",
        sqlstate=sqlstate or "",
        statement_index=statement,
        failed_at=_time(failed_at),
    )


def _elsewhere(rows: list[tuple[Any, ...]], schema: str) -> str | None:
    if not rows:
        return None
    return f"{rows[0][0]}.schema_migrations, which the search path also finds beside the configured schema {schema}"


def _tool(columns: list[str]) -> str:
    if sorted(columns) == ["dirty", "version"]:
        return "a table of golang-migrate"
    if columns == ["version"]:
        return "a table of dbmate or Rails"
    return "a table of another tool"


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
