"""Comparing what is applied with the files it came from."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from reconciler.model import HistoryRow, Migration, Pin, Place, Problem, Reason, RowStatus
from reconciler.planner.doubt import applied_from
from reconciler.planner.findings import Findings
from reconciler.planner.identity import is_another_migration, same_name
from reconciler.planner.memory import token_checksum_of
from reconciler.planner.request import PlanRequest
from reconciler.planner.wording import label

_SHOWN_DIGITS = 12


def verify(
    request: PlanRequest, skip: AbstractSet[int], untouched: AbstractSet[int], findings: Findings
) -> tuple[Pin, ...]:
    """Compare every applied migration up to the target with its file.

    Args:
        request: the catalog, the history and the policy.
        skip: versions that stand refused already.
        untouched: versions whose down changed nothing and is not asked for any more: they are applied.
        findings: where differences go.

    Returns:
        The rows of the earlier tool, to be completed from their files.
    """
    pins: list[Pin] = []
    file_of = request.catalog.get
    target, success = request.target, RowStatus.SUCCESS
    # Almost every pass finds nothing here, on histories of thousands of rows: one look-up and four comparisons a row.
    for row in request.observation.rows:
        if row.version > target:
            break
        if row.status is not success and row.version not in untouched:
            continue
        migration = file_of(row.version)
        if (
            migration is not None
            and row.checksum == migration.checksum
            and row.name == migration.name
            and row.token_checksum is not None
        ):
            continue
        if row.version in skip:
            continue
        pin = _examine(row, migration, request, findings)
        if pin is not None:
            pins.append(pin)
    return tuple(pins)


def _examine(
    row: HistoryRow, migration: Migration | None, request: PlanRequest, findings: Findings
) -> Pin | None:
    if migration is None:
        # an unknown target is refused by a message of its own
        if row.version != request.target:
            findings.refusals.append(_missing(row))
        return None
    if row.token_checksum is None:
        # what the earlier tool took a digest of is not known, so its digest proves nothing
        return Pin(row.version, migration, token_checksum_of(migration.up.text))
    if row.checksum != migration.checksum and not _tolerated(row, migration, request, findings):
        differs = _another if is_another_migration(row, migration) else _mismatch
        findings.refusals.append(differs(row, migration))
    elif not same_name(row.name, migration):
        findings.warnings.append(_renamed(row, migration))
    return None


def _tolerated(row: HistoryRow, migration: Migration, request: PlanRequest, findings: Findings) -> bool:
    """Whether a file that differs from the applied one may stand; says so in a warning when it may."""
    if token_checksum_of(migration.up.text) == row.token_checksum:
        down_changed = migration.down_checksum != row.down_checksum
        what = "its UP section is the same SQL; only " + (
            "its DOWN section, comments or blanks differ"
            if down_changed
            else "comments, blanks or directives differ"
        )
    elif is_another_migration(row, migration):
        # accepting it would skip its SQL, and bring the other one down by the wrong script
        return False
    elif migration.checksum in (
        accepted.lower() for accepted in request.policy.accept_checksums.get(row.version, ())
    ):
        what = f"policy.accept_checksums accepts the new digest {migration.checksum[:_SHOWN_DIGITS]}"
    else:
        return False
    findings.warnings.append(
        Problem(
            reason=Reason.CHECKSUM_MISMATCH,
            message=f"the file of {label(row.version, row.name)} was changed after it was applied; {what}",
            place=Place(migration.path, 1),
            version=row.version,
        )
    )
    return True


def _missing(row: HistoryRow) -> Problem:
    lower = (
        f", or set target_version below {row.version} to bring it down by its stored script"
        if row.has_down
        else ""
    )
    return Problem(
        reason=Reason.MIGRATION_FILE_MISSING,
        message=f"{label(row.version, row.name)} is applied, but no file has this number any more",
        remedy=f"restore its file{applied_from(row)}{lower}",
        version=row.version,
    )


def _mismatch(row: HistoryRow, migration: Migration) -> Problem:
    return Problem(
        reason=Reason.CHECKSUM_MISMATCH,
        message=(
            f"the file of {label(row.version, row.name)} was changed after it was applied: its digest was "
            f"{row.checksum[:_SHOWN_DIGITS]} and is {migration.checksum[:_SHOWN_DIGITS]}"
        ),
        remedy=(
            f"restore {migration.path}{applied_from(row)} and put the change into a new migration; or, when the "
            f"database already is as the file says, run `reconciler repair --accept-checksum {row.version} --reason ...`, or accept "
            f"the file in every database by policy.accept_checksums: {{{row.version}: [{migration.checksum}]}}"
        ),
        place=Place(migration.path, 1),
        version=row.version,
    )


def _another(row: HistoryRow, migration: Migration) -> Problem:
    named = label(row.version, row.name)
    lower = (
        f", or set target_version below {row.version} first, which brings what is applied down by its stored script"
        if row.has_down
        else ""
    )
    return Problem(
        reason=Reason.CHECKSUM_MISMATCH,
        message=(
            f"{named} is applied, and {migration.path}, which has this number now, is another migration: its name and its "
            "SQL differ"
        ),
        remedy=f"restore the file of {named}{applied_from(row)} and give {migration.file_name} a number of its own{lower}",
        place=Place(migration.path, 1),
        version=row.version,
    )


def _renamed(row: HistoryRow, migration: Migration) -> Problem:
    return Problem(
        reason=Reason.MIGRATION_FILE_MISSING,
        message=(
            f"{label(row.version, row.name)} was applied under this name, and is now in {migration.file_name}"
        ),
        place=Place(migration.path, 1),
        version=row.version,
    )
