"""What a repair changes, decided without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from reconciler.catalog import Catalog
from reconciler.manifest import Policy, Timeouts
from reconciler.model import (
    Direction,
    HistoryRow,
    Problem,
    ProblemError,
    Reason,
    Repair,
    RepairKind,
    RowAction,
    RowStatus,
)
from reconciler.operations import Declaration
from reconciler.operations.repair import RepairRequest, decide
from tests.unit.planner.builders import CLAIM, database, file, files, row, rows, stopped

THREE = files(1, 2, 3)
INDEX = file(
    2, up="SELECT 1;\nSELECT 2;\nSELECT 3;", down="SELECT 1;\nSELECT 2;", directives=["no-transaction"]
)


def asked(
    kind: RepairKind,
    version: int,
    found: Sequence[HistoryRow],
    *,
    catalog: Catalog | None = None,
    target: int = 3,
    suspended: bool = False,
    manifest: str = "manifests/production.yaml",
) -> Repair:
    """What is decided about a database with these rows."""
    declaration = Declaration(
        target=target,
        catalog=catalog if catalog is not None else Catalog(THREE),
        policy=Policy(),
        timeouts=Timeouts(),
        policy_digest="",
        claim=CLAIM,
        suspended=suspended,
    )
    return decide(
        RepairRequest(kind=kind, version=version, declared_by=manifest), database(found), declaration
    )


def refused(kind: RepairKind, version: int, found: Sequence[HistoryRow], **more: object) -> Problem:
    """Why it cannot be done."""
    with pytest.raises(ProblemError) as caught:
        asked(kind, version, found, **more)  # type: ignore[arg-type]  # names are checked by the call
    return caught.value.problem


def test_a_baseline_writes_what_is_missing_as_an_applied_row_would_be() -> None:
    made = asked(RepairKind.BASELINE, 2, [])
    assert [(change.version, change.action, change.before) for change in made.changes] == [
        (1, RowAction.WRITE, None),
        (2, RowAction.WRITE, None),
    ]
    assert made.changes[0].token_checksum == row(THREE[0]).token_checksum
    assert made.changes[0].statements == 1
    assert [change.version for change in asked(RepairKind.BASELINE, 3, rows(THREE[:2])).changes] == [3]
    assert asked(RepairKind.BASELINE, 2, rows(THREE)).settled


def test_a_migration_that_failed_whole_does_not_stand_against_a_baseline() -> None:
    failed = row(THREE[0], status=RowStatus.FAILED)
    (change,) = asked(RepairKind.BASELINE, 1, [failed]).changes
    assert change.before == failed


def test_a_baseline_names_rows_that_do_not_fit() -> None:
    problem = refused(RepairKind.BASELINE, 3, [row(THREE[1])])
    assert problem.reason is Reason.REPAIR_REFUSED
    assert "2 (step_2, success up)" in problem.message
    doubtful = stopped(INDEX, 1, status=RowStatus.RUNNING)
    assert "2 (step_2, running up)" in refused(RepairKind.BASELINE, 3, [row(THREE[0]), doubtful]).message
    foreign = row(file(9))
    assert "9 (step_9" in refused(RepairKind.BASELINE, 3, [*rows(THREE), foreign]).message


def test_a_baseline_above_the_declared_version_would_be_taken_back() -> None:
    assert refused(RepairKind.BASELINE, 3, [], target=2).reason is Reason.VERSION_NOT_DECLARED
    assert asked(RepairKind.BASELINE, 3, [], target=2, suspended=True).changes
    assert asked(RepairKind.BASELINE, 3, [], target=2, manifest="").changes


def test_versions_without_a_file_are_named_with_those_that_are_near() -> None:
    gaps = Catalog([file(10), file(20)])
    assert "the nearest are 10 and 20" in refused(RepairKind.BASELINE, 15, [], catalog=gaps).message
    assert "the newest is 20" in refused(RepairKind.MARK_APPLIED, 30, [], catalog=gaps).message
    assert "no migrations at all" in refused(RepairKind.BASELINE, 1, [], catalog=Catalog()).message


def test_a_broken_file_is_the_reason_why_its_migration_cannot_be_marked() -> None:
    broken = Problem(reason=Reason.MIGRATION_INVALID, message="no UP section", version=2)
    catalog = Catalog([THREE[0], THREE[2]], [broken])
    assert refused(RepairKind.MARK_APPLIED, 2, [], catalog=catalog) == broken
    assert refused(RepairKind.BASELINE, 3, [], catalog=catalog) == broken
    assert asked(RepairKind.BASELINE, 1, [], catalog=catalog).changes


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
def test_marking_an_interrupted_up(status: RowStatus) -> None:
    catalog = Catalog([THREE[0], INDEX, THREE[2]])
    found = [row(THREE[0]), stopped(INDEX, 1, status=status)]
    (change,) = asked(RepairKind.MARK_APPLIED, 2, found, catalog=catalog).changes
    assert (change.action, change.transactional, change.statements) == (RowAction.WRITE, False, 3)
    (change,) = asked(RepairKind.MARK_ROLLED_BACK, 2, found, catalog=catalog).changes
    assert change.action is RowAction.DELETE


def test_marking_an_interrupted_down_keeps_what_was_recorded_when_it_was_applied() -> None:
    found = [row(THREE[0]), stopped(INDEX, 1, direction=Direction.DOWN, status=RowStatus.RUNNING)]
    (change,) = asked(RepairKind.MARK_APPLIED, 2, found, target=1).changes
    assert (change.action, change.migration) == (RowAction.SETTLE, None)
    (change,) = asked(RepairKind.MARK_ROLLED_BACK, 2, found, target=1).changes
    assert change.action is RowAction.DELETE


def test_what_follows_is_said_beforehand() -> None:
    found = [stopped(INDEX, 1)]
    assert any("applies it again" in note for note in asked(RepairKind.MARK_ROLLED_BACK, 2, found).notes)
    assert any("takes it back" in note for note in asked(RepairKind.MARK_APPLIED, 2, found, target=1).notes)
    notes = asked(RepairKind.MARK_APPLIED, 3, [row(THREE[0])]).notes
    assert any("older migrations are not applied: 2;" in note for note in notes)


def test_what_a_row_without_a_file_or_a_down_comes_to_is_said_without_contradiction() -> None:
    gone = Catalog([THREE[0], THREE[2]])
    found = [row(THREE[0]), stopped(INDEX, 1)._replace(has_down=False)]

    def notes(target: int, catalog: Catalog = gone, suspended: bool = False) -> list[str]:
        first, *others = asked(
            RepairKind.MARK_APPLIED, 2, found, catalog=catalog, target=target, suspended=suspended
        ).notes
        assert first.startswith("no script runs")
        return others

    assert notes(1) == [
        "no down script is stored, and its file is gone: manifests/production.yaml declares version 1, and every plan is refused "
        "as Irreversible from now on, until target_version is 2 or above, or the file is back with a DOWN section"
    ]
    assert notes(3) == [
        "its file is gone: every plan is refused until it is back, and no down script is stored: the "
        "migration cannot be taken back"
    ]
    assert notes(1, suspended=True) == [
        "its file is gone, and no down script is stored: the migration cannot be taken back"
    ]
    # a file without a DOWN section comes to the same
    bare = Catalog([THREE[0], file(2, down=None)])
    (_, above) = notes(1, catalog=bare)
    assert above.startswith(
        "its file has no DOWN section: manifests/production.yaml declares version 1, and every plan is refused"
    )
    found = [row(THREE[0]), stopped(INDEX, 1)._replace(has_down=True)]
    assert notes(1) == [
        "manifests/production.yaml declares version 1: a running daemon takes it back at once"
    ]
    assert notes(3) == ["its file is gone: every plan is refused until it is back"]


def test_a_file_that_was_rewritten_is_accepted_with_its_down() -> None:
    old = row(file(2, up="CREATE TABLE other (id INT);"))
    (change,) = asked(RepairKind.ACCEPT_CHECKSUM, 2, [row(THREE[0]), old]).changes
    assert (change.action, change.migration) == (RowAction.ACCEPT, THREE[1])
    bare = Catalog([THREE[0], file(2, down=None)])
    made = asked(RepairKind.ACCEPT_CHECKSUM, 2, [row(THREE[0]), row(THREE[1])], catalog=bare)
    assert any("cannot be taken back any more" in note for note in made.notes)
    assert asked(RepairKind.ACCEPT_CHECKSUM, 1, rows(THREE)).settled
    assert "not applied" in refused(RepairKind.ACCEPT_CHECKSUM, 2, []).message
    assert (
        "running"
        in refused(RepairKind.ACCEPT_CHECKSUM, 2, [stopped(INDEX, 1, status=RowStatus.RUNNING)]).message
    )


def test_another_migration_of_the_same_number_is_not_accepted_for_the_one_that_was_applied() -> None:
    applied = row(file(2, "add_users", up="CREATE TABLE users (id INT);"))
    problem = refused(RepairKind.ACCEPT_CHECKSUM, 2, [row(THREE[0]), applied])
    assert problem.reason is Reason.REPAIR_REFUSED
    assert "migrations/00002_step_2.sql is another migration" in problem.message
    assert "add_users" in problem.message
    assert "its own" in problem.remedy
    # one that was only renamed, or whose SQL nobody kept, is
    renamed = row(THREE[1], name="add_users", checksum="0" * 64)
    assert asked(RepairKind.ACCEPT_CHECKSUM, 2, [row(THREE[0]), renamed]).changes
    unknown = applied._replace(token_checksum=None)
    assert asked(RepairKind.ACCEPT_CHECKSUM, 2, [row(THREE[0]), unknown]).changes


def test_a_claim_of_others_stands_in_the_way_of_all_but_a_claim() -> None:
    theirs = replace(CLAIM, environment="staging")
    declaration = Declaration(
        target=3, catalog=Catalog(THREE), policy=Policy(), timeouts=Timeouts(), policy_digest="", claim=CLAIM
    )
    claim = RepairRequest(kind=RepairKind.CLAIM)
    made = decide(claim, database(claim=theirs), declaration)
    assert (made.claim_before, made.claim_after, made.changes) == (theirs, CLAIM, ())
    assert decide(claim, database(claim=CLAIM), declaration).settled
    assert decide(claim, database(claim=None), declaration).settled
    for request, mine in ((RepairRequest(kind=RepairKind.MARK_APPLIED, version=1), CLAIM), (claim, None)):
        with pytest.raises(ProblemError):
            decide(request, database(claim=theirs), replace(declaration, claim=mine))
