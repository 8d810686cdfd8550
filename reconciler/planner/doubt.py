"""Attempts outside a transaction that began and did not end well: how far they came, and whether to go on from there.

What is done is on record. Of the one statement that may have taken effect without a word of it, the record says what to
look at, and looking settles it. The rest is for a person: running a statement twice, or never, can destroy data, so
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reconciler.model import (
    COCKROACHDB,
    POSTGRESQL,
    Direction,
    HistoryRow,
    Migration,
    Observation,
    Problem,
    Reason,
    RowStatus,
    Script,
    Statement,
    StoredDown,
)
from reconciler.planner.pointing import pointing_at_doubt
from reconciler.planner.wording import counted, label
from reconciler.sqltext import (
    ABSENT,
    BUILDING,
    INVALID,
    OPAQUE,
    PENDING,
    REINDEX,
    REPEATABLE,
    UNNAMED,
    VALID,
    Analysis,
    IndexOn,
    indexes_in,
    intent_digest,
    state_word,
    statements_digest,
)

_ITSELF = "it is looked at again by itself, and the migration goes on from there"


class Reached(NamedTuple):
    """How far an attempt came.

    Args:
        done: how many statements are in force.
        leftover: an invalid index that the next one left behind, empty when there is none.
    """

    done: int
    leftover: str = ""


def objects_needed(observation: Observation) -> list[str]:
    """What to look at before planning: the objects that tell whether statements in doubt took effect."""
    return [
        row.intent_object
        for row in observation.rows
        if row.status is not RowStatus.SUCCESS
        and row.intent_object
        and _kind(row) not in (REPEATABLE, OPAQUE)
    ]


def unresolvable(
    row: HistoryRow,
    migration: Migration | None,
    target: int,
    objects: Mapping[str, str] | None,
    stored: StoredDown | None = None,
    *,
    engine: str = POSTGRESQL,
) -> Problem | None:
    """Why no plan to `target` can settle `row`, or None when it can or when there is nothing to settle.

    Args:
        row: one that is not `success`, and not `untouched`.
        migration: its file, None when there is none (any more).
        target: the declared version.
        objects: the state of what `objects_needed` names; None while somebody is at work on the database.
        stored: the down script that the database keeps, when it was read.
        engine: the server.
    """
    if row.status is RowStatus.RUNNING and (row.transactional or not row.statements_total):
        message = f"the {row.direction} of {label(row.version, row.name)} was interrupted, and nobody recorded how far it came"
        return _doubt(row, message, f"look at the database to find out; then {_by_hand(row)}")
    reached = _reached(row, objects, engine)
    if isinstance(reached, Problem):
        return pointing_at_doubt(reached, row, _scripts(row, migration, stored), engine)
    stopped = _stopped(row, reached.done)
    if row.direction is Direction.DOWN:
        if row.version > target:
            return None
        message = f"{stopped}, and target_version {target} asks for the migration to be there"
        resume = f"set target_version below {row.version} to finish the down; or "
        return _doubt(row, message, resume + _by_hand(row))
    if row.transactional or not (reached.done or _may_be_in_force(row, engine)):
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
    row: HistoryRow,
    script: Script,
    analysis: Analysis,
    transactional: bool,
    objects: Mapping[str, str] | None,
) -> Reached | Problem:
    """Where to go on after the attempt `row`, or why that is not possible.

    Args:
        row: a failed or interrupted attempt in the direction of `script`.
        script: what would run now.
        analysis: of `script`.
        transactional: whether `script` would run in a transaction now.
        objects: the state of what `objects_needed` names; None while somebody is at work on the database.
    """
    reached = _reached(row, objects, analysis.engine)
    if isinstance(reached, Problem):
        return pointing_at_doubt(reached, row, [script], analysis.engine)
    if row.transactional or not reached.done:
        return reached
    done = reached.done
    stopped = _stopped(row, done)
    restore = f"restore the first {counted(done, 'statement')} in {script.path}{applied_from(row)}"
    if transactional:
        message = f"{stopped}, outside a transaction, and what would run now asks for a transaction"
        remedy = f"{restore} with `-- reconciler: no-transaction`, and change only what follows; or {_by_hand(row)}"
        return _doubt(row, message, remedy)
    if not _still_begins_with(analysis.statements, row, done):
        were = "the one that was already done has" if done == 1 else "those that were already done have"
        message = f"{stopped}, and {were} been changed since"
        return _doubt(row, message, f"{restore} and change only what follows; or {_by_hand(row)}")
    return reached


def _scripts(row: HistoryRow, migration: Migration | None, stored: StoredDown | None) -> list[Script]:
    """What the attempt `row` may have been at, as far as it is at hand."""
    if row.direction is Direction.UP:
        return [migration.up] if migration is not None else []
    scripts = [migration.down] if migration is not None and migration.down is not None else []
    return [*scripts, Script(stored.text, stored.path, stored.first_line)] if stored is not None else scripts


def _still_begins_with(statements: Sequence[Statement], row: HistoryRow, done: int) -> bool:
    """Whether the first `done` of `statements` are those that are in force."""
    recorded = row.statements_done
    if done > len(statements) or (row.statements_digest or "") != statements_digest(statements, recorded):
        return False
    return done == recorded or intent_digest(statements[recorded]) == row.intent_digest


def applied_from(row: HistoryRow) -> str:
    """` as of commit 0123456789ab`, or nothing when the row does not say."""
    return f" as of commit {row.git_revision[:12]}" if row.git_revision else ""


def _reached(row: HistoryRow, objects: Mapping[str, str] | None, engine: str) -> Reached | Problem:
    """How far the attempt `row` came, once its last statement is settled; or why that cannot be told."""
    done = row.statements_done
    if row.transactional or row.intent_digest is None:
        # the statement after those that are done is committed together with its record, or was never sent
        return Reached(done)
    if objects is None:
        # no plan runs before the lock is ours, and then it is made again
        return Reached(done)
    kind, before = _kind(row), row.intent_before or ABSENT
    _, _, name = (row.intent_object or "").partition(" ")
    state = objects.get(row.intent_object or "", "")
    now = state_word(state)
    if kind == "index" and now == INVALID and before == ABSENT:
        return Reached(done, leftover=name)
    if now == BUILDING:
        what = f"the index {name}" if kind == "index" else f"an index of {_table(row)}"
        why = f"{what} is being built at this moment"
        return _doubt(row, _unknown(row, why), f"wait until that has ended: {_ITSELF}")
    if kind == UNNAMED and now == INVALID:
        return _doubt(row, _unknown(row, _are_left(indexes_in(state))), f"{_drop(state)}: {_ITSELF}")
    if kind in (REPEATABLE, REINDEX):
        return Reached(done)
    # a change of CockroachDB's schema is a job, which goes on when the statement was told to have failed
    if row.status is RowStatus.FAILED and kind != OPAQUE and engine != COCKROACHDB:
        return Reached(done)
    if kind == UNNAMED and now == VALID:
        found = ", ".join(map(str, indexes_in(state)))
        why = f"{found} has come up since, and nothing tells whether it is ours"
        return _doubt(row, _unknown(row, why), _by_hand(row))
    if kind == OPAQUE or not now:
        return _doubt(row, _unknown(row, "nothing in the database tells"), f"find out; then {_by_hand(row)}")
    if now == PENDING:
        why = f"the partition {name} is half detached"
        return _doubt(
            row,
            _unknown(row, why),
            f"run ALTER TABLE ... DETACH PARTITION {name} FINALIZE; then {_by_hand(row)}",
        )
    if kind.removeprefix("no-") == "function" and now == before == VALID:
        why = f"{name} is there as it was before, and nothing tells whether that is one of its overloads"
        return _doubt(row, _unknown(row, why), f"find out; then {_by_hand(row)}")
    gone = kind.startswith("no-") or kind in ("partition", "prepared")
    took_effect = (now == ABSENT) != (before == ABSENT) and (now == ABSENT) == gone
    return Reached(done + 1 if took_effect else done)


def untouched(
    row: HistoryRow, target: int, objects: Mapping[str, str] | None, *, engine: str = POSTGRESQL
) -> bool:
    """Whether `row` is that of a down which changed nothing before it was cut off, and which nobody asks for any more.

    Args:
        row: one that is not `success`.
        target: the declared version.
        objects: the state of what `objects_needed` names; None while somebody is at work on the database.
        engine: the server.
    """
    if row.direction is Direction.UP or row.version > target or row.transactional or objects is None:
        return False
    if not row.statements_total or row.statements_done or _may_be_in_force(row, engine):
        return False
    if row.intent_digest is None or _kind(row) in (REPEATABLE, REINDEX):
        # the first statement was committed together with its record, or changes nothing that would have to be undone
        return True
    return _kind(row) != OPAQUE and state_word(objects.get(row.intent_object or "", "")) == row.intent_before


def _may_be_in_force(row: HistoryRow, engine: str) -> bool:
    """Whether a statement that changed the schema, and may do so again, may have done so already: SET DEFAULT, GRANT.

    PostgreSQL has such statements in a transaction, with their record; what is repeatable there changes nothing.
    """
    return engine == COCKROACHDB and row.intent_digest is not None and _kind(row) == REPEATABLE


def left_behind(
    row: HistoryRow, migration: Migration | None, target: int, objects: Mapping[str, str] | None
) -> Problem | None:
    """What to tell of invalid indexes that the attempt `row` left and no plan to `target` sees to; None for nothing.

    Args:
        row: one that is not `success`.
        migration: its file, None when there is none (any more).
        target: the declared version.
        objects: the state of what `objects_needed` names; None while somebody is at work on the database.
    """
    kind, state = _kind(row), (objects or {}).get(row.intent_object or "", "")
    up = row.direction is Direction.UP
    goes_on = migration is not None and row.version <= target if up else row.version > target
    ours = kind == REINDEX or (kind == "index" and (row.intent_before or ABSENT) == ABSENT)
    left = indexes_in(state)
    if state_word(state) != INVALID or not ours or not left or (goes_on and kind == "index"):
        return None
    return Problem(
        reason=Reason.STATEMENT_FAILED,
        message=f"{_stopped(row, row.statements_done)}, and {_are_left(left)}: of no use, and kept up to date by every write",
        remedy=_drop(state),
        version=row.version,
        direction=row.direction,
    )


def _are_left(left: Sequence[IndexOn]) -> str:
    names = ", ".join(map(str, left))
    return f"the invalid index {names} is left" if len(left) == 1 else f"the invalid indexes {names} are left"


def _drop(state: str) -> str:
    return f"run `{'; '.join(each.drop for each in indexes_in(state))}`"


def _table(row: HistoryRow) -> str:
    """The table of an index without a name."""
    return (row.intent_object or "").partition(" ")[2].rpartition(" ")[0]


def _kind(row: HistoryRow) -> str:
    return (row.intent_object or OPAQUE).partition(" ")[0]


def _doubt(row: HistoryRow, message: str, remedy: str) -> Problem:
    return Problem(
        reason=Reason.OUTCOME_UNKNOWN,
        message=message,
        remedy=remedy,
        version=row.version,
        direction=row.direction,
    )


def _unknown(row: HistoryRow, why: str) -> str:
    return (
        f"{_stopped(row, row.statements_done)}, "
        f"and whether statement {row.statements_done + 1} took effect is not known: {why}"
    )


def _stopped(row: HistoryRow, done: int) -> str:
    ended = "failed" if row.status is RowStatus.FAILED else "was interrupted"
    return f"the {row.direction} of {label(row.version, row.name)} {ended} after {_progress(row, done)}"


def _progress(row: HistoryRow, done: int) -> str:
    """`1 of 3 statements`."""
    return f"{done} of {counted(row.statements_total, 'statement')}"


def _by_hand(row: HistoryRow) -> str:
    """How a person says what became of `row`."""
    applied = f"`reconciler repair --mark-applied {row.version} --reason ...`"
    gone = f"`reconciler repair --mark-rolled-back {row.version} --reason ...`"
    if row.direction is Direction.UP:
        return f"finish it by hand and run {applied}, or undo by hand what was done and run {gone}"
    return f"finish it by hand and run {gone}, or undo by hand what was done and run {applied}"
