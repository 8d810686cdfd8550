"""What a database says of itself: applied migrations, the lock, the claim and the last failure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from reconciler.model.migration import Direction
from reconciler.model.problem import Place, Problem
from reconciler.model.reasons import Reason
from reconciler.model.value import value


class RowStatus(StrEnum):
    """The status of a row of `schema_migrations`. A row means: applied, or in doubt."""

    SUCCESS = "success"
    RUNNING = "running"
    FAILED = "failed"


class HistoryRow(NamedTuple):
    """The narrow part of one row of `schema_migrations`: all a plan needs, and no scripts.

    `token_checksum` and `down_checksum` are None for rows of the earlier tool that no pass has pinned yet. `has_down` is
    True when a down script is stored. `statements_digest` chains the digests of the statements already done of a
    migration that is not transactional.

    `intent_digest` is there while the statement after those that are done may have taken effect without a word of it here:
    the digest of that statement. `intent_object` is what tells whether it did, `index "public".a_id` say, and
    `intent_before` what was seen of that before the statement was sent.
    """

    version: int
    name: str
    status: RowStatus
    direction: Direction
    checksum: str
    token_checksum: str | None
    down_checksum: str | None
    has_down: bool
    transactional: bool
    irreversible: bool
    statements_done: int
    statements_total: int
    statements_digest: str | None
    git_revision: str | None
    intent_digest: str | None = None
    intent_object: str | None = None
    intent_before: str | None = None

    @property
    def counts_as_applied(self) -> bool:
        """True when the migration's up is in force: applied, or on its way down."""
        return self.status is RowStatus.SUCCESS or self.direction is Direction.DOWN


@value
class StoredDown:
    """The down script kept in the database when a migration was applied.

    Args:
        text: the SQL.
        path: the file it came from.
        first_line: the line of that file at which `text` begins.
        checksum: SHA-256 hex of `text`, as recorded.
        no_transaction: the file asked to be run outside a transaction.
        lock_timeout: seconds, as the file asked, or None.
        statement_timeout: seconds, as the file asked, or None.
    """

    text: str
    path: str
    first_line: int
    checksum: str
    no_transaction: bool
    lock_timeout: float | None
    statement_timeout: float | None


@value
class AttemptKey:
    """What a failed attempt was an attempt of. While it stays the same, a permanent failure is not tried again."""

    version: int
    direction: Direction
    script_digest: str
    policy_digest: str


@value(kw_only=True)
class LastFailure:
    """The newest attempt of a database, when it failed for good and nobody has asked for a retry since."""

    key: AttemptKey
    reason: Reason
    message: str
    remedy: str
    path: str
    line: int | None
    column: int | None
    excerpt: str
    sqlstate: str
    statement_index: int | None
    failed_at: datetime

    @property
    def problem(self) -> Problem:
        """The failure as it was told when it happened."""
        return Problem(
            reason=self.reason,
            message=self.message,
            remedy=self.remedy
            or f"mend {self.path} in git, or ask for another attempt by `reconciler retry`",
            place=Place(self.path, self.line, self.column or 1) if self.line is not None else None,
            excerpt=self.excerpt,
            sqlstate=self.sqlstate,
            version=self.key.version,
            direction=self.key.direction,
            statement_index=self.statement_index,
        )


@value
class Claim:
    """Who a database belongs to. Written by the first writer; changed only by `repair --claim`."""

    environment: str
    database: str
    repository: str

    def __str__(self) -> str:
        return f"{self.environment}/{self.database} of {self.repository}"


@value
class LockHolder:
    """Who holds the lock.

    Args:
        owner: host, process and verb, as the holder wrote them.
        mode: `advisory` or `lease`; `job` for a change of CockroachDB's schema that has to end first.
        since: when it was taken, by the server's clock, UTC; None when the holder has not written its row yet.
    """

    owner: str
    mode: str
    since: datetime | None


@value
class ServerIdentity:
    """Tells whether two connections reach the same database, whatever their DSNs say."""

    system_identifier: str
    database_oid: int


@value(kw_only=True)
class Observation:
    """One reading of a database.

    Args:
        rows: by ascending version.
        claim: None until a writer claimed it.
        holder: who holds the lock right now, None when it is free.
        last_failure: see `LastFailure`.
        foreign_history: a description of another tool's table that stands in our place, or None.
        initialised: our tables exist.
        adoptable: the table of the earlier tool stands there with its seven columns and none of ours.
        identity: see `ServerIdentity`.
        engine: `postgresql` or `cockroachdb`.
        server_version: as the server prints it: `18.1`.
        read_only: a standby, or a session that may not write.
        pooled: a connection pooler stands before the server, so that no session is ours.
        sets_role: we are to be another role than the one that logs in.
        unwritable: why we, who may write into our tables, must not: they belong to a role that could run code with our rights.
    """

    rows: tuple[HistoryRow, ...]
    claim: Claim | None
    holder: LockHolder | None
    last_failure: LastFailure | None
    foreign_history: str | None
    initialised: bool
    adoptable: bool
    identity: ServerIdentity
    engine: str
    server_version: str
    read_only: bool
    pooled: bool = False
    sets_role: bool = False
    unwritable: Problem | None = None

    @property
    def current_version(self) -> int:
        """The highest version that is applied, 0 for none."""
        return next((row.version for row in reversed(self.rows) if row.status is RowStatus.SUCCESS), 0)


class AppliedMigration(NamedTuple):
    """One row of `schema_migrations` as `reconciler history` shows it."""

    version: int
    name: str
    applied_at: datetime
    checksum: str
    execution_time_ms: int | None
    status: RowStatus
    direction: Direction
    error_message: str | None
    git_revision: str | None


@value(kw_only=True)
class JournalEvent:
    """One event of `schema_migrations_journal`."""

    at: datetime
    attempt: str
    event: str
    version: int | None
    direction: str | None
    outcome: str | None
    reason: str | None
    message: str | None
    details: dict[str, Any]
