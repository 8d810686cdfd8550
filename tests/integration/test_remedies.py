"""What a failure advises is what helps: conflicts are tried again, and a half-done down is not to be turned around."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from reconciler.manifest import Timeouts
from reconciler.model import Reason
from tests.applying import bring, database_at, declare, migration, table
from tests.looking import rows

_LATCH = 4711
"""An advisory lock that a script waits for."""
_AGAIN = "it is tried again by itself"


@pytest.mark.parametrize("directive", ["", "no-transaction"])
async def test_a_write_skew_of_a_serializable_script_is_a_conflict_and_tried_again(
    fresh_database: str, directive: str
) -> None:
    """The script is found to conflict only by what is written after it."""
    serializable = "TRANSACTION ISOLATION LEVEL SERIALIZABLE;\n"
    script = f"SELECT count(*) FROM a;\nINSERT INTO b VALUES (1);\nSELECT pg_advisory_xact_lock({_LATCH});\n"
    script = (
        f"CREATE TABLE c (id int);\nBEGIN {serializable}{script}COMMIT;"
        if directive
        else f"SET {serializable}{script}"
    )
    files = {"1_a.sql": table("a"), "2_b.sql": table("b"), "3_x.sql": migration(script, "", directive)}
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    declared = declare(files, 3, timeouts=Timeouts(lock_timeout=30))
    with psycopg.connect(fresh_database) as latch, psycopg.connect(fresh_database) as other:
        latch.execute("SELECT pg_advisory_xact_lock(%s)", [_LATCH])
        running = asyncio.create_task(bring(database, declared))
        async with asyncio.timeout(20):
            while not rows(fresh_database, "SELECT 1 FROM pg_locks WHERE NOT granted AND objid = %s", _LATCH):
                await asyncio.sleep(0.02)
        other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        other.execute("SELECT count(*) FROM b")
        other.execute("INSERT INTO a VALUES (1)")
        other.commit()
        latch.rollback()
        outcome = await running
    assert outcome.problem is not None
    assert (outcome.problem.reason, outcome.problem.sqlstate) == (Reason.SERIALIZATION_FAILURE, "40001")
    assert (
        "rolled back: it came into conflict with other work: could not serialize" in outcome.problem.message
    )
    assert outcome.problem.remedy == _AGAIN
    lines = files["3_x.sql"].splitlines()
    assert outcome.problem.place is not None
    shown = lines[outcome.problem.place.line - 1]
    if directive:
        assert "up, from statement 2 of 6 on, was rolled back: " in outcome.problem.message
        assert outcome.problem.message.endswith("; 1 of its 6 statements are in force")
        assert (shown, outcome.problem.statement_index) == (f"BEGIN {serializable.strip()}", 2)
    else:
        assert "up was rolled back: " in outcome.problem.message
        assert shown == serializable.strip().replace("TRANSACTION", "SET TRANSACTION", 1)
    assert rows(fresh_database, "SELECT count(*) FROM b") == [(0,)]
    assert (await bring(database, declared)).problem is None
    assert rows(fresh_database, "SELECT count(*) FROM b") == [(1,)]
    await database.close()


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("40001", Reason.SERIALIZATION_FAILURE),
        ("40P01", Reason.DEADLOCK),
        ("53100", Reason.RESOURCE_EXHAUSTED),
        ("P0001", Reason.STATEMENT_FAILED),
    ],
)
async def test_nobody_is_told_to_mend_a_file_for_what_passes_by_itself(
    fresh_database: str, sqlstate: str, reason: Reason
) -> None:
    script = (
        "CREATE TABLE t (id int);\n"
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$;\n"
        "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();\n"
        "INSERT INTO t VALUES (1);"
    )
    database = database_at(fresh_database)
    problem = (await bring(database, declare({"1_t.sql": migration(script)}, 1))).problem
    assert problem is not None
    assert (problem.reason, problem.sqlstate) == (reason, sqlstate)
    is_for_a_person = reason is Reason.STATEMENT_FAILED
    assert (_AGAIN in problem.remedy, "mend" in problem.remedy) == (not is_for_a_person, is_for_a_person)
    await database.close()


@pytest.mark.parametrize(
    ("down", "directive", "back"),
    [
        ("DELETE FROM a;\nVACUUM nowhere;", "no-transaction", False),
        ("VACUUM nowhere;\nDELETE FROM a;", "no-transaction", True),
        ("DELETE FROM a;\nSELECT 1/0;", "", True),
    ],
    ids=["half done", "nothing done", "rolled back"],
)
async def test_going_back_up_is_advised_only_while_it_is_possible(
    fresh_database: str, down: str, directive: str, back: bool
) -> None:
    files = {"1_a.sql": table("a"), "2_x.sql": migration("INSERT INTO a VALUES (1);", down, directive)}
    database = database_at(fresh_database)
    await bring(database, declare(files, 2))
    problem = (await bring(database, declare(files, 1))).problem
    assert problem is not None
    assert problem.reason is Reason.DOWN_FAILED
    assert "policy.changed_down: checkout" in problem.remedy
    assert ("set target_version back to 2" in problem.remedy) is back
    returned = (await bring(database, declare(files, 2))).plan
    assert returned is not None
    assert (not returned.refusals) is back
    await database.close()
