from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

import pytest

from reconciler.model import (
    AttemptKey,
    Blocker,
    Condition,
    ConditionStatus,
    DaemonStatus,
    DatabaseStatus,
    Direction,
    EnvironmentStatus,
    LastStep,
    PendingStep,
    Place,
    Plan,
    Problem,
    Reason,
    Revision,
    Script,
    ScriptSource,
    SourceStatus,
    State,
    Statement,
    Step,
    StepProgress,
)
from reconciler.model.encoding import (
    blocker_as_dict,
    blocker_from_dict,
    daemon_as_dict,
    environment_as_dict,
    instant_as_text,
    is_ready,
    plan_as_dict,
    problem_as_dict,
    source_as_dict,
    status_as_dict,
)

NOON = datetime(2025, 1, 15, 12, 0, 0, 123456, tzinfo=UTC)
NOON_TEXT = "2025-01-15T12:00:00.123Z"

PROBLEM = Problem(
    reason=Reason.STATEMENT_FAILED,
    message='relation "orders" already exists',
    remedy="drop it, or change the migration",
    place=Place("migrations/00042_orders.sql", 7, 14),
    excerpt="CREATE TABLE orders (\n             ^",
    sqlstate="42P07",
    detail="DETAIL: none",
    version=42,
    direction="up",
    statement_index=2,
)
PROBLEM_JSON = {
    "reason": "StatementFailed",
    "class": "permanent",
    "message": 'relation "orders" already exists',
    "remedy": "drop it, or change the migration",
    "file": "migrations/00042_orders.sql",
    "line": 7,
    "column": 14,
    "excerpt": "CREATE TABLE orders (\n             ^",
    "sqlstate": "42P07",
    "detail": "DETAIL: none",
    "version": 42,
    "direction": "up",
    "statement_index": 2,
}
PENDING = PendingStep(
    version=42, name="orders", direction=Direction.DOWN, source="stored", transactional=True
)
PENDING_JSON = {
    "version": 42,
    "name": "orders",
    "direction": "down",
    "source": "stored",
    "transactional": True,
}
BLOCKER = Blocker(
    pid=4711,
    user="app",
    application="worker",
    state="idle in transaction",
    transaction_age=192.25,
    query_id=-77,
    query="SELECT 1",
)
BLOCKER_JSON = {
    "pid": 4711,
    "user": "app",
    "application": "worker",
    "state": "idle in transaction",
    "transaction_age_seconds": 192.25,
    "query_id": -77,
    "query": "SELECT 1",
    "prepared": None,
}

FULL = DatabaseStatus(
    environment="production",
    database="orders",
    state=State.FAILED,
    target=41,
    current=42,
    target_ordinal=6,
    current_ordinal=7,
    pending=(PENDING,),
    problem=PROBLEM,
    problems=(PROBLEM,),
    warnings=(PROBLEM,),
    conditions=(
        ConditionStatus(
            type=Condition.STALLED,
            status=True,
            reason=Reason.STATEMENT_FAILED,
            message="no",
            revision="main@sha1:abc",
            last_transition=NOON,
        ),
    ),
    engine="postgresql",
    server_version="18.1",
    holder="reconciler up on db1",
    holder_since=NOON,
    observed_revision="main@sha1:abc",
    target_revision="main@sha1:def",
    last_applied_revision="main@sha1:012",
    since=NOON,
    failures=3,
    failing_since=NOON,
    drift_since=NOON,
    target_since=NOON,
    suspended_since=NOON,
    running=PENDING,
    running_since=NOON,
    progress=StepProgress(phase="building index: scanning table", percent=12.5, object="public.orders"),
    blocked_by=(BLOCKER,),
    last_reconcile_at=NOON,
    last_success_at=NOON,
    next_retry_at=NOON,
    reachable=True,
    last_steps=(LastStep(direction=Direction.UP, version=42, finished_at=NOON, duration=1.5),),
)
EMPTY = DatabaseStatus(environment="dev", database="dev", state=None, target=None, current=None)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (NOON, NOON_TEXT),
        (NOON.replace(tzinfo=None), NOON_TEXT),
        (NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), NOON_TEXT),
        (NOON.replace(microsecond=0), "2025-01-15T12:00:00.000Z"),
        (None, None),
    ],
)
def test_instants_are_utc_with_milliseconds(instant: datetime | None, text: str | None) -> None:
    assert instant_as_text(instant) == text


def test_a_problem() -> None:
    assert problem_as_dict(PROBLEM) == PROBLEM_JSON


def test_a_problem_of_which_little_is_known_has_the_same_keys() -> None:
    rendered = problem_as_dict(Problem(reason=Reason.LOCK_HELD, message="somebody has the lock"))
    assert rendered.keys() == PROBLEM_JSON.keys()
    assert {key for key, value in rendered.items() if value is not None} == {
        "reason",
        "class",
        "message",
        "remedy",
    }
    assert rendered["class"] == "temporary"


def test_no_secret_gets_out() -> None:
    leaky = "cannot connect to postgresql://app:hunter2@db/orders with password=hunter2"
    problem = replace(PROBLEM, message=leaky, remedy=leaky, excerpt=leaky, detail=leaky)
    conditions = tuple(replace(condition, message=leaky) for condition in FULL.conditions)
    assert "hunter2" not in json.dumps(status_as_dict(replace(FULL, problem=problem, conditions=conditions)))


@pytest.mark.parametrize("blocker", [BLOCKER, Blocker(pid=1), Blocker(pid=0, prepared="x")])
def test_a_blocker_is_read_back(blocker: Blocker) -> None:
    assert blocker_from_dict(blocker_as_dict(blocker)) == blocker


def test_a_blocker_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert blocker_from_dict({"pid": "?", "user": 3, "more": 1}) == Blocker(pid=0, user="3")


def test_everything_known_of_a_database() -> None:
    assert status_as_dict(FULL) == {
        "environment": "production",
        "database": "orders",
        "state": "failed",
        "ready": False,
        "target_version": 41,
        "current_version": 42,
        "target_ordinal": 6,
        "current_ordinal": 7,
        "pending": [PENDING_JSON],
        "running": {
            **PENDING_JSON,
            "since": NOON_TEXT,
            "phase": "building index: scanning table",
            "percent": 12.5,
            "object": "public.orders",
            "blocked_by": [BLOCKER_JSON],
        },
        "problem": PROBLEM_JSON,
        "problems": [PROBLEM_JSON],
        "warnings": [PROBLEM_JSON],
        "conditions": [
            {
                "type": "Stalled",
                "status": True,
                "reason": "StatementFailed",
                "message": "no",
                "observed_revision": "main@sha1:abc",
                "last_transition_time": NOON_TEXT,
            }
        ],
        "engine": "postgresql",
        "server_version": "18.1",
        "reachable": True,
        "lock_holder": {"owner": "reconciler up on db1", "since": NOON_TEXT},
        "observed_revision": "main@sha1:abc",
        "target_revision": "main@sha1:def",
        "last_applied_revision": "main@sha1:012",
        "since": NOON_TEXT,
        "target_since": NOON_TEXT,
        "drift_since": NOON_TEXT,
        "failing_since": NOON_TEXT,
        "suspended_since": NOON_TEXT,
        "failures": 3,
        "last_reconcile_at": NOON_TEXT,
        "last_success_at": NOON_TEXT,
        "next_retry_at": NOON_TEXT,
        "last_steps": [
            {"direction": "up", "version": 42, "finished_at": NOON_TEXT, "duration_seconds": 1.5},
        ],
    }


def test_a_database_never_looked_at_has_the_same_keys() -> None:
    rendered = status_as_dict(EMPTY)
    assert rendered.keys() == status_as_dict(FULL).keys()
    known = {key: value for key, value in rendered.items() if value not in (None, [])}
    assert known == {"environment": "dev", "database": "dev", "ready": False, "failures": 0}


@pytest.mark.parametrize("name", [field.name for field in fields(DatabaseStatus)])
def test_no_field_of_a_database_is_left_out(name: str) -> None:
    emptied = {
        "environment": "",
        "database": "",
        "problem": None,
        "pending": (),
        "running": None,
        "failures": 0,
    }
    changed = replace(FULL, **{name: emptied.get(name, getattr(EMPTY, name))})
    assert status_as_dict(changed) != status_as_dict(FULL)


@pytest.mark.parametrize("state", State)
def test_without_conditions_only_in_sync_is_ready(state: State) -> None:
    assert is_ready(replace(EMPTY, state=state)) is (state is State.IN_SYNC)


@pytest.mark.parametrize("ready", [True, False])
def test_the_ready_condition_decides(ready: bool) -> None:
    condition = ConditionStatus(
        type=Condition.READY,
        status=ready,
        reason=Reason.UP_TO_DATE,
        message="",
        revision="",
        last_transition=NOON,
    )
    status = replace(FULL, state=State.FAILED if ready else State.IN_SYNC)
    assert is_ready(replace(status, conditions=(*FULL.conditions, condition))) is ready


def test_the_daemon() -> None:
    revision = Revision(commit="a" * 40, branch="main", committed_at=NOON, author="Ada <ada@example.com>")
    source = SourceStatus(
        repository="git.example.com/schema", branch="main", revision=revision, last_success_at=NOON
    )
    environment = EnvironmentStatus(
        environment="dev", target=42, suspended=True, problem=PROBLEM, databases=(EMPTY,)
    )
    status = DaemonStatus(
        source=source,
        environments=(environment,),
        problems=(PROBLEM,),
        not_ready_because="dev/dev was not attempted yet",
        started_at=NOON,
        queue_depth=2,
        queue_oldest=NOON,
        workers=8,
        workers_busy=1,
        resync_interval=30.0,
    )
    assert daemon_as_dict(status) == {
        "ready": False,
        "not_ready_because": "dev/dev was not attempted yet",
        "started_at": NOON_TEXT,
        "resync_interval_seconds": 30.0,
        "source": source_as_dict(source),
        "problems": [PROBLEM_JSON],
        "environments": [environment_as_dict(environment)],
        "queue": {"depth": 2, "oldest_since": NOON_TEXT, "workers": 8, "workers_busy": 1},
    }
    assert environment_as_dict(environment) == {
        "environment": "dev",
        "target_version": 42,
        "suspended": True,
        "problem": PROBLEM_JSON,
        "problems": [PROBLEM_JSON],
        "databases": [status_as_dict(EMPTY)],
    }
    assert source_as_dict(source) == {
        "repository": "git.example.com/schema",
        "branch": "main",
        "revision": {
            "commit": "a" * 40,
            "branch": "main",
            "committed_at": NOON_TEXT,
            "author": "Ada <ada@example.com>",
            "working_tree": False,
        },
        "last_success_at": NOON_TEXT,
        "problem": None,
    }


def test_a_ready_daemon_has_no_reason_not_to_be() -> None:
    status = DaemonStatus(
        source=SourceStatus(repository="here", branch="main"), ready=True, not_ready_because="an old one"
    )
    assert daemon_as_dict(status)["not_ready_because"] is None


class TestPlan:
    STEP = Step(
        version=42,
        name="orders",
        direction=Direction.DOWN,
        script=Script(text="DROP TABLE orders;", path="migrations/00042_orders.sql", first_line=9),
        source=ScriptSource.STORED,
        statements=(Statement(text="DROP TABLE orders", offset=0, line=9, column=1),),
        transactional=True,
        lock_timeout=2.0,
        statement_timeout=0.0,
        key=AttemptKey(version=42, direction=Direction.DOWN, script_digest="d", policy_digest="p"),
        migration=None,
        data_loss=("table orders",),
    )
    STEP_JSON: ClassVar = {
        "version": 42,
        "name": "orders",
        "direction": "down",
        "source": "stored",
        "transactional": True,
        "file": "migrations/00042_orders.sql",
        "statements_total": 1,
        "statements_done": 0,
        "lock_timeout_seconds": 2.0,
        "statement_timeout_seconds": 0.0,
        "data_loss": ["table orders"],
    }

    def test_with_its_steps(self) -> None:
        plan = Plan(current=42, target=41, steps=(self.STEP,), warnings=(PROBLEM,))
        assert plan_as_dict(plan) == {
            "current_version": 42,
            "target_version": 41,
            "in_sync": False,
            "runnable": True,
            "steps": [self.STEP_JSON],
            "refusals": [],
            "warnings": [PROBLEM_JSON],
            "pins": [],
            "hooks": {"before": [], "after": [], "on_failure": []},
        }

    def test_with_its_statements(self) -> None:
        plan = Plan(current=42, target=41, steps=(self.STEP,))
        (step,) = plan_as_dict(plan, statements=True)["steps"]
        assert step == {
            **self.STEP_JSON,
            "statements": [{"text": "DROP TABLE orders", "line": 9, "column": 1}],
        }

    def test_that_is_refused(self) -> None:
        rendered = plan_as_dict(Plan(current=42, target=41, steps=(self.STEP,), refusals=(PROBLEM,)))
        assert rendered["refusals"] == [PROBLEM_JSON]
        assert not rendered["runnable"]


@pytest.mark.parametrize("version", [1, 2**53 + 1, 2**63 - 1])
def test_it_is_json_with_whole_versions(version: int) -> None:
    text = json.dumps(status_as_dict(replace(FULL, target=version)), allow_nan=False)
    assert json.loads(text)["target_version"] == version
