"""Choosing the script that brings a migration down."""

from __future__ import annotations

from typing import NamedTuple

from reconciler.manifest.values import ChangedDownPolicy
from reconciler.model import (
    Direction,
    Directives,
    HistoryRow,
    Migration,
    Place,
    Problem,
    Reason,
    Script,
    ScriptSource,
    StoredDown,
)
from reconciler.planner.doubt import applied_from
from reconciler.planner.findings import Findings
from reconciler.planner.identity import is_another_migration
from reconciler.planner.request import PlanRequest
from reconciler.planner.wording import label
from reconciler.sqltext import digest


class ChosenScript(NamedTuple):
    """A script that may run, and what its file asks for."""

    script: Script
    source: ScriptSource
    directives: Directives


def stored_downs_needed(request: PlanRequest) -> tuple[int, ...]:
    """The versions whose stored down script must be read from the database before a plan can be made, ascending.

    Those are the applied ones above the target whose file is gone or has another down than the stored one. In the
    common case there are none, and it costs next to nothing to find out. `request.stored_downs` is not looked at.
    """
    needed: list[int] = []
    for row in reversed(request.observation.rows):
        if row.version <= request.target:
            break
        if (
            row.counts_as_applied
            and row.has_down
            and not _equals_stored(request.catalog.get(row.version), row)
        ):
            needed.append(row.version)
    return tuple(reversed(needed))


def choose_down(
    row: HistoryRow,
    migration: Migration | None,
    stored: StoredDown | None,
    policy: ChangedDownPolicy,
    findings: Findings,
) -> ChosenScript | None:
    """Choose the script that brings `row` down; the reason why there is none goes to `findings`.

    The file's down is preferred while it is the one that was stored, since people can see it. Where they differ the
    policy decides; where the file is gone, or another migration has its number, the stored one runs, whatever the policy
    says.
    """
    own = _down_of(migration)
    if own is not None and _equals_stored(migration, row):
        return own
    if migration is not None and is_another_migration(row, migration):
        # its down undoes what was never done
        migration = own = None
    if own is not None and not row.has_down:
        return own
    if not row.has_down:
        findings.refusals.append(_irreversible(row, migration))
        return None
    if migration is not None and policy is ChangedDownPolicy.CHECKOUT:
        if own is None:
            findings.refusals.append(_removed(row, migration))
            return None
        findings.warnings.append(_differs(row, migration, "the file's runs, as policy.changed_down says"))
        return own
    if stored is None:
        findings.refusals.append(_unreadable(row))
        return None
    if digest(stored.text) != stored.checksum:
        findings.refusals.append(_tampered(row, migration, stored))
        return None
    if migration is None:
        findings.warnings.append(_file_gone(row))
    else:
        runs = "the stored one runs (policy.changed_down: checkout would run the file's)"
        findings.warnings.append(_differs(row, migration, runs))
    directives = Directives(
        no_transaction=stored.no_transaction,
        lock_timeout=stored.lock_timeout,
        statement_timeout=stored.statement_timeout,
    )
    return ChosenScript(Script(stored.text, stored.path, stored.first_line), ScriptSource.STORED, directives)


def _down_of(migration: Migration | None) -> ChosenScript | None:
    if migration is None or migration.down is None or migration.directives.irreversible:
        return None
    return ChosenScript(migration.down, ScriptSource.CHECKOUT, migration.directives)


def _equals_stored(migration: Migration | None, row: HistoryRow) -> bool:
    return (
        migration is not None
        and migration.down_checksum is not None
        and migration.down_checksum == row.down_checksum
        and not migration.directives.irreversible
    )


def _problem(
    row: HistoryRow, migration: Migration | None, reason: Reason, message: str, remedy: str = ""
) -> Problem:
    place = None
    if migration is not None:
        place = Place(migration.path, migration.down.first_line if migration.down is not None else 1)
    return Problem(
        reason=reason,
        message=message,
        remedy=remedy,
        place=place,
        version=row.version,
        direction=Direction.DOWN,
    )


def _irreversible(row: HistoryRow, migration: Migration | None) -> Problem:
    named = label(row.version, row.name)
    stay = f"set target_version to {row.version} or more"
    if migration is None:
        message = (
            f"{named} cannot be brought down: its file is gone, and the database keeps no down script for it"
        )
        remedy = f"restore its file{applied_from(row)}, or {stay}"
    elif migration.directives.irreversible:
        message = f"{named} cannot be brought down: its file declares it irreversible"
        remedy = f"{stay}, and undo its effect by a new migration"
    else:
        message = f"{named} cannot be brought down: its file has no DOWN section, and the database keeps none for it"
        remedy = f"add a DOWN section to {migration.path}, or {stay}"
    return _problem(row, migration, Reason.IRREVERSIBLE, message, remedy)


def _removed(row: HistoryRow, migration: Migration) -> Problem:
    gone = (
        "declares it irreversible by now"
        if migration.directives.irreversible
        else "has no DOWN section any more"
    )
    return _problem(
        row,
        migration,
        Reason.IRREVERSIBLE,
        f"{label(row.version, row.name)} cannot be brought down: its file {gone}, and policy.changed_down: checkout "
        "lets the file decide",
        "restore the DOWN section, or set policy.changed_down: stored to run the one that the database keeps, "
        f"or set target_version to {row.version} or more",
    )


def _unreadable(row: HistoryRow) -> Problem:
    return _problem(
        row,
        None,
        Reason.IRREVERSIBLE,
        f"{label(row.version, row.name)} cannot be brought down: the down script that its row promises could not be read",
        f"look at down_script of version {row.version} in schema_migrations, and try again by `reconciler retry`",
    )


def _tampered(row: HistoryRow, migration: Migration | None, stored: StoredDown) -> Problem:
    return _problem(
        row,
        migration,
        Reason.CHECKSUM_MISMATCH,
        f"the stored down script of {label(row.version, row.name)} was changed inside the database: its digest was "
        f"{stored.checksum[:12]} and is {digest(stored.text)[:12]}",
        f"restore the file{applied_from(row)}, whose DOWN section then runs instead; or, when the file's DOWN section "
        "is the right one, set policy.changed_down: checkout",
    )


def _differs(row: HistoryRow, migration: Migration, runs: str) -> Problem:
    return _problem(
        row,
        migration,
        Reason.CHECKSUM_MISMATCH,
        f"the DOWN section of {label(row.version, row.name)} differs from the one stored when it was applied; {runs}",
    )


def _file_gone(row: HistoryRow) -> Problem:
    return _problem(
        row,
        None,
        Reason.MIGRATION_FILE_MISSING,
        f"the file of {label(row.version, row.name)} is gone; it is brought down by the script stored when it was "
        "applied",
    )
