"""Plans for CockroachDB: what runs as a transaction, and what an end that nobody saw comes to."""

from __future__ import annotations

import pytest

from reconciler.manifest import DestructivePolicy
from reconciler.model import COCKROACHDB, Direction, HistoryRow, Migration, Observation, Reason, RowStatus
from reconciler.planner import describe_script, is_heavy, plan
from reconciler.sqltext import intent_digest, split
from tests.unit.planner.builders import database, file, planned, refusal, request, route, row, stopped

THREE = "CREATE TABLE a (id INT);\nINSERT INTO a VALUES (1);\nCREATE TABLE c (id INT);"
DROPS = "DROP TABLE c;\nTRUNCATE a;\nDROP TABLE a;"
SPLIT = file(2, "split", up=THREE, down=DROPS)
TABLE = "table public.c"


def cockroach(*history: HistoryRow) -> Observation:
    return database(history, engine=COCKROACHDB, server_version="v26.2.3")


def in_doubt(
    what: str,
    before: str,
    *,
    done: int = 2,
    status: RowStatus = RowStatus.RUNNING,
    direction: Direction = Direction.UP,
    migration: Migration = SPLIT,
) -> HistoryRow:
    """The row of an attempt whose next statement was announced and may have taken effect."""
    script = migration.up if direction is Direction.UP else migration.down
    assert script is not None
    return stopped(migration, done, direction=direction, status=status)._replace(
        intent_digest=intent_digest(split(script)[done]), intent_object=what, intent_before=before
    )


@pytest.mark.parametrize(
    ("up", "transactional"),
    [
        ("UPSERT INTO t VALUES (1); UPDATE t@i SET a = 2 WHERE b", True),
        ("SET search_path = a; DELETE FROM t WHERE b", True),
        ("CREATE TABLE t (a UUID PRIMARY KEY USING HASH)", False),
        ("CREATE TABLE t (a INT); UPSERT INTO t VALUES (1)", False),
        ("CREATE INDEX CONCURRENTLY i ON t (a); UPSERT INTO t VALUES (1)", False),
        ("CALL p()", False),
    ],
)
def test_a_change_of_the_schema_runs_statement_by_statement_unasked(up: str, transactional: bool) -> None:
    (step,) = planned([file(1, up=up)], cockroach(), 1).steps
    assert step.transactional is transactional
    assert ";".join(statement.text for statement in step.statements).replace("; ", ";") == up.replace(
        "; ", ";"
    )
    assert describe_script(file(1, up=up), COCKROACHDB).transactional is transactional


def test_the_directive_asks_for_one_by_one() -> None:
    alone = file(1, up="UPSERT INTO t VALUES (1)", directives=["no-transaction"])
    assert not planned([alone], cockroach(), 1).steps[0].transactional


def test_the_same_files_are_planned_for_each_server_as_it_needs() -> None:
    mixed = file(1, up="CREATE TABLE t (a INT);\nINSERT INTO t VALUES (1);")
    assert planned([mixed], (), 1).steps[0].transactional
    assert not planned([mixed], cockroach(), 1).steps[0].transactional
    concurrently = file(1, up="CREATE INDEX CONCURRENTLY i ON t (a);\nINSERT INTO t VALUES (1);")
    assert refusal(planned([concurrently], (), 1)).reason is Reason.MIGRATION_INVALID
    assert planned([concurrently], cockroach(), 1).runnable


@pytest.mark.parametrize(
    ("up", "place"),
    [
        ("SELECT 1;\nBEGIN;\nSELECT 2;\nCOMMIT;", "5:1"),
        ("SAVEPOINT s", "4:1"),
        ("USE other", "4:1"),
        ("COPY t FROM STDIN;\n1\n\\.", "4:1"),
    ],
)
def test_what_no_migration_can_hold_is_refused_with_its_place(up: str, place: str) -> None:
    problem = refusal(planned([file(1, up=up)], cockroach(), 1))
    assert problem.reason is Reason.MIGRATION_INVALID
    assert str(problem.place) == f"migrations/00001_step_1.sql:{place}"


def test_lost_data_is_seen_in_what_postgresqls_grammar_does_not_know() -> None:
    up = "UPSERT INTO t VALUES (1); DROP TABLE t CASCADE; DELETE FROM u@i"
    made = planned([file(1, up=up)], cockroach(), 1, destructive=DestructivePolicy.DENY)
    assert refusal(made).reason is Reason.DESTRUCTIVE_CHANGE
    assert made.steps[0].data_loss == ("drops table t", "deletes every row of u")


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
@pytest.mark.parametrize(
    ("what", "before", "now", "first"),
    [
        (TABLE, "absent", "valid", 3),
        (TABLE, "absent", "absent", 2),
        (TABLE, "valid", "valid", 2),
        ("no-column c of t", "valid", "absent", 3),
        ("no-column c of t", "valid", "valid", 2),
        ("no-column c of t", "absent", "absent", 2),
        ("function public.f", "absent", "valid", 3),
        ("no-function public.f", "valid", "absent", 3),
        ("repeatable", "", "", 2),
    ],
)
def test_looking_settles_what_became_of_a_statement(
    status: RowStatus, what: str, before: str, now: str, first: int
) -> None:
    """Also when it failed: a job goes on when the statement that waits for it is cancelled."""
    made = planned([SPLIT], cockroach(in_doubt(what, before, status=status)), 2, objects={what: now})
    assert route(made) == ["up 2"]
    assert made.steps[0].first_statement == first


@pytest.mark.parametrize("status", [RowStatus.RUNNING, RowStatus.FAILED])
@pytest.mark.parametrize(
    ("what", "before", "now", "why"),
    [
        ("opaque", "", "", "nothing in the database tells"),
        ("function public.f", "valid", "valid", "one of its overloads"),
        ("no-function public.f", "valid", "valid", "one of its overloads"),
        (
            "unnamed public.t {1}",
            "absent",
            'valid [["public.i", "public.t"]]',
            "nothing tells whether it is ours",
        ),
        (TABLE, "absent", "", "nothing in the database tells"),
    ],
)
def test_what_looking_does_not_settle_is_for_a_person(
    status: RowStatus, what: str, before: str, now: str, why: str
) -> None:
    doubt = in_doubt(what, before, status=status)
    problem = refusal(planned([SPLIT], cockroach(doubt), 2, objects={what: now}))
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert why in problem.message
    assert "repair --mark-applied 2" in problem.remedy
    assert str(problem.place) == "migrations/00002_split.sql:6:1"
    assert "CREATE TABLE c" in problem.excerpt


def test_what_failed_for_certain_is_run_again_and_may_be_mended() -> None:
    mended = file(2, "split", up=THREE.replace("TABLE c", "TABLE d"), down=DROPS)
    assert planned([mended], cockroach(stopped(SPLIT, 2)), 2).steps[0].first_statement == 2


SETS = file(
    2, "sets", up="COMMENT ON TABLE t IS 'x';\nGRANT SELECT ON t TO b;", down="REVOKE SELECT ON t FROM b;"
)


def test_a_down_that_may_have_begun_is_not_said_to_have_changed_nothing() -> None:
    """`REVOKE` may be in force, and running it again would settle that: but nobody asks for it any more."""
    begun = in_doubt("repeatable", "", done=0, direction=Direction.DOWN, migration=SETS)
    assert refusal(planned([SETS], cockroach(begun), 2)).reason is Reason.OUTCOME_UNKNOWN
    assert route(planned([SETS], cockroach(begun), 0)) == ["down 2"]
    not_sent = begun._replace(intent_digest=None, intent_object=None, intent_before=None)
    assert planned([SETS], cockroach(not_sent), 2).untouched == (2,)


def test_an_up_that_may_have_begun_is_not_left_behind() -> None:
    begun = in_doubt("repeatable", "", done=0, migration=SETS)
    migrations = [file(1), SETS]
    assert refusal(planned(migrations, cockroach(row(file(1)), begun), 1)).reason is Reason.OUTCOME_UNKNOWN
    assert route(planned(migrations, cockroach(row(file(1)), begun), 2)) == ["up 2"]


def test_large_scripts_are_a_burden_for_each_server_once() -> None:
    large = file(1, up="UPSERT INTO burden VALUES (1);\n" * 20_000)
    asked = request([large], cockroach(), 1)
    assert is_heavy(asked)
    plan(asked)
    assert not is_heavy(asked)
    assert is_heavy(request([large], database(), 1))
