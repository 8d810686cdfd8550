"""Rows in doubt: attempts outside a transaction that began and did not end well.

A failed attempt knows how far it came, and is finished from there while the target still asks for it. Everything else
is for a person to look at: running a statement twice, or never, can destroy data, so nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model import Direction, HistoryRow, Migration, Problem, Reason, RowStatus, Script, Statement
from reconciler.planner.wording import counted, label
from reconciler.sqltext.progress import statements_digest


def unresolvable(row: HistoryRow, migration: Migration | None, target: int) -> Problem | None:
    """Why no plan to `target` can settle `row`, or None when it can or when there is nothing to settle.

    Args:
        row: one that is not `success`.
        migration: its file, None when there is none (any more).
        target: the declared version.
    """
    if row.status is RowStatus.RUNNING:
        return _doubt(row, _interruption(row), f"look at the database to find out; then {_by_hand(row)}")
    stopped = f"the {row.direction} of {label(row.version, row.name)} failed after {_progress(row)}"
    if row.direction is Direction.DOWN:
        if row.version > target:
            return None
        message = f"{stopped}, and target_version {target} asks for the migration to be there"
        resume = f"set target_version below {row.version} to finish the down; or "
        return _doubt(row, message, resume + _by_hand(row))
    if row.transactional or not row.statements_done:
        return None
    if row.version > target:
        message = f"{stopped}, and target_version {target} does not ask for it any more"
        resume = f"set target_version to {row.version} or more to finish it; or "
        return _doubt(row, message, resume + _by_hand(row))
    if migration is None:
        message = f"{stopped}, and its file is gone"
        return _doubt(row, message, f"restore its file{applied_from(row)} to finish it; or {_by_hand(row)}")
    return None


def first_statement(
    row: HistoryRow, script: Script, statements: Sequence[Statement], transactional: bool
) -> int | Problem:
    """The index (from 0) of the statement to go on with after the failed attempt `row`, or why that is not possible.

    Args:
        row: a failed attempt in the direction of `script`.
        script: what would run now.
        statements: `script`, split.
        transactional: whether `script` would run in a transaction now.
    """
    done = row.statements_done
    if row.transactional or not done:
        return 0
    stopped = f"the {row.direction} of {label(row.version, row.name)} failed after {_progress(row)}"
    restore = f"restore the first {counted(done, 'statement')} in {script.path}{applied_from(row)}"
    if transactional:
        message = f"{stopped}, outside a transaction, and what would run now asks for a transaction"
        remedy = f"{restore} with `-- reconciler: no-transaction`, and change only what follows; or {_by_hand(row)}"
        return _doubt(row, message, remedy)
    if done > len(statements) or row.statements_digest != statements_digest(statements, done):
        were = "the one that was already done has" if done == 1 else "those that were already done have"
        message = f"{stopped}, and {were} been changed since"
        return _doubt(row, message, f"{restore} and change only what follows; or {_by_hand(row)}")
    return done


def applied_from(row: HistoryRow) -> str:
    """` as of commit 0123456789ab`, or nothing when the row does not say."""
    return f" as of commit {row.git_revision[:12]}" if row.git_revision else ""


def _doubt(row: HistoryRow, message: str, remedy: str) -> Problem:
    return Problem(
        reason=Reason.OUTCOME_UNKNOWN,
        message=message,
        remedy=remedy,
        version=row.version,
        direction=row.direction,
    )


def _interruption(row: HistoryRow) -> str:
    attempt = f"the {row.direction} of {label(row.version, row.name)}"
    done, total = row.statements_done, row.statements_total
    if not total:
        return f"{attempt} was interrupted, and nobody recorded how far it came"
    if done >= total:
        return f"{attempt} was interrupted after {_progress(row)}, before its end was recorded"
    return f"{attempt} was interrupted after {_progress(row)}, and nobody knows whether statement {done + 1} took effect"


def _progress(row: HistoryRow) -> str:
    """`1 of 3 statements`."""
    return f"{row.statements_done} of {counted(row.statements_total, 'statement')}"


def _by_hand(row: HistoryRow) -> str:
    """What a person has to do, in SQL, to settle `row` without this program."""
    remove = f"`DELETE FROM schema_migrations WHERE version = {row.version}`"
    keep = (
        "`UPDATE schema_migrations SET status = 'success', direction = 'up', error_message = NULL "
        f"WHERE version = {row.version}`"
    )
    if row.direction is Direction.UP:
        return f"finish it by hand and run {keep}, or undo by hand what was done and run {remove}"
    return f"finish it by hand and run {remove}, or undo by hand what was done and run {keep}"
