"""What is above the target goes down, newest first, by the right script."""

from __future__ import annotations

from reconciler.manifest import ChangedDownPolicy, DownPolicy
from reconciler.model import Place, Reason, ScriptSource
from reconciler.planner import stored_downs_needed
from tests.unit.planner.builders import (
    database,
    file,
    files,
    planned,
    refusal,
    request,
    route,
    row,
    rows,
    stored,
    warning,
)

OLD = file(2, "add_index", down="DROP INDEX old_one;")
NEW = file(2, "add_index", down="DROP INDEX new_one;")
WITHOUT = file(2, "add_index", down=None)
IRREVERSIBLE = file(2, "add_index", down=None, directives=["irreversible"])


def test_the_newest_goes_first() -> None:
    made = planned(files(1, 2, 3), rows(files(1, 2, 3)), 1)
    assert route(made) == ["down 3", "down 2"]
    assert made.runnable
    assert not made.warnings


def test_target_zero_takes_everything_down() -> None:
    assert route(planned(files(1, 2), rows(files(1, 2)), 0)) == ["down 2", "down 1"]


def test_a_down_that_is_the_stored_one_is_read_from_the_checkout() -> None:
    (step,) = planned(files(1, 2), rows(files(1, 2)), 1).steps
    assert step.source is ScriptSource.CHECKOUT
    assert step.script == file(2).down
    assert (step.token_checksum, step.data_loss) == ("", ())


def test_a_changed_down_runs_as_stored_and_says_so() -> None:
    made = planned([file(1), NEW], [row(file(1)), row(OLD)], 1, stored_downs={2: stored(OLD)})
    (step,) = made.steps
    assert (step.source, step.script.text) == (ScriptSource.STORED, stored(OLD).text)
    told = warning(made)
    assert told.reason is Reason.CHECKSUM_MISMATCH
    assert told.message == (
        "the DOWN section of migration 2 (add_index) differs from the one stored when it was applied; "
        "the stored one runs (policy.changed_down: checkout would run the file's)"
    )
    assert told.place == Place("migrations/00002_add_index.sql", 7)


def test_a_changed_down_runs_from_the_checkout_where_the_policy_says_so() -> None:
    made = planned(
        [NEW],
        [row(OLD)],
        0,
        stored_downs={2: stored(OLD)},
        changed_down=ChangedDownPolicy.CHECKOUT,
    )
    (step,) = made.steps
    assert (step.source, step.script) == (ScriptSource.CHECKOUT, NEW.down)
    assert warning(made).message.endswith("; the file's runs, as policy.changed_down says")


def test_a_deleted_file_goes_down_by_the_stored_script_and_the_plan_says_so() -> None:
    made = planned(files(1), [row(file(1)), row(OLD)], 1, stored_downs={2: stored(OLD)})
    (step,) = made.steps
    assert (step.name, step.source, step.migration) == ("add_index", ScriptSource.STORED, None)
    told = warning(made)
    assert told.reason is Reason.MIGRATION_FILE_MISSING
    assert told.message == (
        "the file of migration 2 (add_index) is gone; it is brought down by the script stored when it was applied"
    )


def test_a_deleted_file_goes_down_by_the_stored_script_whatever_the_policy() -> None:
    made = planned([], [row(OLD)], 0, stored_downs={2: stored(OLD)}, changed_down=ChangedDownPolicy.CHECKOUT)
    assert made.runnable


def test_another_migration_of_the_same_number_never_brings_it_down() -> None:
    other = file(2, "add_orders", up="CREATE TABLE orders (id INT);", down="DROP TABLE orders;")
    made = planned(
        [file(1), other],
        [row(file(1)), row(OLD)],
        1,
        stored_downs={2: stored(OLD)},
        changed_down=ChangedDownPolicy.CHECKOUT,
    )
    assert [step.source for step in made.steps] == [ScriptSource.STORED]
    assert "the file of migration 2 (add_index) is gone" in warning(made).message
    assert stored_downs_needed(request([file(1), other], [row(file(1)), row(OLD)], 1)) == (2,)
    problem = refusal(planned([file(1), other], [row(file(1)), row(OLD, has_down=False)], 1))
    assert problem.reason is Reason.IRREVERSIBLE


def test_a_stored_script_brings_its_own_settings() -> None:
    original = file(2, down="DROP TABLE a;", directives=["no-transaction", "lock-timeout 10s"])
    (step,) = planned([], [row(original)], 0, stored_downs={2: stored(original)}).steps
    assert not step.transactional
    assert (step.lock_timeout, step.statement_timeout) == (10.0, 0.0)


def test_where_nothing_is_stored_the_file_decides() -> None:
    applied = row(OLD, has_down=False, down_checksum=None)
    made = planned([NEW], [applied], 0)
    assert made.steps[0].source is ScriptSource.CHECKOUT
    assert not made.warnings


def test_a_down_written_later_makes_a_migration_reversible() -> None:
    assert planned([NEW], [row(IRREVERSIBLE)], 0).runnable


def test_an_irreversible_migration_is_refused() -> None:
    problem = refusal(planned([IRREVERSIBLE], [row(IRREVERSIBLE)], 0))
    assert problem.reason is Reason.IRREVERSIBLE
    assert (
        problem.message == "migration 2 (add_index) cannot be brought down: its file declares it irreversible"
    )
    assert problem.remedy == "set target_version to 2 or more, and undo its effect by a new migration"
    assert problem.place == Place("migrations/00002_add_index.sql", 1)


def test_a_migration_without_a_down_is_refused() -> None:
    problem = refusal(planned([WITHOUT], [row(WITHOUT)], 0))
    assert problem.reason is Reason.IRREVERSIBLE
    assert problem.message == (
        "migration 2 (add_index) cannot be brought down: its file has no DOWN section, "
        "and the database keeps none for it"
    )
    assert problem.remedy == (
        "add a DOWN section to migrations/00002_add_index.sql, or set target_version to 2 or more"
    )


def test_a_deleted_file_whose_down_is_not_stored_is_refused() -> None:
    problem = refusal(planned([], [row(WITHOUT)], 0))
    assert problem.reason is Reason.IRREVERSIBLE
    assert problem.message == (
        "migration 2 (add_index) cannot be brought down: its file is gone, "
        "and the database keeps no down script for it"
    )
    assert problem.remedy == (
        "restore its file as of commit 0123456789ab, or set target_version to 2 or more"
    )


def test_a_down_section_that_was_removed_still_runs_as_stored() -> None:
    made = planned([WITHOUT], [row(OLD)], 0, stored_downs={2: stored(OLD)})
    assert made.steps[0].source is ScriptSource.STORED


def test_a_down_section_that_was_removed_is_refused_where_the_file_decides() -> None:
    problem = refusal(
        planned(
            [WITHOUT],
            [row(OLD)],
            0,
            stored_downs={2: stored(OLD)},
            changed_down=ChangedDownPolicy.CHECKOUT,
        )
    )
    assert problem.reason is Reason.IRREVERSIBLE
    assert problem.message == (
        "migration 2 (add_index) cannot be brought down: its file has no DOWN section any more, "
        "and policy.changed_down: checkout lets the file decide"
    )


def test_a_migration_declared_irreversible_later_is_refused_where_the_file_decides() -> None:
    problem = refusal(
        planned(
            [IRREVERSIBLE],
            [row(OLD)],
            0,
            stored_downs={2: stored(OLD)},
            changed_down=ChangedDownPolicy.CHECKOUT,
        )
    )
    assert "its file declares it irreversible by now" in problem.message


def test_a_stored_script_that_was_changed_in_the_database_is_refused() -> None:
    tampered = stored(OLD, text="DROP SCHEMA public CASCADE;")
    problem = refusal(planned([], [row(OLD)], 0, stored_downs={2: tampered}))
    assert problem.reason is Reason.CHECKSUM_MISMATCH
    assert problem.message.startswith(
        "the stored down script of migration 2 (add_index) was changed inside the database: its digest was "
    )
    assert problem.remedy == (
        "restore the file as of commit 0123456789ab, whose DOWN section then runs instead; or, when the file's "
        "DOWN section is the right one, set policy.changed_down: checkout"
    )


def test_a_stored_script_that_could_not_be_read_is_never_replaced_silently() -> None:
    problem = refusal(planned([NEW], [row(OLD)], 0))
    assert problem.message == (
        "migration 2 (add_index) cannot be brought down: the down script that its row promises could not be read"
    )


def test_a_stored_script_that_cannot_be_taken_apart_is_refused() -> None:
    broken = file(2, down="DROP TABLE a;")
    from reconciler.sqltext import digest

    text = "DROP TABLE (a;"
    problem = refusal(
        planned([], [row(broken)], 0, stored_downs={2: stored(broken, text=text, checksum=digest(text))})
    )
    assert problem.reason is Reason.MIGRATION_INVALID
    assert (problem.version, problem.direction) == (2, "down")


def test_every_obstacle_on_the_way_down_is_named() -> None:
    gone = file(3, down=None)
    made = planned([IRREVERSIBLE], [row(IRREVERSIBLE), row(gone)], 0)
    assert [problem.version for problem in made.refusals] == [3, 2]


def test_going_down_is_refused_where_the_policy_denies_it() -> None:
    problem = refusal(planned(files(1, 2, 3), rows(files(1, 2, 3)), 1, down=DownPolicy.DENY))
    assert problem.reason is Reason.DOWN_DENIED
    assert problem.message == "going from version 3 down to 1 is not allowed: policy.down is deny"
    assert problem.remedy == "set target_version: 3, or set policy.down: allow if going down is meant"


def test_an_approval_does_not_overrule_a_denial() -> None:
    made = planned(files(1, 2), rows(files(1, 2)), 1, down=DownPolicy.DENY, approve_down_to=1)
    assert refusal(made).reason is Reason.DOWN_DENIED


def test_going_down_too_far_is_refused() -> None:
    numbers = range(1, 8)
    problem = refusal(planned(files(*numbers), rows(files(*numbers)), 1))
    assert problem.reason is Reason.MAX_DOWN_STEPS_EXCEEDED
    assert problem.message == (
        "going from version 7 down to 1 would undo 6 migrations, and policy.max_down_steps is 5"
    )
    assert problem.remedy == (
        "set target_version: 7, or set policy.approve_down_to: 1 if going down that far is meant"
    )


def test_going_down_as_far_as_allowed_is_fine() -> None:
    assert planned(files(*range(1, 7)), rows(files(*range(1, 7))), 1).runnable


def test_an_approval_of_exactly_this_target_lets_it_go_down_further() -> None:
    numbers = range(1, 8)
    assert planned(files(*numbers), rows(files(*numbers)), 1, approve_down_to=1).runnable


def test_an_approval_that_has_served_is_warned_of() -> None:
    numbers = range(1, 8)
    pending = planned(files(*numbers), rows(files(*numbers)), 1, approve_down_to=1)
    reached = planned(files(*numbers), rows(files(1)), 1, approve_down_to=1)
    other = planned(files(*numbers), rows(files(*numbers)), 6, approve_down_to=1)
    assert pending.warnings == ()
    for made in (reached, other):
        (warning,) = made.warnings
        assert warning.reason is Reason.MAX_DOWN_STEPS_EXCEEDED
        assert warning.message == (
            "policy.approve_down_to: 1 has served; remove it, else it would approve going down to 1 again"
        )


def test_an_approval_of_another_target_does_not() -> None:
    numbers = range(1, 9)
    made = planned(files(*numbers), rows(files(*numbers)), 1, approve_down_to=2)
    assert refusal(made).reason is Reason.MAX_DOWN_STEPS_EXCEEDED


def test_no_down_step_at_all_is_allowed_by_zero() -> None:
    made = planned(files(1, 2), rows(files(1, 2)), 1, max_down_steps=0)
    assert refusal(made).message == (
        "going from version 2 down to 1 would undo 1 migration, and policy.max_down_steps is 0"
    )


def test_a_deleted_newest_file_is_not_proposed_as_the_target() -> None:
    made = planned(files(1), [row(file(1)), row(OLD)], 1, stored_downs={2: stored(OLD)}, down=DownPolicy.DENY)
    assert refusal(made).remedy == "correct target_version, or set policy.down: allow if going down is meant"


def test_stored_downs_are_needed_where_the_file_is_gone_or_differs() -> None:
    applied = [row(file(1)), row(OLD), row(file(3)), row(file(4)), row(WITHOUT, version=5)]
    asked = request([file(1), NEW, file(3)], applied, 1)
    assert stored_downs_needed(asked) == (2, 4)


def test_no_stored_down_is_needed_in_sync() -> None:
    assert stored_downs_needed(request([], database(rows(files(1, 2))), 2)) == ()
