"""Problems, statuses, plans, histories and outcomes as text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.lint import Finding, Severity
from reconciler.model import (
    AppliedMigration,
    AttemptKey,
    DatabaseStatus,
    Direction,
    EnvironmentStatus,
    JournalEvent,
    PendingStep,
    Place,
    Plan,
    Problem,
    Reason,
    RowStatus,
    Script,
    ScriptSource,
    State,
    Statement,
    Step,
    StepResult,
)
from reconciler.model.encoding import (
    applied_as_dict,
    environment_as_dict,
    event_as_dict,
    plan_as_dict,
    problem_as_dict,
    result_as_dict,
)
from reconciler.report.attempts import attempts_of
from reconciler.report.findings import finding_text, findings_summary
from reconciler.report.histories import applied_table, attempt_notes, attempts_table, story
from reconciler.report.outcomes import outcome_line, step_line
from reconciler.report.plans import plan_notes, plan_script, plan_table, plan_title
from reconciler.report.problems import error_text, problem_text
from reconciler.report.status import database_name, status_details, status_table
from reconciler.report.table import plain_table

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROBLEM = Problem(
    reason=Reason.STATEMENT_FAILED,
    message='relation "a" already exists',
    remedy="rename it",
    place=Place("migrations/1_a.sql", 2, 14),
    excerpt="CREATE TABLE a ();\n             ^",
    sqlstate="42P07",
    detail="DETAIL: there is one",
    statement_index=1,
)
STEP = Step(
    version=1,
    name="create_a",
    direction=Direction.UP,
    script=Script("CREATE TABLE a ();\nSELECT 1;\n", "migrations/1_a.sql", 2),
    source=ScriptSource.CHECKOUT,
    statements=(Statement("CREATE TABLE a ()", 0, 2, 1), Statement("SELECT 1", 19, 3, 1)),
    transactional=True,
    lock_timeout=2.0,
    statement_timeout=0.0,
    key=AttemptKey(1, Direction.UP, "digest", "policy"),
    migration=None,
)


def test_problem_says_what_where_and_what_to_do() -> None:
    assert problem_text(PROBLEM) == (
        'error: migrations/1_a.sql:2:14: relation "a" already exists [StatementFailed, SQLSTATE 42P07]\n'
        "    CREATE TABLE a ();\n"
        "                 ^\n"
        "  DETAIL: there is one\n"
        "  remedy: rename it"
    )


def test_problem_of_a_daemon_reads_the_same() -> None:
    assert problem_text(problem_as_dict(PROBLEM)) == problem_text(PROBLEM)


def test_problem_of_a_stranger_is_shown_as_far_as_it_goes() -> None:
    assert problem_text({"reason": "NewReason", "message": "x\x1b[2J"}) == "error: x\\x1b[2J [NewReason]"
    assert problem_text({}) == "error:  [unknown reason]"


def test_problem_without_details_is_one_line() -> None:
    problem = Problem(reason=Reason.LOCK_HELD, message="held")
    assert problem_text(problem, label="refused") == "refused: held [LockHeld]"


@pytest.mark.parametrize(
    ("remedy", "shown"),
    [
        ("it is tried again by itself", []),
        ("free some space; it is tried again by itself", ["  remedy: free some space"]),
        ("it is tried again by itself; free some space", ["  remedy: free some space"]),
    ],
)
def test_only_a_daemon_promises_to_try_again(remedy: str, shown: list[str]) -> None:
    problem = Problem(reason=Reason.CONNECTION_FAILED, message="no", remedy=remedy)
    assert problem_text(problem).splitlines()[1:] == shown
    assert problem_text(problem, lasting=True).splitlines()[1:] == [f"  remedy: {remedy}"]


def test_error_text() -> None:
    assert error_text("no", "") == "error: no"
    assert error_text("no", "do") == "error: no\n  remedy: do"


def _environment(**changes: object) -> EnvironmentStatus:
    status = DatabaseStatus(
        environment="dev", database="orders", state=State.IN_SYNC, target=3, current=3, since=NOW
    )
    return EnvironmentStatus(
        environment="dev",
        target=3,
        suspended=False,
        databases=(replace(status, **changes),),  # type: ignore[arg-type]  # names are checked by the dataclass
    )


def _table(environment: EnvironmentStatus) -> str:
    return plain_table(status_table([environment_as_dict(environment)], NOW))


def test_status_table_shows_one_line_a_database() -> None:
    assert _table(_environment()).splitlines()[1].split("  ")[:1] == ["dev"]
    assert _table(_environment()).split() == [
        *("ENVIRONMENT", "DATABASE", "STATE", "TARGET", "CURRENT", "PENDING", "SINCE"),
        *("dev", "orders", "in", "sync", "3", "3", "0", "2026-01-02", "03:04:05Z", "(just", "now)"),
    ]


def test_status_table_counts_pending_by_direction() -> None:
    steps = [
        PendingStep(version=each, name="x", direction=direction, source="checkout", transactional=True)
        for each, direction in [(5, Direction.DOWN), (2, Direction.UP), (3, Direction.UP)]
    ]
    assert "1 down, 2 up" in _table(_environment(pending=tuple(steps)))


def test_status_table_shows_what_is_not_known_as_a_dash() -> None:
    unknown = _table(_environment(state=None, target=None, current=None, since=None)).splitlines()[1]
    assert unknown.split() == ["dev", "orders", "-", "-", "-", "-", "-"]


def test_status_of_a_broken_manifest_is_a_line_and_a_problem() -> None:
    broken = EnvironmentStatus(environment="dev", target=None, suspended=False, problem=PROBLEM)
    assert "blocked" in _table(broken)
    (detail,) = status_details([environment_as_dict(broken)], warnings=False)
    assert detail.startswith("dev: error: migrations/1_a.sql:2:14:")


def test_status_of_a_manifest_with_several_problems_says_how_many_more() -> None:
    broken = EnvironmentStatus(
        environment="dev", target=None, suspended=False, problem=PROBLEM, problems=(PROBLEM,) * 3
    )
    (detail,) = status_details([environment_as_dict(broken)], warnings=False)
    assert detail.endswith("\n  and 2 more: run `reconciler validate`")


def test_status_of_an_unreachable_database_does_not_say_that_nothing_is_pending() -> None:
    line = _table(_environment(state=State.UNREACHABLE, reachable=False)).splitlines()[1]
    assert line.split()[:6] == ["dev", "orders", "unreachable", "3", "3", "-"]


def test_status_table_of_a_terminal_says_how_long_ago_and_no_time() -> None:
    table = status_table([environment_as_dict(_environment())], NOW, ages=True)
    assert table.rows[0][-1] == "just now"


def test_status_details_tell_every_problem_and_the_lock() -> None:
    environment = _environment(
        problem=PROBLEM, problems=(PROBLEM, PROBLEM), warnings=(PROBLEM,), holder="me", holder_since=NOW
    )
    rendered = [environment_as_dict(environment)]
    assert len(list(status_details(rendered, warnings=False))) == 3
    assert len(list(status_details(rendered, warnings=True))) == 4
    assert "dev/orders: the lock is held by me since 2026-01-02 03:04:05Z" in status_details(
        rendered, warnings=False
    )


def test_status_of_a_newer_daemon_is_shown_all_the_same() -> None:
    strange = {"environment": "dev", "databases": [{"database": "x", "state": "brand_new", "since": 7}]}
    assert "brand new" in plain_table(status_table([strange], NOW))


def test_database_name() -> None:
    assert database_name("dev", "orders") == "dev/orders"
    assert database_name("dev", "dev") == "dev"
    assert database_name("", "default") == "default"
    assert database_name("", "") == "-"


def test_plan_title_says_where_to() -> None:
    assert plan_title("dev", Plan(current=3, target=3)) == "dev: in sync at version 3"
    plan = Plan(current=0, target=1, steps=(STEP,))
    assert plan_title("dev", plan) == "dev: from version 0 to 1, 1 step"
    refused = replace(plan, refusals=(PROBLEM,))
    assert plan_title("dev", refused) == "dev: from version 0 to 1, 1 step; refused"


def test_plan_table_and_notes() -> None:
    plan = Plan(
        current=0,
        target=1,
        steps=(replace(STEP, first_statement=1, data_loss=("drops a",)),),
        warnings=(PROBLEM,),
        refusals=(PROBLEM,),
    )
    assert plan_table(plan).rows == [("up", "1", "create_a", "checkout", "yes", "1 of 2")]
    notes = list(plan_notes(plan))
    assert [note.partition(":")[0] for note in notes] == ["warning", "warning", "refused"]


def test_script_is_what_would_be_sent() -> None:
    lines = list(plan_script("dev", Plan(current=0, target=1, steps=(STEP,))))
    assert [line for line in lines if line and not line.startswith("--")] == [
        "CREATE TABLE a ();",
        "SELECT 1;",
    ]
    assert "-- up 1 create_a: migrations/1_a.sql, from the checkout" in lines
    assert lines.index("-- BEGIN") < lines.index("-- COMMIT")


def test_script_of_an_interrupted_step_begins_where_it_stopped() -> None:
    step = replace(STEP, transactional=False, first_statement=1)
    lines = list(plan_script("dev", Plan(current=0, target=1, steps=(step,))))
    assert [line for line in lines if line and not line.startswith("--")] == ["SELECT 1;"]
    assert "-- BEGIN" not in lines


def test_script_has_the_rows_of_a_copy() -> None:
    rows = "".join(f"{number}\tword\n" for number in range(12))
    copy = Statement("COPY a\nFROM stdin", 0, 3, 1, rows, 20)
    nothing = Statement("COPY b FROM stdin", 90, 20, 1, "", 110)
    step = replace(STEP, statements=(copy, nothing))
    plan = Plan(current=0, target=1, steps=(step,))
    assert f"COPY a\nFROM stdin;\n{rows}\\.\nCOPY b FROM stdin;\n\\.\n" in "\n".join(plan_script("dev", plan))
    assert list(plan_script("dev", plan, longest_copy=12)) == list(plan_script("dev", plan))
    shortened = list(plan_script("dev", plan, longest_copy=2))
    start = shortened.index("-- COPY a")
    assert shortened[start : start + 5] == [
        "-- COPY a",
        "-- FROM stdin;",
        "-- 0\tword",
        "-- 1\tword",
        "-- and 10 more lines: shown in part here, and whole in a file or a pipe",
    ]
    assert shortened[start + 5 :] == ["COPY b FROM stdin;", "\\.", "-- COMMIT"]
    first, second = plan_as_dict(plan, statements=True)["steps"][0]["statements"]
    assert (first["copy_data"], second["copy_data"]) == (rows, "")


def test_outcomes() -> None:
    result = StepResult(duration=0.02, durable=True)
    assert step_line("dev", STEP, result) == "dev: up 1 create_a [checkout] 20 ms"
    done = Plan(current=1, target=1)
    assert outcome_line("dev", [], done) == "dev: in sync at version 1, nothing to do"
    assert outcome_line("dev", [(STEP, result)], done) == "dev: in sync at version 1, 1 migration in 20 ms"
    left = Plan(current=0, target=1, steps=(STEP,))
    assert outcome_line("dev", [], left) == "dev: at version 0, 1 step left to version 1; nothing was changed"
    assert "not known" in outcome_line("dev", [(STEP, result)], None)
    refused = replace(left, current=2, target=0, refusals=(PROBLEM,))
    assert outcome_line("dev", [], refused) == "dev: refused at version 2, on the way to 0"
    denied = Problem(reason=Reason.DOWN_DENIED, message="no")
    assert outcome_line("dev", [], left, denied) == "dev: refused at version 0, on the way to 1"
    stuck = replace(refused, target=2)
    assert outcome_line("dev", [(STEP, result)], stuck) == "dev: refused at version 2; 1 migration in 20 ms"
    assert outcome_line("dev", [], left, PROBLEM) == (
        "dev: failed at version 0, on the way to 1; no step was completed"
    )
    rendered = result_as_dict([(STEP, result)], done, None)
    assert rendered["in_sync"] is True
    assert rendered["applied"][0]["duration_seconds"] == 0.02
    assert result_as_dict([], None, PROBLEM)["problem"]["sqlstate"] == "42P07"


def test_history_tables() -> None:
    row = AppliedMigration(
        1, "create_a", NOW, "c" * 64, 1234, RowStatus.RUNNING, Direction.DOWN, None, "a" * 40
    )
    assert applied_table([row]).rows == [
        ("1", "create_a", "running (down)", "2026-01-02 03:04:05Z", "1.2 s", "a" * 8)
    ]
    assert applied_as_dict(row)["duration_seconds"] == 1.234


def event(name: str, *, attempt: str = "x", seconds: int = 0, outcome: str = "", **more: Any) -> JournalEvent:
    """An event of the journal about migration 2."""
    known = {"direction": "up", "reason": None, "message": None, **more}
    return JournalEvent(
        at=NOW + timedelta(seconds=seconds),
        attempt=attempt,
        event=name,
        version=2,
        direction=known["direction"],
        outcome=outcome or None,
        reason=known["reason"],
        message=known["message"],
        details=known.get("details", {"os_user": "ann", "host": "desk", "verb": "up"}),
    )


def test_attempts_are_put_together_from_their_events() -> None:
    events = [
        event("started", attempt="a"),
        event(
            "finished", attempt="a", seconds=3, outcome="failed", reason="StatementFailed", message="no\nway"
        ),
        event("repair", attempt="b", seconds=5, outcome="marked_applied", message="by hand"),
        event("started", attempt="c", seconds=7, direction="down"),
        event("finished", attempt="d", seconds=9, outcome="success", details={"execution_time_ms": 1500}),
    ]
    attempts = attempts_of(events)
    assert [row[1:4] for row in attempts_table(attempts).rows] == [
        ("up 2", "failed", "-"),
        ("repair 2", "marked applied", "-"),
        ("down 2", "unfinished", "-"),
        ("up 2", "success", "1.5 s"),
    ]
    assert attempts[3].began == NOW + timedelta(seconds=7.5)
    assert list(attempt_notes(attempts)) == [
        "2026-01-02 03:04:05Z up 2: no way [StatementFailed]",
        "2026-01-02 03:04:10Z repair 2: by hand",
    ]
    assert event_as_dict(events[4])["details"] == {"execution_time_ms": 1500}


def test_what_a_person_said_once_about_many_migrations_is_shown_once() -> None:
    def said(name: str, version: int, *, attempt: str, message: str = "by hand") -> JournalEvent:
        return replace(event(name, attempt=attempt, message=message, outcome="baselined"), version=version)

    events = [
        *(said("baseline", version, attempt="a") for version in (1, 2, 3)),
        said("baseline", 4, attempt="b"),
        said("repair", 5, attempt="c", message="taken over from x: why"),
        said("repair", 6, attempt="c", message="why"),
    ]
    began = "2026-01-02 03:04:05Z"
    assert [" ".join(note.split()) for note in attempt_notes(attempts_of(events))] == [
        f"{began} baseline 1 to 3: by hand",
        f"{began} baseline 4: by hand",
        f"{began} repair 5: taken over from x: why",
        f"{began} repair 6: why",
    ]
    assert len(attempts_table(attempts_of(events)).rows) == 6


def test_only_the_newest_attempt_may_be_running_still() -> None:
    begun = [event("started", attempt="a"), event("started", attempt="b", seconds=5)]
    text = " ".join("\n".join(story(2, None, begun)).split())
    assert "03:04:05Z up began, and its end is not recorded by" in text
    assert "03:04:10Z up began, and may be running still: its end is not recorded" in text


def test_the_story_tells_of_hooks_and_unlocks_by_their_names_and_where_an_attempt_went_on() -> None:
    hook = replace(
        event("hook", attempt="h", outcome="failed", details={"name": "backup", "execution_time_ms": 2000}),
        version=None,
    )
    cleared = replace(
        event("unlock", attempt="u", seconds=1, outcome="cleared", message="gone"), version=None
    )
    begun = event("started", seconds=2, message="went on at statement 2 of 3")
    done = event(
        "finished", seconds=3, outcome="success", details={"name": "create_b", "execution_time_ms": 4}
    )
    text = "\n".join(story(2, None, [hook, cleared, begun, done]))
    assert text.startswith("migration 2 (create_b): not applied\n")
    assert "the hook backup failed after 2.0 s" in text
    assert "the lock was cleared" in text
    assert "reason: gone" in text
    assert "up done in 4 ms\n    by -\n    went on at statement 2 of 3" in text
    notes = list(attempt_notes(attempts_of([begun, done])))
    assert notes == ["2026-01-02 03:04:07Z up 2: went on at statement 2 of 3"]


def test_the_story_of_a_migration_keeps_to_a_hundred_columns_and_shows_no_control_characters() -> None:
    blocker = {"pid": 7, "user": "bob", "application": "psql\x1b[2J"}
    details = {
        "name": "create_b",
        "os_user": "ann",
        "host": "desk",
        "verb": "run",
        "git_revision": "a" * 40,
        "git_author": "Ann <ann@example.org>",
        "script_source": "checkout",
        "sqlstate": "42P07",
        "path": "migrations/00002_create_b.sql",
        "line": 3,
        "excerpt": "CREATE TABLE b ();\n             ^",
        "blockers": [blocker, "garbage"],
        "remedy": "mend it",
        "pid": 12,
    }
    failed = event(
        "finished", outcome="failed", reason="StatementFailed", message="long " * 60, details=details
    )
    text = "\n".join(story(2, None, [failed, event("retry", attempt="r")], more=True))
    assert text.startswith("migration 2 (create_b): not applied\n\n2026-01-02 03:04:05Z  up failed\n")
    assert "by ann@desk, the daemon\n    at revision aaaaaaaaaaaa by Ann <ann@example.org>\n" in text
    assert "    migrations/00002_create_b.sql:3:1: long" in text
    assert "[StatementFailed, SQLSTATE 42P07]" in " ".join(text.split())
    assert "in its way: pid 7 (user bob" in text
    assert "another attempt was asked for" in text
    assert "remedy: mend it" in text
    assert "\x1b" not in text
    assert max(map(len, text.split("\n"))) <= 100
    assert "the journal has nothing about it" in "\n".join(story(9, None, []))


def test_findings() -> None:
    finding = Finding("rule", Severity.WARNING, "message", "remedy", Place("a.sql", 1, 2), "SELECT\n ^")
    assert finding_text(finding) == (
        "a.sql:1:2: warning: message [rule]\n    SELECT\n     ^\n  remedy: remedy"
    )
    assert findings_summary([finding], manifests=0, migrations=2) == (
        "no manifests, 2 migration files: no errors, 1 warning"
    )
