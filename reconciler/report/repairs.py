"""Repairs and the lock, in words and tables: what a person is asked to say yes to."""

from __future__ import annotations

from datetime import datetime

from reconciler.model.encoding import JsonObject, instant_as_text
from reconciler.model.history import HistoryRow
from reconciler.model.repair import LockSession, LockState, Repair, RepairKind, RowAction, RowChange
from reconciler.report.table import Table
from reconciler.report.text import UNKNOWN, counted, one_line, since

_DIGITS = 12
_MOST_ROWS = 20
_ACTIONS = {
    RowAction.WRITE: "write",
    RowAction.ACCEPT: "change",
    RowAction.SETTLE: "change",
    RowAction.DELETE: "remove",
}
_STYLES = {"write": "green", "change": "yellow", "remove": "red"}


def repair_title(name: str, repair: Repair) -> str:
    """One line: what it comes to."""
    if repair.settled:
        return f"{name}: nothing to do: {one_line(repair.settled)}"
    return f"{name}: {_meaning(repair)}"


def _meaning(repair: Repair) -> str:
    if repair.claim_after is not None:
        return "the database is handed over"
    first, last = repair.changes[0], repair.changes[-1]
    migration = f"migration {first.version} ({one_line(first.name)})"
    match repair.kind:
        case RepairKind.BASELINE:
            which = migration if first is last else f"migrations {first.version} to {last.version}"
            verb = "counts" if first is last else "count"
            return f"{which} {verb} as applied from now on, {counted(len(repair.changes), 'row')} in all"
        case RepairKind.ACCEPT_CHECKSUM:
            return f"{migration} counts as applied from its file as it is now"
        case RepairKind.MARK_APPLIED:
            return f"{migration} counts as applied from now on"
        case _:
            return f"{migration} counts as not applied from now on"


def repair_table(repair: Repair, *, every: bool = False) -> Table:
    """What changes: rows of `schema_migrations`, or whom the database belongs to.

    Args:
        repair: one that does something.
        every: show each row, however many there are.
    """
    if repair.claim_before is not None and repair.claim_after is not None:
        rows = [
            (moment, *map(one_line, (claim.environment, claim.database, claim.repository)))
            for moment, claim in (("now", repair.claim_before), ("then", repair.claim_after))
        ]
        return Table(("BELONGS TO", "ENVIRONMENT", "DATABASE", "REPOSITORY"), rows)
    headers = ("ROW", "VERSION", "NAME", "IS NOW", "WILL BE")
    rows = [
        (
            _ACTIONS[change.action],
            str(change.version),
            one_line(change.name),
            _before(change.before),
            _after(change),
        )
        for change in repair.changes
    ]
    if not every and len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        left_out = ("…", "…", f"{len(rows) - 2 * half} more, shown by -v", "", "")
        rows = [*rows[:half], left_out, *rows[-half:]]
    return Table(headers, rows, frozenset({"VERSION"}), _STYLES, frozenset({"NAME"}))


def _before(row: HistoryRow | None) -> str:
    if row is None:
        return "not there"
    if row.status.value == "success":
        return f"success, digest {row.checksum[:_DIGITS]}"
    progress = (
        f", {row.statements_done} of {counted(row.statements_total, 'statement')} done"
        if row.statements_total
        else ""
    )
    return f"{row.status} ({row.direction}){progress if not row.transactional else ''}"


def _after(change: RowChange) -> str:
    if change.action is RowAction.DELETE:
        return "gone"
    digest = (
        change.migration.checksum
        if change.migration is not None
        else (change.before.checksum if change.before is not None else "")
    )
    return f"success, digest {digest[:_DIGITS]}"


def repair_as_dict(repair: Repair) -> JsonObject:
    """A repair with public keys."""
    return {
        "kind": repair.kind.value,
        "settled": repair.settled or None,
        "rows": [
            {
                "version": change.version,
                "name": change.name,
                "action": _ACTIONS[change.action],
                "before": _row_as_dict(change.before),
                "checksum": change.migration.checksum if change.migration is not None else None,
            }
            for change in repair.changes
        ],
        "claim_before": _claim_as_dict(repair.claim_before),
        "claim_after": _claim_as_dict(repair.claim_after),
        "notes": list(repair.notes),
    }


def _row_as_dict(row: HistoryRow | None) -> JsonObject | None:
    if row is None:
        return None
    return {
        "status": row.status.value,
        "direction": row.direction.value,
        "checksum": row.checksum,
        "statements_done": row.statements_done,
        "statements_total": row.statements_total,
        "git_revision": row.git_revision,
    }


def _claim_as_dict(claim: object) -> JsonObject | None:
    from reconciler.model.history import Claim

    if not isinstance(claim, Claim):
        return None
    return {"environment": claim.environment, "database": claim.database, "repository": claim.repository}


def lock_title(name: str, state: LockState) -> str:
    """One line: whether there is anything to free."""
    if state.session is not None:
        return f"{name}: the lock is held; freeing it ends the session that holds it"
    if state.leased:
        return f"{name}: the lock is held by a lease; freeing it withdraws that"
    if state.forgotten:
        return (
            f"{name}: the lock is free, and its last holder ended without a word; freeing it clears the row"
        )
    return f"{name}: nothing to do: nobody holds the lock"


def lock_table(state: LockState, now: datetime) -> Table:
    """Who holds the lock, and since when."""
    rows = [("holder", one_line(state.owner) or "not said"), ("since", since(state.since, now))]
    if state.renewed_at is not None:
        rows.append(("last wrote", since(state.renewed_at, now)))
    session = state.session
    if session is not None:
        rows += [
            ("session", _session(session)),
            ("connected", since(session.connected_at, now)),
            ("state", session.state or UNKNOWN),
            ("transaction", since(session.transaction_at, now)),
        ]
    return Table(("LOCK", ""), rows)


def _session(session: LockSession) -> str:
    known = [
        f"pid {session.pid}",
        f"user {session.user}" if session.user else "",
        f"application {session.application}" if session.application else "",
        f"from {session.address}" if session.address else "",
    ]
    return one_line(", ".join(each for each in known if each))


def lock_notes(state: LockState) -> tuple[str, ...]:
    """What a person should know before saying yes."""
    notes = []
    if state.session is not None:
        notes.append(
            "what runs in it is rolled back; a migration outside a transaction stops half-way, and the next pass finds "
            "out how far it came; a hook that its holder runs is ended"
        )
    elif state.leased:
        notes.append(
            "its holder may still be at work: its next write into our tables fails, and what it runs until then stays"
        )
    if state.unrecorded and state.session is not None:
        notes.append(f"it will not be recorded: {one_line(state.unrecorded)}")
    return tuple(notes)


def lock_as_dict(state: LockState) -> JsonObject:
    """The lock with public keys."""
    session = state.session
    return {
        "held": state.held,
        "owner": state.owner or None,
        "mode": state.mode or None,
        "since": instant_as_text(state.since),
        "renewed_at": instant_as_text(state.renewed_at),
        "session": (
            {
                "pid": session.pid,
                "user": session.user or None,
                "application": session.application or None,
                "address": session.address or None,
                "state": session.state or None,
                "connected_at": instant_as_text(session.connected_at),
                "transaction_at": instant_as_text(session.transaction_at),
            }
            if session is not None
            else None
        ),
    }
