"""What is missing goes up, oldest first."""

from __future__ import annotations

import pytest

from reconciler.manifest import DestructivePolicy, OutOfOrderPolicy, Timeouts
from reconciler.model import Place, Reason, RowStatus, ScriptSource
from tests.unit.planner.builders import file, files, planned, refusal, route, row, rows


def test_an_empty_database_gets_everything_up_to_the_target() -> None:
    made = planned(files(1, 2, 3, 4), [], 3)
    assert route(made) == ["up 1", "up 2", "up 3"]
    assert (made.current, made.target, made.runnable, made.in_sync) == (0, 3, True, False)


def test_a_database_at_its_target_has_nothing_to_do() -> None:
    made = planned(files(1, 2, 3), rows(files(1, 2)), 2)
    assert made.in_sync
    assert not made.runnable
    assert not made.warnings


def test_nothing_declared_and_nothing_applied_is_in_sync() -> None:
    assert planned([], [], 0).in_sync


def test_gaps_in_the_numbers_mean_nothing() -> None:
    assert route(planned(files(3, 20250115093000, 9), rows(files(3)), 20250115093000)) == [
        "up 9",
        "up 20250115093000",
    ]


def test_an_up_step_carries_all_that_running_and_recording_it_takes() -> None:
    migration = file(1, "add_customers", up="CREATE TABLE a (id INT);\nCREATE INDEX ON a (id);")
    (step,) = planned([migration], [], 1, policy_digest="p1").steps
    assert (step.version, step.name, step.migration) == (1, "add_customers", migration)
    assert (step.script, step.source) == (migration.up, ScriptSource.CHECKOUT)
    assert [statement.text for statement in step.statements] == [
        "CREATE TABLE a (id INT)",
        "CREATE INDEX ON a (id)",
    ]
    assert step.transactional
    assert step.first_statement == 0
    assert len(step.token_checksum) == 64
    assert (step.key.version, step.key.direction, step.key.policy_digest) == (1, "up", "p1")


def test_timeouts_come_from_the_manifest() -> None:
    (step,) = planned([file(1)], [], 1, timeouts=Timeouts(lock_timeout=7.0, statement_timeout=60.0)).steps
    assert (step.lock_timeout, step.statement_timeout) == (7.0, 60.0)


def test_timeouts_of_the_file_come_before_the_manifests() -> None:
    migration = file(1, directives=["lock-timeout 10s", "statement-timeout 0s"])
    (step,) = planned([migration], [], 1, timeouts=Timeouts(lock_timeout=7.0, statement_timeout=60.0)).steps
    assert (step.lock_timeout, step.statement_timeout) == (10.0, 0.0)


def test_a_failed_transactional_up_left_nothing_and_is_simply_pending() -> None:
    one, two = files(1, 2)
    made = planned([one, two], [row(one), row(two, status=RowStatus.FAILED)], 2)
    assert route(made) == ["up 2"]
    assert made.runnable


def test_a_failed_transactional_up_above_the_target_is_nothing() -> None:
    one, two = files(1, 2)
    assert planned([one, two], [row(one), row(two, status=RowStatus.FAILED)], 1).in_sync


def test_an_older_migration_that_turns_up_late_is_refused() -> None:
    problem = refusal(planned(files(1, 2, 3), rows(files(1, 3)), 3))
    assert problem.reason is Reason.OUT_OF_ORDER
    assert problem.message == "migration 2 (step_2) is not applied, although the newer version 3 is"
    assert problem.remedy == (
        "give it a number above the newest one, or set policy.out_of_order: apply to let older migrations in"
    )
    assert problem.place == Place("migrations/00002_step_2.sql", 1)


def test_an_older_migration_that_turns_up_late_is_applied_where_the_policy_says_so() -> None:
    made = planned(files(1, 2, 3, 4), rows(files(1, 3)), 4, out_of_order=OutOfOrderPolicy.APPLY)
    assert route(made) == ["up 2", "up 4"]
    assert not made.refusals


def test_what_goes_down_first_makes_nothing_out_of_order() -> None:
    made = planned(files(1, 2, 3, 5), rows(files(1, 2, 5)), 3)
    assert route(made) == ["down 5", "up 3"]
    assert not made.refusals


def test_a_target_that_no_file_has_names_its_neighbours() -> None:
    problem = refusal(planned(files(1, 41, 45), rows(files(1)), 42))
    assert problem.reason is Reason.TARGET_UNKNOWN
    assert problem.message == (
        "target_version is 42, but no migration has this number; the nearest are 41 (step_41) and 45 (step_45)"
    )
    assert problem.remedy == "commit the file of migration 42, or set target_version: 41"


def test_a_target_above_all_files_names_the_newest() -> None:
    problem = refusal(planned(files(1, 2), rows(files(1, 2)), 3))
    assert problem.message == (
        "target_version is 3, but no migration has this number; the newest is 2 (step_2)"
    )


def test_a_target_below_all_files_names_the_oldest() -> None:
    problem = refusal(planned(files(10), [], 3))
    assert problem.message == (
        "target_version is 3, but no migration has this number; the oldest is 10 (step_10)"
    )
    assert problem.remedy == "commit the file of migration 3, or set target_version: 10"


def test_a_target_without_any_file_says_that_there_are_none() -> None:
    problem = refusal(planned([], [], 3))
    assert problem.message == "target_version is 3, but there are no migrations at all"


def test_a_target_whose_applied_file_is_gone_is_told_once() -> None:
    assert refusal(planned(files(1), rows(files(1, 2)), 2)).reason is Reason.TARGET_UNKNOWN


def test_a_mix_of_statements_is_refused_with_its_place() -> None:
    migration = file(1, up="CREATE TABLE a (id INT);\nCREATE INDEX CONCURRENTLY ON a (id);")
    problem = refusal(planned([migration], [], 1))
    assert problem.reason is Reason.MIGRATION_INVALID
    assert problem.place == Place(migration.path, 5, 1)
    assert (problem.version, problem.direction) == (1, "up")


def test_transaction_control_is_refused_with_its_place() -> None:
    migration = file(1, up="CREATE TABLE a (id INT);\n  COMMIT;")
    problem = refusal(planned([migration], [], 1))
    assert problem.reason is Reason.MIGRATION_INVALID
    assert problem.place == Place(migration.path, 5, 3)


def test_every_file_is_analysed_before_any_runs() -> None:
    migrations = [file(1), file(2, up="SELECT (1;"), file(3, up="COMMIT;")]
    made = planned(migrations, [], 3)
    assert [problem.version for problem in made.refusals] == [2, 3]
    assert not made.runnable


def test_statements_that_stand_alone_make_a_migration_without_a_transaction() -> None:
    (step,) = planned([file(1, up="CREATE INDEX CONCURRENTLY i ON a (id);")], [], 1).steps
    assert not step.transactional


def test_the_directive_makes_a_migration_without_a_transaction() -> None:
    (step,) = planned([file(1, directives=["no-transaction"])], [], 1).steps
    assert not step.transactional


def test_an_up_that_drops_data_is_refused_where_the_policy_denies_it() -> None:
    migrations = [file(1), file(2, "drop_legacy", up="DROP TABLE legacy;")]
    problem = refusal(planned(migrations, rows(files(1)), 2, destructive=DestructivePolicy.DENY))
    assert problem.reason is Reason.DESTRUCTIVE_CHANGE
    assert problem.message.startswith(
        "migration 2 (drop_legacy) destroys data, and policy.destructive is deny: "
    )
    assert "legacy" in problem.message.partition("deny: ")[2]
    assert problem.remedy == (
        "take that out of migrations/00002_drop_legacy.sql, or set policy.destructive: allow if the data may go"
    )


def test_a_down_that_drops_data_is_not_what_that_policy_is_about() -> None:
    made = planned(files(1, 2), rows(files(1, 2)), 1, destructive=DestructivePolicy.DENY)
    assert made.runnable


@pytest.mark.parametrize("reason_given", ["allow-destructive nobody reads it"])
def test_a_directive_does_not_overrule_the_policy(reason_given: str) -> None:
    migrations = [file(1, up="DROP TABLE legacy;", directives=[reason_given])]
    made = planned(migrations, [], 1, destructive=DestructivePolicy.DENY)
    assert refusal(made).reason is Reason.DESTRUCTIVE_CHANGE
