"""What stands against a plan as a whole."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model import Claim, Place, Problem, Reason
from reconciler.planner import plan
from tests.unit.planner.builders import (
    CLAIM,
    database,
    failure,
    file,
    files,
    planned,
    refusal,
    request,
    route,
    row,
    rows,
    warning,
)

THEIRS = Claim("staging", "orders", "git.example.org/shop/schema")


def broken(version: int | None) -> Problem:
    return Problem(
        reason=Reason.MIGRATION_INVALID, message="no UP section", remedy="add one", version=version
    )


def test_a_suspended_environment_has_no_steps() -> None:
    made = planned(files(1), [], 1, suspended=True)
    assert refusal(made).reason is Reason.SUSPENDED
    assert not made.steps


def test_another_tools_history_is_named_and_left_alone() -> None:
    made = planned(files(1), database(foreign_history="a table schema_migrations of golang-migrate"), 1)
    problem = refusal(made)
    assert problem.reason is Reason.FOREIGN_HISTORY
    assert problem.message == (
        "another tool keeps its history where ours belongs: a table schema_migrations of golang-migrate"
    )
    assert not made.steps


def test_a_database_of_another_environment_is_not_touched() -> None:
    made = planned(files(1), database(claim=THEIRS), 1)
    problem = refusal(made)
    assert problem.reason is Reason.CLAIMED_BY_OTHER
    assert problem.message == (
        "the database belongs to staging/orders of git.example.org/shop/schema, "
        "and not to production/orders of git.example.org/shop/schema"
    )
    assert problem.remedy.startswith("was the environment renamed")
    assert "Let only one manifest name this database; " in problem.remedy
    assert (
        "`reconciler repair --claim --environment production --database orders --reason ...`"
        in problem.remedy
    )
    assert not made.steps


def test_a_moved_repository_is_named_as_the_cause() -> None:
    asked = request(files(1), database(claim=replace(CLAIM, repository="/srv/old")), 1)
    assert (
        "was the folder of the repository moved, or its remote `origin` changed?"
        in refusal(plan(asked)).remedy
    )


def test_another_history_on_the_search_path_is_not_remedied_by_a_schema_of_our_own() -> None:
    found = "other.schema_migrations, which the search path also finds beside the configured schema ours"
    problem = refusal(planned(files(1), database(foreign_history=found), 1))
    assert "ALTER ROLE ... SET search_path" in problem.remedy
    assert "schema other" in problem.remedy
    assert "set history_schema" not in problem.remedy


def test_a_command_without_a_claim_does_not_touch_a_claimed_database() -> None:
    problem = refusal(planned(files(1), database(), 1, claim=None))
    assert problem.message == (
        f"the database belongs to {CLAIM}, and this command does not say whom it acts for"
    )


def test_an_unclaimed_database_is_anybodys() -> None:
    assert planned(files(1), database(claim=None), 1).runnable
    assert planned(files(1), database(claim=None), 1, claim=None).runnable


def test_a_broken_file_up_to_the_target_is_refused_as_the_file_says() -> None:
    made = planned(files(1, 3), [row(file(1))], 3, problems=[broken(2)])
    assert refusal(made) == broken(2)


def test_a_broken_file_at_the_target_is_not_an_unknown_target() -> None:
    assert refusal(planned(files(1), [row(file(1))], 2, problems=[broken(2)])) == broken(2)


def test_a_broken_file_of_an_applied_migration_is_not_a_missing_one() -> None:
    made = planned(files(1, 3), rows(files(1, 2, 3)), 3, problems=[broken(2)])
    assert refusal(made) == broken(2)


def test_a_broken_file_that_would_go_down_is_refused() -> None:
    made = planned(files(1), rows(files(1, 2)), 1, problems=[broken(2)])
    assert refusal(made) == broken(2)


def test_a_broken_file_above_the_target_that_is_not_applied_is_a_warning() -> None:
    made = planned(files(1), [], 1, problems=[broken(2)])
    assert warning(made) == broken(2)
    assert made.runnable


def test_a_broken_file_between_target_and_current_version_that_is_not_applied_is_a_warning() -> None:
    made = planned(files(1, 3), rows(files(1, 3)), 1, problems=[broken(2)])
    assert warning(made) == broken(2)


def test_a_file_whose_version_nobody_can_tell_is_refused() -> None:
    assert refusal(planned(files(1), rows(files(1)), 1, problems=[broken(None)])) == broken(None)


def test_a_failure_is_not_tried_again_while_nothing_changes() -> None:
    (step,) = planned(files(1), [], 1).steps
    made = planned(files(1), database(last_failure=failure(step.key)), 1)
    problem = refusal(made)
    assert problem == Problem(
        reason=Reason.STATEMENT_FAILED,
        message='relation "customer" does not exist',
        remedy="correct the name",
        place=Place("migrations/00001_step_1.sql", 5, 13),
        excerpt="ALTER TABLE customer ADD x INT;\n            ^",
        sqlstate="42P01",
        version=1,
        direction="up",
        statement_index=1,
    )
    assert route(made) == ["up 1"]


def test_a_failure_that_gave_no_remedy_and_no_line_gets_a_remedy() -> None:
    (step,) = planned(files(1), [], 1).steps
    stood = failure(step.key, remedy="", line=None, column=None)
    problem = refusal(planned(files(1), database(last_failure=stood), 1))
    assert problem.place is None
    assert problem.remedy == (
        "mend migrations/00001_step_1.sql in git, or ask for another attempt by `reconciler retry`"
    )


def test_a_retry_tries_again() -> None:
    (step,) = planned(files(1), [], 1).steps
    assert planned(files(1), database(last_failure=failure(step.key)), 1, retry=True).runnable


def test_a_changed_script_tries_again() -> None:
    (step,) = planned(files(1), [], 1).steps
    fixed = file(1, up="CREATE TABLE fixed (id INT);")
    assert planned([fixed], database(last_failure=failure(step.key)), 1).runnable


def test_another_way_to_run_tries_again() -> None:
    (step,) = planned(files(1), [], 1).steps
    for directive in ("no-transaction", "statement-timeout 1h", "lock-timeout 1m"):
        fixed = file(1, directives=[directive])
        assert planned([fixed], database(last_failure=failure(step.key)), 1).runnable


def test_a_changed_policy_tries_again() -> None:
    (step,) = planned(files(1), [], 1).steps
    stood = failure(replace(step.key, policy_digest="another"))
    assert planned(files(1), database(last_failure=stood), 1).runnable


def test_an_edit_outside_the_script_does_not_try_again() -> None:
    (step,) = planned(files(1), [], 1).steps
    edited = file(1, header="a better description", down="DROP TABLE IF EXISTS t1;")
    made = planned([edited], database(last_failure=failure(step.key)), 1)
    assert refusal(made).reason is Reason.STATEMENT_FAILED


def test_a_failure_of_something_that_is_not_next_does_not_matter() -> None:
    (step,) = planned(files(1), [], 1).steps
    made = planned(files(1, 2), database(rows(files(1)), last_failure=failure(step.key)), 2)
    assert made.runnable


def test_a_failure_does_not_matter_once_the_target_is_back_where_the_database_is() -> None:
    (step,) = planned(files(1), [], 1).steps
    assert planned(files(1), database(last_failure=failure(step.key)), 0).in_sync
