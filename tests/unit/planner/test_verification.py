"""What is applied is compared with the files it came from."""

from __future__ import annotations

from reconciler.model import Direction, Place, Reason
from tests.unit.planner.builders import (
    earlier_tool_row,
    file,
    files,
    planned,
    refusal,
    route,
    row,
    rows,
    stopped,
    warning,
)

APPLIED = file(1, "add_users", up="CREATE TABLE users (id INT);")
REWRITTEN = file(1, "add_users", up="CREATE TABLE users (id BIGINT);")
COMMENTED = file(1, "add_users", up="CREATE TABLE users (id INT); -- people")
OTHER_DOWN = file(1, "add_users", up="CREATE TABLE users (id INT);", down="DROP TABLE users CASCADE;")


def test_changed_sql_is_refused_with_both_digests_and_two_ways_out() -> None:
    problem = refusal(planned([REWRITTEN], [row(APPLIED)], 1))
    assert problem.reason is Reason.CHECKSUM_MISMATCH
    assert problem.message == (
        "the file of migration 1 (add_users) was changed after it was applied: its digest was "
        f"{APPLIED.checksum[:12]} and is {REWRITTEN.checksum[:12]}"
    )
    assert problem.remedy == (
        "restore migrations/00001_add_users.sql as of commit 0123456789ab and put the change into a new migration; "
        "or, when the database already is as the file says, run `reconciler repair --accept-checksum 1 --reason ...`, "
        f"or accept the file in every database by policy.accept_checksums: {{1: [{REWRITTEN.checksum}]}}"
    )
    assert problem.place == Place("migrations/00001_add_users.sql", 1)


def test_changed_sql_stops_everything_else_too() -> None:
    made = planned([REWRITTEN, file(2)], [row(APPLIED)], 2)
    assert route(made) == ["up 2"]
    assert not made.runnable


def test_an_accepted_digest_is_a_warning() -> None:
    made = planned([REWRITTEN], [row(APPLIED)], 1, accept_checksums={1: (REWRITTEN.checksum.upper(),)})
    assert warning(made).message == (
        "the file of migration 1 (add_users) was changed after it was applied; policy.accept_checksums accepts "
        f"the new digest {REWRITTEN.checksum[:12]}"
    )
    assert made.in_sync


def test_a_digest_accepted_for_another_version_counts_for_nothing() -> None:
    made = planned([REWRITTEN], [row(APPLIED)], 1, accept_checksums={2: (REWRITTEN.checksum,)})
    assert refusal(made).reason is Reason.CHECKSUM_MISMATCH


def test_the_digest_that_was_applied_is_not_the_one_to_accept() -> None:
    made = planned([REWRITTEN], [row(APPLIED)], 1, accept_checksums={1: (APPLIED.checksum,)})
    assert refusal(made).reason is Reason.CHECKSUM_MISMATCH


def test_an_edit_of_comments_is_a_warning() -> None:
    told = warning(planned([COMMENTED], [row(APPLIED)], 1))
    assert told.reason is Reason.CHECKSUM_MISMATCH
    assert told.message == (
        "the file of migration 1 (add_users) was changed after it was applied; its UP section is the same SQL; "
        "only comments, blanks or directives differ"
    )


def test_an_edit_of_the_down_section_is_a_warning() -> None:
    assert warning(planned([OTHER_DOWN], [row(APPLIED)], 1)).message.endswith(
        "its UP section is the same SQL; only its DOWN section, comments or blanks differ"
    )


def test_a_file_that_was_only_renamed_is_a_warning() -> None:
    renamed = file(1, "add_people", up="CREATE TABLE users (id INT);")
    told = warning(planned([renamed], [row(APPLIED)], 1))
    assert told.message == (
        "migration 1 (add_users) was applied under this name, and is now in 00001_add_people.sql"
    )


OTHER = file(1, "add_orders", up="CREATE TABLE orders (id INT);")


def test_another_migration_under_the_same_number_is_refused_and_nobody_is_told_to_accept_it() -> None:
    problem = refusal(planned([OTHER], [row(APPLIED)], 1))
    assert problem.reason is Reason.CHECKSUM_MISMATCH
    assert problem.message == (
        "migration 1 (add_users) is applied, and migrations/00001_add_orders.sql, which has this number now, is another "
        "migration: its name and its SQL differ"
    )
    assert problem.remedy == (
        "restore the file of migration 1 (add_users) as of commit 0123456789ab and give 00001_add_orders.sql a number of "
        "its own, or set target_version below 1 first, which brings what is applied down by its stored script"
    )
    assert problem.place == Place("migrations/00001_add_orders.sql", 1)
    bare = refusal(planned([OTHER], [row(APPLIED, has_down=False, git_revision=None)], 1))
    assert bare.remedy == (
        "restore the file of migration 1 (add_users) and give 00001_add_orders.sql a number of its own"
    )


def test_another_migration_is_refused_also_when_the_policy_accepts_its_digest() -> None:
    accepting = planned([OTHER], [row(APPLIED)], 1, accept_checksums={1: (OTHER.checksum,)})
    assert accepting.refusals == planned([OTHER], [row(APPLIED)], 1).refusals
    assert refusal(accepting).reason is Reason.CHECKSUM_MISMATCH


def test_a_file_that_was_rewritten_and_keeps_its_name_is_accepted_whatever_form_the_row_has_it_in() -> None:
    known = row(APPLIED, name="00001_add_users.sql")
    assert planned([REWRITTEN], [known], 1, accept_checksums={1: (REWRITTEN.checksum,)}).in_sync


def test_the_whole_file_name_in_a_row_is_the_same_name() -> None:
    assert not planned([APPLIED], [row(APPLIED, name="00001_add_users.sql")], 1).warnings


def test_a_missing_file_below_the_target_is_refused() -> None:
    problem = refusal(planned(files(1, 3), rows(files(1, 2, 3)), 3))
    assert problem.reason is Reason.MIGRATION_FILE_MISSING
    assert problem.message == "migration 2 (step_2) is applied, but no file has this number any more"
    assert problem.remedy == (
        "restore its file as of commit 0123456789ab, or set target_version below 2 to bring it down by its "
        "stored script"
    )


def test_a_missing_file_without_a_stored_down_can_only_be_restored() -> None:
    problem = refusal(planned(files(2), [row(file(1, down=None)), row(file(2))], 2))
    assert problem.remedy == "restore its file as of commit 0123456789ab"


def test_what_lies_above_the_target_is_not_compared() -> None:
    changed = file(2, up="CREATE TABLE something_else (id INT);", down="DROP TABLE t2;")
    made = planned([file(1), changed], rows(files(1, 2)), 1)
    assert made.runnable


def test_rows_of_the_earlier_tool_are_pinned_and_not_compared() -> None:
    made = planned(files(1, 2), [earlier_tool_row(1), earlier_tool_row(2)], 2)
    assert [(pin.version, pin.migration.path, len(pin.token_checksum)) for pin in made.pins] == [
        (1, "migrations/00001_step_1.sql", 64),
        (2, "migrations/00002_step_2.sql", 64),
    ]
    assert not made.steps
    assert not made.refusals
    assert made.runnable


def test_a_row_of_the_earlier_tool_needs_its_file() -> None:
    problem = refusal(planned(files(2), [earlier_tool_row(1), row(file(2))], 2))
    assert problem.reason is Reason.MIGRATION_FILE_MISSING
    assert problem.remedy == "restore its file"


def test_a_row_of_the_earlier_tool_above_the_target_goes_down_by_its_file() -> None:
    made = planned(files(1, 2), [earlier_tool_row(1), earlier_tool_row(2)], 1)
    assert route(made) == ["down 2"]
    assert [pin.version for pin in made.pins] == [1]


def test_thousands_of_equal_findings_are_counted_and_not_listed() -> None:
    numbers = range(1, 101)
    reformatted = [file(number, header="reformatted") for number in numbers]
    made = planned(reformatted, rows(files(*numbers)), 100)
    assert len(made.warnings) == 20
    assert made.warnings[-1].message.endswith("; and 80 more like this")


def test_a_down_that_changed_nothing_leaves_a_migration_to_be_held_against_its_file() -> None:
    """Its row will say again that it is applied: what stands against that is said before anything runs, and not after."""
    alone = file(2, up="VACUUM t;", down="VACUUM u;")
    cut_off = stopped(alone, 0, direction=Direction.DOWN)
    assert planned([*files(1), alone], [row(file(1)), cut_off], 2).untouched == (2,)
    made = planned(files(1, 3), [row(file(1)), cut_off], 3)
    assert refusal(made).reason is Reason.MIGRATION_FILE_MISSING
