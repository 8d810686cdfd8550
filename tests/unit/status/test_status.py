"""Facts in, one state, six conditions and the times since when out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.manifest import DownPolicy
from reconciler.model import (
    Blocker,
    Condition,
    ConditionStatus,
    DatabaseStatus,
    Direction,
    LastStep,
    LockHolder,
    Observation,
    PendingStep,
    Problem,
    Reason,
    RowStatus,
    State,
    StepProgress,
    Work,
)
from reconciler.status import STATE_OF, Facts, evaluate, pending_step
from tests.unit.planner.builders import (
    COMMIT,
    NOW,
    database,
    failure,
    file,
    files,
    planned,
    row,
    rows,
    stopped,
)

LATER = NOW + timedelta(minutes=1)
MUCH_LATER = NOW + timedelta(hours=1)
HOLDER = LockHolder("reconciler up on build-7, pid 12, user anna", "advisory", NOW)
RUNNING = PendingStep(version=2, name="step_2", direction=Direction.UP, source="checkout", transactional=True)


def facts(target: int | None = 2, **known: Any) -> Facts:
    values: dict[str, Any] = {
        "environment": "production",
        "database": "orders",
        "target": target,
        "target_since": NOW - timedelta(minutes=5),
        "observed_revision": f"main@sha1:{COMMIT}",
        "target_revision": f"main@sha1:{COMMIT}",
    }
    return Facts(**{**values, **known})


def looked(target: int, observation: Observation, **known: Any) -> Facts:
    """The facts after a look at a database of a catalog of three."""
    made = planned(files(1, 2, 3), observation, target)
    return facts(target, observation=observation, plan=made, **known)


def problem(reason: Reason, **values: Any) -> Problem:
    return Problem(reason=reason, message="what happened", remedy="what to do", **values)


def condition(status: DatabaseStatus, kind: Condition) -> ConditionStatus:
    (found,) = [each for each in status.conditions if each.type is kind]
    return found


def true_conditions(status: DatabaseStatus) -> set[Condition]:
    return {each.type for each in status.conditions if each.status}


IN_SYNC = looked(2, database(rows(files(1, 2))), target_ordinal=2, current_ordinal=2)
PENDING = looked(2, database(rows(files(1))), target_ordinal=2, current_ordinal=1)
UNREACHABLE = facts(error=problem(Reason.CONNECTION_FAILED), failures=1, next_retry_at=LATER)


# states


def test_a_database_at_its_target_is_in_sync() -> None:
    status = evaluate(IN_SYNC, None, NOW)
    assert (status.state, status.current, status.target) == (State.IN_SYNC, 2, 2)
    assert (status.current_ordinal, status.target_ordinal) == (2, 2)
    assert status.problem is None
    assert not status.pending
    ready = condition(status, Condition.READY)
    assert (ready.status, ready.reason, ready.message) == (True, Reason.UP_TO_DATE, "at version 2")
    assert (status.reachable, status.engine, status.server_version) == (True, "postgresql", "18.1")


def test_in_sync_by_this_very_revision_is_applied() -> None:
    status = evaluate(replace(IN_SYNC, last_applied_revision=f"main@sha1:{COMMIT}"), None, NOW)
    assert condition(status, Condition.READY).reason is Reason.APPLIED


def test_nothing_applied_as_declared_is_in_sync() -> None:
    status = evaluate(looked(0, database()), None, NOW)
    assert status.state is State.IN_SYNC
    assert (status.current, condition(status, Condition.READY).message) == (
        0,
        "nothing is applied, as declared",
    )


def test_steps_to_run_are_pending() -> None:
    status = evaluate(PENDING, None, NOW)
    assert status.state is State.PENDING
    assert status.pending == (RUNNING,)
    reconciling = condition(status, Condition.RECONCILING)
    assert (reconciling.status, reconciling.reason, reconciling.message) == (
        True,
        Reason.PENDING,
        "to run: up 2",
    )


def test_many_steps_are_named_in_part() -> None:
    numbers = range(1, 8)
    made = planned(files(*numbers), [], 7)
    status = evaluate(facts(7, observation=database(), plan=made), None, NOW)
    assert condition(status, Condition.RECONCILING).message == "to run: up 1, up 2, up 3 and 4 more"
    assert len(status.pending) == 7


def test_rows_to_be_completed_are_pending() -> None:
    observation = database([row(file(1), token_checksum=None)])
    status = evaluate(facts(1, observation=observation, plan=planned(files(1), observation, 1)), None, NOW)
    assert status.state is State.PENDING
    assert condition(status, Condition.RECONCILING).message == "1 row of an earlier tool is to be completed"


def test_a_running_step_is_migrating() -> None:
    status = evaluate(replace(PENDING, running=RUNNING, running_since=NOW), None, LATER)
    assert (status.state, status.running, status.running_since) == (State.MIGRATING, RUNNING, NOW)
    reconciling = condition(status, Condition.RECONCILING)
    assert (reconciling.reason, reconciling.message) == (
        Reason.PROGRESSING,
        "running the up of migration 2 (step_2)",
    )


def test_a_failed_statement_is_failed() -> None:
    stands = problem(Reason.STATEMENT_FAILED, version=2, direction="up")
    status = evaluate(replace(PENDING, error=stands, failures=1), None, NOW)
    assert (status.state, status.problem, status.failures) == (State.FAILED, stands, 1)
    stalled = condition(status, Condition.STALLED)
    assert (stalled.status, stalled.reason, stalled.message) == (
        True,
        Reason.STATEMENT_FAILED,
        "what happened",
    )


def test_a_failure_and_the_refusal_to_repeat_it_are_one_problem() -> None:
    (step,) = PENDING.plan.steps if PENDING.plan else ()
    observation = database(rows(files(1)), last_failure=failure(step.key))
    error = problem(Reason.STATEMENT_FAILED, version=2, direction="up")
    status = evaluate(looked(2, observation, error=error), None, NOW)
    assert status.problems == (error,)


def test_a_failure_that_can_pass_is_failed_and_reconciling() -> None:
    status = evaluate(replace(PENDING, error=problem(Reason.DEADLOCK), next_retry_at=LATER), None, NOW)
    assert status.state is State.FAILED
    assert true_conditions(status) == {Condition.RECONCILING, Condition.DRIFTED, Condition.SOURCE_READY}
    assert status.next_retry_at == LATER


def test_a_refused_plan_is_blocked_with_all_its_problems() -> None:
    observation = database(rows(files(1, 3)))
    refused = planned([file(2), file(3, up="SELECT 42;")], observation, 3)
    status = evaluate(facts(3, observation=observation, plan=refused), None, NOW)
    assert status.state is State.BLOCKED
    assert status.problems == refused.refusals
    assert status.problem == refused.refusals[0]
    assert true_conditions(status) == {Condition.STALLED, Condition.DRIFTED, Condition.SOURCE_READY}


def test_a_down_that_is_refused_is_ahead() -> None:
    observation = database(rows(files(1, 2, 3)))
    refused = planned(files(1, 2, 3), observation, 2, down=DownPolicy.DENY)
    status = evaluate(facts(2, observation=observation, plan=refused), None, NOW)
    assert (status.state, status.current, status.target) == (State.AHEAD, 3, 2)
    assert condition(status, Condition.DRIFTED).reason is Reason.DATABASE_AHEAD


def test_an_unknown_target_below_the_current_version_is_blocked_and_not_ahead() -> None:
    observation = database(rows(files(1, 3)))
    status = evaluate(facts(2, observation=observation, plan=planned(files(1, 3), observation, 2)), None, NOW)
    assert status.state is State.BLOCKED


def test_a_database_out_of_reach_keeps_what_was_known_of_it() -> None:
    status = evaluate(UNREACHABLE, evaluate(PENDING, None, NOW), LATER)
    assert (status.state, status.reachable) == (State.UNREACHABLE, False)
    assert (status.current, status.current_ordinal, status.engine) == (1, 1, "postgresql")
    assert status.pending == (RUNNING,)
    assert condition(status, Condition.RECONCILING).reason is Reason.CONNECTION_FAILED


def test_a_database_never_reached_has_no_version() -> None:
    status = evaluate(UNREACHABLE, None, NOW)
    assert (status.state, status.current) == (State.UNREACHABLE, None)


def test_what_was_pending_for_another_target_is_forgotten_while_out_of_reach() -> None:
    assert evaluate(replace(UNREACHABLE, target=3), evaluate(PENDING, None, NOW), LATER).pending == ()


def test_a_lock_held_elsewhere_is_waiting() -> None:
    status = evaluate(replace(PENDING, holder=HOLDER), None, LATER)
    assert (status.state, status.holder, status.holder_since) == (State.WAITING, HOLDER.owner, NOW)
    assert status.problem is None
    assert condition(status, Condition.RECONCILING).message == (
        "somebody else holds the lock: reconciler up on build-7, pid 12, user anna, since 2025-06-01 12:00:00 UTC"
    )


def test_a_lock_that_could_not_be_taken_is_waiting() -> None:
    assert evaluate(replace(PENDING, error=problem(Reason.LOCK_HELD)), None, NOW).state is State.WAITING


def test_a_lock_held_elsewhere_does_not_matter_when_there_is_nothing_to_do() -> None:
    assert evaluate(replace(IN_SYNC, holder=HOLDER), None, NOW).state is State.IN_SYNC


def test_the_lock_held_elsewhere_is_over_once_the_target_is_reached() -> None:
    assert evaluate(replace(IN_SYNC, error=problem(Reason.LOCK_HELD)), None, NOW).state is State.IN_SYNC


def test_a_row_in_doubt_is_waiting_while_somebody_works_on_it() -> None:
    split = file(2, up="SELECT 1; SELECT 2;", directives=["no-transaction"])
    doubtful = stopped(split, 1, status=RowStatus.RUNNING)._replace(
        intent_digest="0" * 64, intent_object="opaque"
    )
    observation = database([row(file(1)), doubtful])
    known = facts(2, observation=observation, plan=planned([file(1), split], observation, 2))
    assert evaluate(replace(known, holder=HOLDER), None, NOW).state is State.WAITING
    assert evaluate(known, None, NOW).state is State.FAILED


AT_WORK = Work(
    step=RUNNING,
    since=NOW,
    progress=StepProgress(phase="sorting"),
    blocked_by=(Blocker(pid=7),),
)


def test_what_the_holder_of_the_lock_is_at_is_migrating() -> None:
    status = evaluate(replace(PENDING, holder=HOLDER, work=AT_WORK), None, LATER)
    assert (status.state, status.holder, status.holder_since) == (State.MIGRATING, HOLDER.owner, NOW)
    assert (status.running, status.running_since, status.progress) == (RUNNING, NOW, AT_WORK.progress)
    assert status.blocked_by == AT_WORK.blocked_by
    assert condition(status, Condition.RECONCILING).message == (
        f"{HOLDER.owner} runs the up of migration 2 (step_2), blocked by pid 7"
    )
    assert Condition.RECONCILING in true_conditions(status)


@pytest.mark.parametrize(
    "known",
    [
        IN_SYNC,
        facts(None),
        replace(PENDING, error=problem(Reason.STATEMENT_FAILED)),
        replace(PENDING, error=problem(Reason.OUTCOME_UNKNOWN)),
    ],
)
def test_it_is_migrating_whatever_was_before(known: Facts) -> None:
    status = evaluate(replace(known, holder=HOLDER, work=AT_WORK), None, LATER)
    assert (status.state, status.problem) == (State.MIGRATING, None)


def test_what_is_against_a_rule_stands_while_somebody_else_is_at_work() -> None:
    known = replace(PENDING, error=problem(Reason.CHECKSUM_MISMATCH), holder=HOLDER, work=AT_WORK)
    status = evaluate(known, None, LATER)
    assert (status.state, status.running, status.holder) == (State.BLOCKED, RUNNING, HOLDER.owner)
    assert status.problem is not None


def test_suspended_comes_before_everything() -> None:
    known = replace(PENDING, suspended=True, error=problem(Reason.CONNECTION_FAILED), running=RUNNING)
    status = evaluate(known, None, NOW)
    assert (status.state, status.suspended_since, status.problem) == (State.SUSPENDED, NOW, None)
    assert true_conditions(status) == {Condition.SUSPENDED, Condition.SOURCE_READY}


def test_a_manifest_that_cannot_be_used_blocks() -> None:
    broken = problem(Reason.MANIFEST_INVALID)
    status = evaluate(facts(None, manifest_problems=(broken,)), evaluate(IN_SYNC, None, NOW), LATER)
    assert (status.state, status.problem, status.target, status.current) == (State.BLOCKED, broken, None, 2)


def test_waiting_for_its_turn_is_pending() -> None:
    status = evaluate(replace(PENDING, error=problem(Reason.PENDING)), None, NOW)
    assert status.state is State.PENDING
    assert true_conditions(status) == {Condition.RECONCILING, Condition.DRIFTED, Condition.SOURCE_READY}


def test_before_the_first_look_there_is_no_state() -> None:
    status = evaluate(facts(), None, NOW)
    assert (status.state, status.current, status.reachable, status.last_reconcile_at) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_state_and_a_condition(reason: Reason) -> None:
    assert reason in STATE_OF
    status = evaluate(facts(error=problem(reason)), None, NOW)
    assert status.state is STATE_OF[reason]
    main = {Condition.READY, Condition.RECONCILING, Condition.STALLED, Condition.SUSPENDED}
    assert len(true_conditions(status) & main) == 1


def test_the_short_form_of_a_step() -> None:
    assert PENDING.plan is not None
    assert pending_step(PENDING.plan.steps[0]) == RUNNING


# conditions


def test_all_six_conditions_are_always_there() -> None:
    for known in (facts(), IN_SYNC, PENDING, UNREACHABLE, facts(suspended=True)):
        assert [each.type for each in evaluate(known, None, NOW).conditions] == [
            Condition.READY,
            Condition.RECONCILING,
            Condition.STALLED,
            Condition.DRIFTED,
            Condition.SOURCE_READY,
            Condition.SUSPENDED,
        ]


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = evaluate(PENDING, None, NOW)
    second = evaluate(UNREACHABLE, first, LATER)
    reconciling = condition(second, Condition.RECONCILING)
    assert (reconciling.reason, reconciling.last_transition) == (Reason.CONNECTION_FAILED, NOW)
    third = evaluate(IN_SYNC, second, MUCH_LATER)
    assert condition(third, Condition.RECONCILING).last_transition == MUCH_LATER
    assert condition(third, Condition.READY).last_transition == MUCH_LATER
    assert condition(third, Condition.STALLED).last_transition == NOW


def test_git_out_of_reach_is_told_beside_the_state() -> None:
    status = evaluate(replace(IN_SYNC, source_problem=problem(Reason.FETCH_FAILED)), None, NOW)
    assert status.state is State.IN_SYNC
    source = condition(status, Condition.SOURCE_READY)
    assert (source.status, source.reason, source.message) == (False, Reason.FETCH_FAILED, "what happened")
    assert condition(status, Condition.READY).status


def test_drift_is_unknown_and_stays_as_it_was_while_out_of_reach() -> None:
    first = evaluate(PENDING, None, NOW)
    second = evaluate(UNREACHABLE, first, LATER)
    assert condition(second, Condition.DRIFTED) == condition(first, Condition.DRIFTED)


def test_a_changed_file_is_drift_although_the_version_is_right() -> None:
    observation = database(rows(files(1)))
    refused = planned([file(1, up="SELECT 42;")], observation, 1)
    drifted = condition(
        evaluate(facts(1, observation=observation, plan=refused), None, NOW), Condition.DRIFTED
    )
    assert (drifted.status, drifted.reason) == (True, Reason.DRIFT_DETECTED)


# since when


def test_the_state_keeps_its_beginning() -> None:
    first = evaluate(PENDING, None, NOW)
    second = evaluate(PENDING, first, LATER)
    assert (first.since, second.since) == (NOW, NOW)
    assert evaluate(IN_SYNC, second, MUCH_LATER).since == MUCH_LATER


def test_suspended_since_stays_and_ends() -> None:
    first = evaluate(facts(suspended=True), None, NOW)
    second = evaluate(facts(suspended=True), first, LATER)
    assert second.suspended_since == NOW
    assert evaluate(PENDING, second, MUCH_LATER).suspended_since is None


def test_drift_begins_with_the_new_target_and_ends_in_sync() -> None:
    first = evaluate(looked(1, database(rows(files(1)))), None, NOW - timedelta(hours=1))
    assert first.drift_since is None
    second = evaluate(PENDING, first, NOW)
    assert second.drift_since == NOW - timedelta(minutes=5)
    third = evaluate(UNREACHABLE, second, LATER)
    assert third.drift_since == NOW - timedelta(minutes=5)
    assert evaluate(IN_SYNC, third, MUCH_LATER).drift_since is None


def test_drift_without_a_new_target_begins_when_it_is_seen() -> None:
    first = evaluate(IN_SYNC, None, NOW)
    assert evaluate(PENDING, first, LATER).drift_since == LATER


def test_drift_never_begins_in_the_future() -> None:
    assert evaluate(replace(PENDING, target_since=MUCH_LATER), None, NOW).drift_since == NOW


FAILED = replace(PENDING, error=problem(Reason.STATEMENT_FAILED, version=2, direction="up"), failures=1)


def test_failing_since_stays_through_retries_and_ends_in_sync() -> None:
    status = evaluate(FAILED, None, NOW)
    assert status.failing_since == NOW
    for known in (replace(PENDING, running=RUNNING, running_since=LATER), UNREACHABLE, PENDING, FAILED):
        status = evaluate(known, status, LATER)
        assert status.failing_since == NOW
    assert evaluate(IN_SYNC, status, MUCH_LATER).failing_since is None


def test_failing_since_is_read_back_from_the_database_after_a_restart() -> None:
    assert PENDING.plan is not None
    stood = failure(PENDING.plan.steps[0].key, failed_at=NOW - timedelta(days=2))
    status = evaluate(looked(2, database(rows(files(1)), last_failure=stood)), None, NOW)
    assert status.state is State.FAILED
    assert status.failing_since == NOW - timedelta(days=2)


def test_a_step_that_works_ends_the_run_of_failures() -> None:
    failed = evaluate(FAILED, None, NOW)
    worked = LastStep(direction=Direction.UP, version=1, finished_at=LATER, duration=0.1)
    status = evaluate(replace(PENDING, running=RUNNING), replace(failed, last_steps=(worked,)), LATER)
    assert status.failing_since is None
    assert status.last_steps == (worked,)


def test_a_failure_after_a_step_that_worked_begins_a_new_run() -> None:
    failed = evaluate(FAILED, None, NOW)
    worked = LastStep(direction=Direction.UP, version=1, finished_at=LATER, duration=0.1)
    status = evaluate(FAILED, replace(failed, last_steps=(worked,)), MUCH_LATER)
    assert status.failing_since == MUCH_LATER


def test_suspending_ends_the_run_of_failures() -> None:
    assert evaluate(facts(suspended=True), evaluate(FAILED, None, NOW), LATER).failing_since is None


def test_a_refused_plan_is_failing() -> None:
    observation = database(rows(files(1, 3)))
    refused = planned(files(1, 2, 3), observation, 3)
    assert evaluate(facts(3, observation=observation, plan=refused), None, NOW).failing_since == NOW


@pytest.mark.parametrize(
    ("error", "failing"),
    [
        (problem(Reason.CONNECTION_FAILED), False),
        (problem(Reason.SECRET_UNAVAILABLE), False),
        (problem(Reason.LOCK_HELD), False),
        (problem(Reason.PENDING), False),
        (problem(Reason.ROLLOUT_STOPPED), False),
        (problem(Reason.INTERRUPTED, version=2), False),
        (problem(Reason.CONNECTION_FAILED, version=2), True),
        (problem(Reason.PERMISSION_DENIED), True),
        (problem(Reason.OUTCOME_UNKNOWN), True),
    ],
    ids=lambda value: str(value.reason) if isinstance(value, Problem) else "",
)
def test_what_counts_as_failing(error: Problem, failing: bool) -> None:
    assert (evaluate(replace(PENDING, error=error), None, NOW).failing_since is not None) == failing


def test_when_it_was_looked_at_and_when_it_was_good() -> None:
    good = evaluate(IN_SYNC, None, NOW)
    assert (good.last_reconcile_at, good.last_success_at) == (NOW, NOW)
    bad = evaluate(UNREACHABLE, good, LATER)
    assert (bad.last_reconcile_at, bad.last_success_at) == (LATER, NOW)


def test_the_last_applied_revision_is_kept_and_read_back() -> None:
    assert evaluate(IN_SYNC, None, NOW).last_applied_revision == COMMIT
    known = evaluate(replace(IN_SYNC, last_applied_revision="main@sha1:1"), None, NOW)
    assert evaluate(PENDING, known, LATER).last_applied_revision == "main@sha1:1"
    assert evaluate(UNREACHABLE, None, NOW).last_applied_revision == ""


def test_it_is_pure() -> None:
    for known in (IN_SYNC, PENDING, UNREACHABLE, FAILED):
        before = evaluate(PENDING, None, NOW)
        assert evaluate(known, before, LATER) == evaluate(known, before, LATER)


def test_a_running_hook_is_told_and_what_hooks_did_wrong_is_a_warning() -> None:
    warning = Problem(reason=Reason.HOOK_FAILED, message="the hook notify (after) ended with exit status 1")
    status = evaluate(facts(hook="backup (before)", warnings=(warning,)), None, NOW)
    assert status.state is State.MIGRATING
    assert status.warnings == (warning,)
    told = [each.message for each in status.conditions if each.type is Condition.RECONCILING]
    assert told == ["running the hook backup (before)"]
