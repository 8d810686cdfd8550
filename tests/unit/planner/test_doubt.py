"""Attempts outside a transaction that did not end well are finished, or left to a person; never guessed at."""

from __future__ import annotations

import pytest

from reconciler.manifest import ChangedDownPolicy
from reconciler.model import Direction, HistoryRow, Migration, Reason, RowStatus
from reconciler.sqltext import intent_digest, split
from tests.unit.planner.builders import file, files, planned, refusal, route, row, stopped, stored

ALONE = ["no-transaction"]
THREE = "CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);\nCREATE TABLE c (id INT);"
DROPS = "DROP TABLE c;\nDROP TABLE b;\nDROP TABLE a;"
SPLIT = file(2, "split", up=THREE, down=DROPS, directives=ALONE)
FINISH = "finish it by hand and run `reconciler repair --mark-applied 2 --reason ...`, or undo by hand what was done and run `reconciler repair --mark-rolled-back 2 --reason ...`"
FINISH_DOWN = "finish it by hand and run `reconciler repair --mark-rolled-back 2 --reason ...`, or undo by hand what was done and run `reconciler repair --mark-applied 2 --reason ...`"
INDEX = "index public.a_id"


def changed(up: str) -> Migration:
    return file(2, "split", up=up, down=DROPS, directives=ALONE)


def test_a_failed_up_goes_on_where_it_stopped() -> None:
    made = planned([file(1), SPLIT], [row(file(1)), stopped(SPLIT, 2)], 2)
    assert route(made) == ["up 2"]
    assert made.steps[0].first_statement == 2
    assert made.runnable


def test_a_failed_up_goes_on_when_only_the_rest_was_mended() -> None:
    mended = changed(THREE.replace("TABLE c", "TABLE d"))
    assert planned([mended], [stopped(SPLIT, 2)], 2).steps[0].first_statement == 2


def test_a_failed_up_goes_on_when_comments_of_what_was_done_change() -> None:
    commented = changed(THREE.replace("CREATE TABLE a (", "CREATE TABLE a ( -- the first\n"))
    assert planned([commented], [stopped(SPLIT, 1)], 2).steps[0].first_statement == 1


def test_a_failed_up_whose_rest_was_removed_has_only_to_be_recorded() -> None:
    shorter = changed("CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);")
    (step,) = planned([shorter], [stopped(SPLIT, 2)], 2).steps
    assert step.first_statement == len(step.statements) == 2


def test_a_failed_up_that_did_nothing_begins_anew() -> None:
    other = changed("CREATE TABLE z (id INT);")
    (step,) = planned([other], [stopped(SPLIT, 0)], 2).steps
    assert step.first_statement == 0


@pytest.mark.parametrize(
    "up",
    [
        THREE.replace("TABLE a", "TABLE z"),
        "CREATE TABLE a (id INT);",
        "CREATE TABLE b (id INT);\nCREATE TABLE a (id INT);\nCREATE TABLE c (id INT);",
    ],
    ids=["edited", "too few", "swapped"],
)
def test_a_failed_up_is_refused_when_what_was_done_was_changed(up: str) -> None:
    problem = refusal(planned([changed(up)], [stopped(SPLIT, 2)], 2))
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert problem.message == (
        "the up of migration 2 (split) failed after 2 of 3 statements, and those that were already done have "
        "been changed since"
    )
    assert problem.remedy == (
        "restore the first 2 statements in migrations/00002_split.sql as of commit 0123456789ab and change only "
        f"what follows; or {FINISH}"
    )
    assert (problem.version, problem.direction) == (2, "up")


def test_a_failed_up_without_a_digest_of_what_was_done_proves_nothing() -> None:
    attempt = stopped(SPLIT, 1)._replace(statements_digest=None)
    assert refusal(planned([SPLIT], [attempt], 2)).message.endswith(
        "failed after 1 of 3 statements, and the one that was already done has been changed since"
    )


def test_a_failed_up_does_not_go_on_inside_a_transaction() -> None:
    problem = refusal(planned([file(2, "split", up=THREE, down=DROPS)], [stopped(SPLIT, 2)], 2))
    assert problem.message == (
        "the up of migration 2 (split) failed after 2 of 3 statements, outside a transaction, and what would run "
        "now asks for a transaction"
    )
    assert problem.remedy.startswith(
        "restore the first 2 statements in migrations/00002_split.sql as of commit 0123456789ab with "
        "`-- reconciler: no-transaction`, and change only what follows; or "
    )


def test_a_failed_up_that_the_target_leaves_behind_is_refused() -> None:
    problem = refusal(planned([file(1), SPLIT], [row(file(1)), stopped(SPLIT, 2)], 1))
    assert problem.message == (
        "the up of migration 2 (split) failed after 2 of 3 statements, and target_version 1 does not ask for it "
        "any more"
    )
    assert problem.remedy == f"set target_version to 2 or more to finish it; or {FINISH}"


def test_a_failed_up_that_did_nothing_may_be_left_behind() -> None:
    assert planned([file(1), SPLIT], [row(file(1)), stopped(SPLIT, 0)], 1).in_sync


def test_a_failed_up_whose_file_is_gone_is_refused() -> None:
    problem = refusal(planned(files(1, 3), [row(file(1)), stopped(SPLIT, 2), row(file(3))], 3))
    assert problem.message == (
        "the up of migration 2 (split) failed after 2 of 3 statements, and its file is gone"
    )
    assert problem.remedy == f"restore its file as of commit 0123456789ab to finish it; or {FINISH}"


def interrupted(done: int, direction: Direction = Direction.UP) -> HistoryRow:
    return stopped(SPLIT, done, direction=direction, status=RowStatus.RUNNING)


def in_doubt(what: str, before: str, *, done: int = 1, status: RowStatus = RowStatus.RUNNING) -> HistoryRow:
    """An attempt at SPLIT whose next statement was announced."""
    return stopped(SPLIT, done, status=status)._replace(
        intent_digest=intent_digest(split(SPLIT.up)[done]), intent_object=what, intent_before=before
    )


@pytest.mark.parametrize("target", [2, 3])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_an_interrupted_up_goes_on_after_what_is_on_record(done: int, target: int) -> None:
    made = planned([file(1), SPLIT, file(3)], [row(file(1)), interrupted(done)], target)
    assert made.runnable
    assert made.steps[0].first_statement == done


def test_an_interrupted_up_that_the_target_leaves_behind_is_refused() -> None:
    problem = refusal(planned([file(1), SPLIT], [row(file(1)), interrupted(2)], 1))
    assert (
        "was interrupted after 2 of 3 statements, and target_version 1 does not ask for it" in problem.message
    )


def test_an_interrupted_down_goes_on_after_what_is_on_record() -> None:
    made = planned([file(1), SPLIT], [row(file(1)), interrupted(1, Direction.DOWN)], 1)
    assert route(made) == ["down 2"]
    assert made.steps[0].first_statement == 1


@pytest.mark.parametrize(
    ("what", "before", "now", "done"),
    [
        (INDEX, "absent", "valid", 2),
        (INDEX, "absent", "absent", 1),
        # it was there before, so ours has not been run or has failed
        (INDEX, "valid", "valid", 1),
        ("no-index public.a_id", "valid", "absent", 2),
        ("no-index public.a_id", "valid", "valid", 1),
        ("no-index public.a_id", "valid", "invalid", 1),
        ("no-index public.a_id", "absent", "absent", 1),
        ("database shop", "absent", "valid", 2),
        ("no-database shop", "valid", "absent", 2),
        ("partition public.a1", "valid", "absent", 2),
        ("partition public.a1", "valid", "valid", 1),
        ("prepared x", "valid", "absent", 2),
        ("repeatable", "", "", 1),
    ],
)
def test_a_statement_in_doubt_is_settled_by_looking(what: str, before: str, now: str, done: int) -> None:
    made = planned([SPLIT], [in_doubt(what, before)], 2, objects={what: now})
    assert made.runnable, made.refusals
    assert (made.steps[0].first_statement, made.steps[0].leftover) == (done, "")


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
def test_an_invalid_index_that_was_not_there_before_is_ours_to_drop(status: RowStatus) -> None:
    made = planned([SPLIT], [in_doubt(INDEX, "absent", status=status)], 2, objects={INDEX: "invalid"})
    assert (made.steps[0].first_statement, made.steps[0].leftover) == (1, "public.a_id")


def test_an_invalid_index_that_was_there_before_is_not() -> None:
    made = planned([SPLIT], [in_doubt(INDEX, "invalid")], 2, objects={INDEX: "invalid"})
    assert (made.steps[0].first_statement, made.steps[0].leftover) == (1, "")


@pytest.mark.parametrize(
    ("what", "now", "why"),
    [
        ("opaque", "", "nothing in the database tells"),
        (INDEX, "building", "is being built at this moment"),
        ("partition public.a1", "pending", "is half detached"),
    ],
)
def test_what_cannot_be_settled_names_the_statement_and_the_choices(what: str, now: str, why: str) -> None:
    problem = refusal(planned([SPLIT], [in_doubt(what, "absent")], 2, objects={what: now}))
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert (
        "was interrupted after 1 of 3 statements, and whether statement 2 took effect is not known"
        in problem.message
    )
    assert why in problem.message
    assert problem.statement_index == 2
    assert str(problem.place) == "migrations/00002_split.sql:6:1"
    assert problem.excerpt == "CREATE TABLE b (id INT);\n^"


@pytest.mark.parametrize("policy", list(ChangedDownPolicy))
def test_a_statement_of_a_down_in_doubt_is_shown_in_the_script_that_it_was_of(
    policy: ChangedDownPolicy,
) -> None:
    other = file(2, "split", up=THREE, down=f"SELECT 1;\n{DROPS}", directives=ALONE)
    assert SPLIT.down is not None
    attempt = stopped(SPLIT, 1, direction=Direction.DOWN, status=RowStatus.RUNNING)._replace(
        intent_digest=intent_digest(split(SPLIT.down)[1]), intent_object="opaque"
    )
    found = [row(file(1)), attempt]
    downs = {2: stored(SPLIT)}
    for catalog in ([file(1), SPLIT], [file(1), other], [file(1)]):
        problem = refusal(planned(catalog, found, 1, stored_downs=downs, changed_down=policy))
        assert (problem.statement_index, problem.excerpt) == (2, "DROP TABLE b;\n^")
        assert str(problem.place) == "migrations/00002_split.sql:11:1"


@pytest.mark.parametrize(
    "catalog",
    [
        [changed(THREE.replace("TABLE b", "TABLE z"))],
        [changed(THREE.replace("TABLE a", "TABLE z"))],
        [changed("CREATE TABLE a (id INT);")],
        [changed("CREATE TABLE a (id INT); \\connect x")],
    ],
)
def test_a_statement_in_doubt_that_no_script_has_any_more_is_only_counted(catalog: list[Migration]) -> None:
    attempt = in_doubt("opaque", "")
    (problem,) = (each for each in planned(catalog, [attempt], 2).refusals if each.statement_index)
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert (problem.statement_index, problem.place, problem.excerpt) == (2, None, "")


LEFT = 'invalid [["public.a_id", "public.a"]]'


@pytest.mark.parametrize("migrations", [[file(1), SPLIT], [file(1)]], ids=["not wanted", "file gone"])
def test_an_invalid_index_that_no_plan_sees_to_is_told_of(migrations: list[Migration]) -> None:
    made = planned(migrations, [row(file(1)), in_doubt(INDEX, "absent", done=0)], 1, objects={INDEX: LEFT})
    assert made.in_sync
    (warning,) = made.warnings
    assert "the invalid index public.a_id on public.a is left" in warning.message
    assert warning.remedy == "run `DROP INDEX CONCURRENTLY public.a_id`"
    assert warning.version == 2


def test_an_invalid_index_that_is_dropped_or_is_somebody_elses_is_not() -> None:
    assert planned([SPLIT], [in_doubt(INDEX, "absent")], 2, objects={INDEX: LEFT}).warnings == ()
    theirs = in_doubt(INDEX, "invalid", done=0)
    assert planned([file(1), SPLIT], [row(file(1)), theirs], 1, objects={INDEX: LEFT}).warnings == ()


def test_what_an_interrupted_reindex_left_is_told_of_and_it_runs_again() -> None:
    left = 'invalid [["public.a_id_ccnew", "public.a"]]'
    made = planned([SPLIT], [in_doubt("reindex", "")], 2, objects={"reindex": left})
    assert made.runnable
    assert made.steps[0].first_statement == 1
    (warning,) = made.warnings
    assert "public.a_id_ccnew on public.a" in warning.message
    assert planned([SPLIT], [in_doubt("reindex", "")], 2, objects={"reindex": "absent"}).warnings == ()


UNNAMED = "unnamed public.a {16400}"


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
def test_an_index_without_a_name_that_left_nothing_is_built_again(status: RowStatus) -> None:
    made = planned([SPLIT], [in_doubt(UNNAMED, "absent", status=status)], 2, objects={UNNAMED: "absent"})
    assert made.steps[0].first_statement == 1


@pytest.mark.parametrize(
    ("now", "message", "remedy"),
    [
        (
            LEFT,
            "the invalid index public.a_id on public.a is left",
            "run `DROP INDEX CONCURRENTLY public.a_id`",
        ),
        (
            LEFT.replace("invalid", "building"),
            "an index of public.a is being built",
            "wait until that has ended",
        ),
        (LEFT.replace("invalid", "valid"), "public.a_id on public.a has come up since", "--mark-applied 2"),
    ],
)
def test_an_index_without_a_name_that_is_there_is_for_a_person(now: str, message: str, remedy: str) -> None:
    problem = refusal(planned([SPLIT], [in_doubt(UNNAMED, "absent")], 2, objects={UNNAMED: now}))
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert message in problem.message
    assert remedy in problem.remedy


def test_nobody_is_told_to_do_what_happens_by_itself() -> None:
    problem = refusal(planned([SPLIT], [in_doubt(INDEX, "absent")], 2, objects={INDEX: "building"}))
    assert problem.remedy == (
        "wait until that has ended: it is looked at again by itself, and the migration goes on from there"
    )


def test_while_somebody_is_at_work_nothing_is_settled() -> None:
    made = planned([SPLIT], [in_doubt("opaque", "")], 2, objects=None)
    assert made.runnable


def test_a_statement_that_took_effect_and_was_changed_since_is_refused() -> None:
    other = changed(THREE.replace("TABLE b", "TABLE z"))
    problem = refusal(planned([other], [in_doubt(INDEX, "absent")], 2, objects={INDEX: "valid"}))
    assert "was interrupted after 2 of 3 statements" in problem.message
    assert "have been changed since" in problem.message
    # and one that did not may be
    assert planned([other], [in_doubt(INDEX, "absent")], 2, objects={INDEX: "absent"}).runnable


def test_an_interrupted_attempt_of_the_earlier_tool_says_how_little_is_known() -> None:
    attempt = row(SPLIT, status=RowStatus.RUNNING, token_checksum=None)
    assert refusal(planned([SPLIT], [attempt], 2)).message == (
        "the up of migration 2 (split) was interrupted, and nobody recorded how far it came"
    )


def test_a_failed_down_goes_on_where_it_stopped() -> None:
    made = planned([file(1), SPLIT], [row(file(1)), stopped(SPLIT, 1, direction=Direction.DOWN)], 1)
    assert route(made) == ["down 2"]
    assert made.steps[0].first_statement == 1
    assert made.runnable


def test_a_failed_down_goes_on_by_the_stored_script() -> None:
    made = planned(
        files(1),
        [row(file(1)), stopped(SPLIT, 1, direction=Direction.DOWN)],
        1,
        stored_downs={2: stored(SPLIT)},
    )
    assert made.steps[0].first_statement == 1


def test_a_failed_down_does_not_go_on_by_another_script() -> None:
    other = file(2, "split", up=THREE, down="DROP TABLE a, b, c;", directives=ALONE)
    made = planned(
        [other],
        [stopped(SPLIT, 1, direction=Direction.DOWN)],
        0,
        stored_downs={2: stored(SPLIT)},
        changed_down=ChangedDownPolicy.CHECKOUT,
    )
    problem = refusal(made)
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert problem.direction == "down"


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
def test_a_down_that_did_nothing_is_forgotten_when_the_migration_is_wanted_again(status: RowStatus) -> None:
    attempt = stopped(SPLIT, 0, direction=Direction.DOWN, status=status)
    made = planned([file(1), SPLIT, file(3)], [row(file(1)), attempt], 3)
    assert made.untouched == (2,)
    assert route(made) == ["up 3"]
    assert planned([file(1), SPLIT], [row(file(1)), attempt], 2).runnable
    # and it runs when it is still asked for
    assert route(planned([file(1), SPLIT], [row(file(1)), attempt], 1)) == ["down 2"]


@pytest.mark.parametrize(
    ("what", "before", "now", "forgotten"),
    [
        ("no-index public.a_id", "valid", 'valid [["public.a_id", "public.a"]]', True),
        ("no-index public.a_id", "valid", 'invalid [["public.a_id", "public.a"]]', False),
        ("no-index public.a_id", "valid", "absent", False),
        ("repeatable", "", "", True),
        ("opaque", "", "", False),
    ],
)
def test_a_down_in_doubt_is_forgotten_only_when_looking_tells_that_nothing_happened(
    what: str, before: str, now: str, forgotten: bool
) -> None:
    attempt = in_doubt(what, before, done=0)._replace(direction=Direction.DOWN)
    made = planned([SPLIT], [attempt], 2, objects={what: now})
    assert made.untouched == ((2,) if forgotten else ())
    assert bool(made.refusals) is not forgotten


def test_nothing_is_forgotten_while_somebody_is_at_work() -> None:
    attempt = stopped(SPLIT, 0, direction=Direction.DOWN)
    assert planned([SPLIT], [attempt], 2, objects=None).untouched == ()


@pytest.mark.parametrize("target", [2, 3])
def test_a_failed_down_of_what_is_wanted_again_is_refused(target: int) -> None:
    attempt = stopped(SPLIT, 1, direction=Direction.DOWN)
    made = planned([file(1), SPLIT, file(3)], [row(file(1)), attempt], target)
    problem = refusal(made)
    assert problem.message == (
        f"the down of migration 2 (split) failed after 1 of 3 statements, and target_version {target} asks "
        "for the migration to be there"
    )
    assert problem.remedy == f"set target_version below 2 to finish the down; or {FINISH_DOWN}"


def test_the_statements_of_an_up_say_nothing_of_the_down() -> None:
    applied = row(SPLIT, transactional=False, statements_done=3, statements_total=3, statements_digest="x")
    (step,) = planned([SPLIT], [applied], 0).steps
    assert step.first_statement == 0
