"""Repairs: what a person's word changes in one database, decided without touching it, and then made under the lock.

`decide` is pure. What it says is shown to a person before anything is written; under the lock it is asked again, and when the
answer is another one nothing is done: nobody's yes counts for what they have not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from reconciler.model import (
    Actor,
    Database,
    Direction,
    HistoryRow,
    LockHolder,
    Migration,
    Observation,
    Problem,
    ProblemError,
    Reason,
    Repair,
    RepairKind,
    RowAction,
    RowChange,
    RowStatus,
)
from reconciler.model.value import value
from reconciler.operations.declaration import Declaration
from reconciler.operations.foreseen import after_marking
from reconciler.planner import claimed_by_other, describe_script, foreign_history, is_another_migration
from reconciler.planner.wording import listed


@value(kw_only=True)
class RepairRequest:
    """What a person asks for.

    Args:
        kind: what is to be done.
        version: of the migration; up to which one, for a baseline; 0 where no migration is meant.
        declared_by: path of the manifest that declares the target; empty without one.
    """

    kind: RepairKind
    version: int = 0
    declared_by: str = ""


def decide(request: RepairRequest, observation: Observation, declaration: Declaration) -> Repair:
    """What the repair changes in a database that was read as `observation`.

    Raises:
        ProblemError: why it cannot be done.
    """
    if observation.foreign_history is not None:
        raise ProblemError(foreign_history(observation.foreign_history))
    if request.kind is RepairKind.CLAIM:
        return _claim(observation, declaration)
    if observation.claim is not None and observation.claim != declaration.claim:
        raise ProblemError(claimed_by_other(observation.claim, declaration.claim))
    if request.kind is RepairKind.BASELINE:
        return _baseline(request, observation, declaration)
    row = next((each for each in observation.rows if each.version == request.version), None)
    if request.kind is RepairKind.ACCEPT_CHECKSUM:
        return _accept(request, row, declaration)
    if request.kind is RepairKind.MARK_APPLIED:
        return _mark_applied(request, row, observation, declaration)
    return _mark_rolled_back(request, row, declaration)


async def plan_repair(database: Database, request: RepairRequest, declaration: Declaration) -> Repair:
    """Look at the database and decide. Writes nothing.

    Raises:
        ProblemError: it cannot be done, or the database cannot be read.
    """
    observation = await database.observe()
    # a baseline takes every file apart
    return await asyncio.to_thread(decide, request, observation, declaration)


async def repair(
    database: Database,
    request: RepairRequest,
    declaration: Declaration,
    shown: Repair,
    actor: Actor,
    reason: str,
    *,
    acquire_timeout: float,
    on_waiting: Callable[[LockHolder], None] | None = None,
) -> None:
    """Make a repair that was shown to a person.

    Args:
        database: the database.
        request: what is asked for.
        declaration: what git declares.
        shown: what the person has said yes to.
        actor: who asks, for lock and journal.
        reason: the person's, for the journal.
        acquire_timeout: seconds to wait for the lock; 0 tries once.
        on_waiting: called once when somebody else holds the lock.

    Raises:
        ProblemError: nothing was changed: `RepairRefused` when it would not be what was shown any more.
    """
    async with database.repairer(
        actor,
        acquire_timeout=acquire_timeout,
        on_waiting=on_waiting,
        taking_over=request.kind is RepairKind.CLAIM,
    ) as repairer:
        observation = await repairer.observe()
        try:
            now = await asyncio.to_thread(decide, request, observation, declaration)
        except ProblemError as error:
            raise ProblemError(_changed(error.problem.message)) from None
        if replace(now, notes=()) != replace(shown, notes=()):
            raise ProblemError(_changed(now.settled or "its history is not what it was"))
        await repairer.repair(now, reason)


def _claim(observation: Observation, declaration: Declaration) -> Repair:
    mine, theirs = declaration.claim, observation.claim
    if mine is None:
        raise _refused(
            "a database is handed over to an environment of a repository, and only a DSN was given",
            "run it in the repository, naming the environment by --environment",
        )
    if theirs is None:
        return Repair(
            kind=RepairKind.CLAIM,
            settled="it belongs to nobody; the first command that writes claims it",
        )
    if theirs == mine:
        return Repair(kind=RepairKind.CLAIM, settled=f"it belongs to {mine} already")
    return Repair(
        kind=RepairKind.CLAIM,
        claim_before=theirs,
        claim_after=mine,
        notes=(
            f"take it out of the manifest of {theirs} first: a daemon that runs there is refused from now on, and what it "
            "declares is not followed any more",
        ),
    )


def _baseline(request: RepairRequest, observation: Observation, declaration: Declaration) -> Repair:
    catalog, version = declaration.catalog, request.version
    for problem in catalog.problems:
        if problem.version is None or problem.version <= version:
            raise ProblemError(problem)
    if version not in catalog:
        raise ProblemError(_unknown(version, declaration))
    _refuse_undone(request, declaration)
    wanted = catalog.migrations[: catalog.ordinal(version)]
    rows = {row.version: row for row in observation.rows}
    doubtful = [row for row in observation.rows if _in_doubt(row)]
    if doubtful:
        raise _refused(
            f"its history has rows that nobody can tell the truth of: {_named(doubtful)}",
            "settle each by `reconciler repair --mark-applied VERSION` or `--mark-rolled-back VERSION` first",
        )
    applied = [row for row in observation.rows if row.status is RowStatus.SUCCESS]
    if [row.version for row in applied] != list(catalog.versions[: len(applied)]):
        raise _refused(
            f"its history already says what is applied, and that is not where the files begin: {_named(applied)}",
            "a baseline is for databases without a history, or with the beginning of one; mark single migrations by "
            "`reconciler repair --mark-applied VERSION`",
        )
    changes = tuple(
        _write(migration, rows.get(migration.version), observation.engine)
        for migration in wanted
        if migration.version not in rows or rows[migration.version].status is not RowStatus.SUCCESS
    )
    if not changes:
        return Repair(
            kind=RepairKind.BASELINE, settled=f"its history has every migration up to {version} already"
        )
    notes = ["no script runs: the schema has to be there already, as these migrations would have made it"]
    if request.declared_by and declaration.target > version:
        notes.append(
            f"{request.declared_by} declares version {declaration.target}: a running daemon then applies what comes "
            f"after {version}"
        )
    return Repair(kind=RepairKind.BASELINE, changes=changes, notes=tuple(notes))


def _accept(request: RepairRequest, row: HistoryRow | None, declaration: Declaration) -> Repair:
    version = request.version
    migration = declaration.catalog.get(version)
    if row is None:
        if migration is None:
            raise ProblemError(_unreadable(version, declaration))
        raise _refused(
            f"migration {version} ({migration.name}) is not applied: there is no digest to accept another one for",
            "its file can be changed as it is",
        )
    if row.status is not RowStatus.SUCCESS:
        raise _refused(
            f"migration {version} ({row.name}) is not known to be applied: its row says {_state(row)}",
            f"settle it by `reconciler repair --mark-applied {version}`, which takes the digests of the file as well, or "
            f"by `--mark-rolled-back {version}`",
        )
    if migration is None:
        raise ProblemError(_unreadable(version, declaration))
    if is_another_migration(row, migration):
        raise _refused(
            f"migration {version} ({row.name}) is applied, and {migration.path} is another migration: its name and its SQL "
            "differ; accepted for it, it would never run, and its DOWN section would replace the stored one",
            f"restore the file of migration {version} ({row.name}) and give {migration.file_name} a number of its own; a file "
            "that was both renamed and rewritten on purpose is accepted once it has its old name again",
        )
    change = RowChange(
        version=version,
        name=migration.name,
        action=RowAction.ACCEPT,
        before=row,
        migration=migration,
        token_checksum=describe_script(migration).token_checksum,
    )
    if (row.name, row.checksum, row.token_checksum, row.down_checksum) == (
        migration.name,
        migration.checksum,
        change.token_checksum,
        migration.down_checksum,
    ):
        return Repair(
            kind=RepairKind.ACCEPT_CHECKSUM,
            settled=f"the file of migration {version} is the one that was applied",
        )
    notes = ["no script runs: the database has to be already as the file says"]
    if row.has_down and migration.down is None:
        notes.append(
            "the file has no DOWN section: the stored one goes, and the migration cannot be taken back any more"
        )
    elif row.has_down and row.down_checksum != migration.down_checksum:
        notes.append("the stored down script is replaced by the file's")
    return Repair(kind=RepairKind.ACCEPT_CHECKSUM, changes=(change,), notes=tuple(notes))


def _mark_applied(
    request: RepairRequest, row: HistoryRow | None, observation: Observation, declaration: Declaration
) -> Repair:
    version = request.version
    migration = declaration.catalog.get(version)
    if row is not None and row.status is RowStatus.SUCCESS:
        return Repair(
            kind=RepairKind.MARK_APPLIED, settled=f"migration {version} ({row.name}) is applied already"
        )
    notes = ["no script runs: what the migration's UP does has to be in force already, all of it"]
    if row is None or (row.direction is Direction.UP and migration is not None):
        if migration is None:
            raise ProblemError(_unreadable(version, declaration))
        if row is None:
            _refuse_undone(request, declaration)
        elif row.checksum != migration.checksum:
            notes.append(
                "its file has changed since the attempt: the digests and the DOWN section of the file as it is now are kept"
            )
        change = _write(migration, row, observation.engine)
        missing = [
            each
            for each in declaration.catalog.versions[: declaration.catalog.ordinal(version - 1)]
            if each not in {found.version for found in observation.rows if found.counts_as_applied}
        ]
        if missing:
            notes.append(
                f"older migrations are not applied: {listed(missing)}; going up is then refused as OutOfOrder, unless "
                "policy.out_of_order allows it or they are marked as well"
            )
    else:
        # an interrupted down leaves all that was recorded when the migration was applied; so does a file that is gone
        change = RowChange(version=version, name=row.name, action=RowAction.SETTLE, before=row)
    stored = row is not None and change.action is RowAction.SETTLE and row.has_down
    has_down = stored or (migration is not None and migration.down is not None)
    notes += after_marking(version, migration, declaration, request.declared_by, has_down=has_down)
    return Repair(kind=RepairKind.MARK_APPLIED, changes=(change,), notes=tuple(notes))


def _mark_rolled_back(request: RepairRequest, row: HistoryRow | None, declaration: Declaration) -> Repair:
    version = request.version
    if row is None:
        known = version in declaration.catalog or declaration.catalog.problem_for(version) is not None
        # with a DSN alone nobody knows the files
        if declaration.catalog.versions and not known:
            raise ProblemError(_unknown(version, declaration))
        return Repair(
            kind=RepairKind.MARK_ROLLED_BACK,
            settled=f"migration {version} is not applied, as far as its history says",
        )
    if row.status is RowStatus.SUCCESS:
        raise _refused(
            f"migration {version} ({row.name}) is applied, and nothing is in doubt about it",
            f"take it back by its down script: set target_version below {version}, or run `reconciler down`",
        )
    notes = ["no script runs: nothing of what the migration's UP does may be in force"]
    if request.declared_by and version <= declaration.target and not declaration.suspended:
        notes.append(
            f"{request.declared_by} declares version {declaration.target}: a running daemon applies it again at once"
        )
    change = RowChange(version=version, name=row.name, action=RowAction.DELETE, before=row)
    return Repair(kind=RepairKind.MARK_ROLLED_BACK, changes=(change,), notes=tuple(notes))


def _write(migration: Migration, before: HistoryRow | None, engine: str) -> RowChange:
    described = describe_script(migration, engine)
    return RowChange(
        version=migration.version,
        name=migration.name[:255],
        action=RowAction.WRITE,
        before=before,
        migration=migration,
        token_checksum=described.token_checksum,
        transactional=described.transactional,
        statements=described.statements,
    )


def _in_doubt(row: HistoryRow) -> bool:
    """Something of an attempt may be in force. A transaction that failed left nothing but its row."""
    if row.status is RowStatus.SUCCESS:
        return False
    untouched = row.transactional or row.statements_done == 0
    return not (row.status is RowStatus.FAILED and row.direction is Direction.UP and untouched)


def _refuse_undone(request: RepairRequest, declaration: Declaration) -> None:
    """Refuse to record what a running daemon would take back at once, by scripts that drop what is there.

    Raises:
        ProblemError: `VersionNotDeclared`.
    """
    if not request.declared_by or declaration.suspended or request.version <= declaration.target:
        return
    raise ProblemError(
        Problem(
            reason=Reason.VERSION_NOT_DECLARED,
            message=(
                f"{request.declared_by} declares version {declaration.target}, below {request.version}: a running daemon "
                "would run the down scripts of what is recorded above it"
            ),
            remedy=(
                f"set target_version: {request.version} in {request.declared_by} first, or suspend the environment there "
                "(suspend: true)"
            ),
        )
    )


def _unknown(version: int, declaration: Declaration) -> Problem:
    versions = declaration.catalog.versions
    if not versions:
        there_are = "there are no migrations at all"
    elif version > versions[-1]:
        there_are = f"the newest is {versions[-1]}"
    else:
        ordinal = declaration.catalog.ordinal(version)
        there_are = "the nearest are " + listed(list(versions[max(ordinal - 1, 0) : ordinal + 1]))
    return Problem(
        reason=Reason.TARGET_UNKNOWN,
        message=f"no migration has the number {version}; {there_are}",
        remedy=f"name one that there is, or commit the file of migration {version}",
        version=version,
    )


def _unreadable(version: int, declaration: Declaration) -> Problem:
    """Why there is no file of `version` to take anything from."""
    return declaration.catalog.problem_for(version) or _unknown(version, declaration)


def _refused(message: str, remedy: str) -> ProblemError:
    return ProblemError(Problem(reason=Reason.REPAIR_REFUSED, message=message, remedy=remedy))


def _changed(found: str) -> Problem:
    return Problem(
        reason=Reason.REPAIR_REFUSED,
        message=f"somebody else has changed the database since this was shown: {found}; nothing was changed",
        remedy="run the command again to see what there is to do now",
    )


def _state(row: HistoryRow) -> str:
    return f"{row.status} ({row.direction})"


def _named(rows: list[HistoryRow]) -> str:
    return listed([f"{row.version} ({row.name}, {row.status} {row.direction})" for row in rows])
