"""Repairs: what a person says a history should be, where no migration can make it so."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from reconciler.model.history import Claim, HistoryRow
from reconciler.model.migration import Migration
from reconciler.model.value import value


class RepairKind(StrEnum):
    """What is done: the `outcome` of the journal's event."""

    BASELINE = "baselined"
    """A database that already has the schema is taken over."""
    ACCEPT_CHECKSUM = "checksum_accepted"
    """The file of an applied migration was changed on purpose."""
    MARK_APPLIED = "marked_applied"
    """A migration is in force, whatever its row said."""
    MARK_ROLLED_BACK = "marked_rolled_back"
    """A migration is not in force, whatever its row said."""
    CLAIM = "claimed"
    """A database is handed over to another environment, database or repository."""


class RowAction(StrEnum):
    """What happens to one row of `schema_migrations`."""

    WRITE = "write"
    """A row as of an applied migration is written from the file, instead of the one there was, if there was one."""
    ACCEPT = "accept"
    """Name, digests and down script are taken from the file; the rest stays."""
    SETTLE = "settle"
    """The row says `success`; all that was recorded when the migration was applied stays."""
    DELETE = "delete"
    """The row goes."""


@value(kw_only=True)
class RowChange:
    """What a repair does to one row of `schema_migrations`.

    Args:
        version: of the migration.
        name: of the migration.
        action: what happens.
        before: the row as it was read; None when there was none.
        migration: the file that a row is written from; None when it stays as it is or goes.
        token_checksum: SHA-256 hex over the tokens of the file's up; empty without a file.
        transactional: whether the file's up would run in a transaction.
        statements: how many statements the file's up has; 0 when it could not be taken apart.
    """

    version: int
    name: str
    action: RowAction
    before: HistoryRow | None
    migration: Migration | None = None
    token_checksum: str = ""
    transactional: bool = True
    statements: int = 0


@value(kw_only=True)
class Repair:
    """All that one repair changes in one database.

    Args:
        kind: what is done.
        changes: rows, by ascending version; none when only the claim changes, or when there is nothing to do.
        claim_before: whom the database belonged to, when that changes.
        claim_after: whom it is to belong to, when that changes.
        settled: why there is nothing to do; empty when there is something.
        notes: what a person should know before saying yes; sentences without a full stop.
    """

    kind: RepairKind
    changes: tuple[RowChange, ...] = ()
    claim_before: Claim | None = None
    claim_after: Claim | None = None
    settled: str = ""
    notes: tuple[str, ...] = ()


@value(kw_only=True)
class LockSession:
    """A session of the server that holds the advisory lock.

    What belongs to another role the server tells only in part: then times and state are None or empty.

    Args:
        pid: of the server's process.
        user: the role that logged in.
        application: what the client calls itself.
        address: where the client is; empty for a local socket.
        state: `active`, `idle`, `idle in transaction`, ...
        connected_at: when it connected, UTC.
        transaction_at: when its open transaction began, UTC; None without one.
    """

    pid: int
    user: str
    application: str
    address: str
    state: str
    connected_at: datetime | None
    transaction_at: datetime | None


@value(kw_only=True)
class LockState:
    """All that a server tells of the lock of one database.

    Args:
        session: which session holds it; None when none does.
        owner: the holder, as it wrote itself down; empty when nobody did.
        mode: `advisory` or `lease`; empty when nobody wrote.
        since: when it was taken, UTC.
        renewed_at: when its holder last wrote, UTC.
        leased: it is a lease that has not expired.
        fence: the counter of takings; None when nobody has taken it yet.
        unrecorded: why the journal will not tell of what is done to it; empty when it will.
    """

    session: LockSession | None
    owner: str
    mode: str
    since: datetime | None
    renewed_at: datetime | None
    leased: bool
    fence: int | None
    unrecorded: str

    @property
    def held(self) -> bool:
        """Somebody keeps others out."""
        return self.session is not None or self.leased

    @property
    def forgotten(self) -> bool:
        """The holder is gone, and its name still stands there."""
        return not self.held and bool(self.owner)
