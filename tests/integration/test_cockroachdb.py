"""Migrations on CockroachDB, as far as a simulator of it tells: a proxy that behaves as its documentation says, before PostgreSQL."""

from __future__ import annotations

import contextlib
import os

import psycopg
import pytest

from reconciler.model import Database, ProblemError
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.cockroach.faults import AFTER, BEFORE, DURING, Fault, Seen
from tests.cockroach.simulator import Simulator
from tests.looking import applied

STEP = int(os.environ.get("RECONCILER_WALK_STEP", "23"))
"""Every so many statements harm is done in an ordinary run; 1 walks through all of them."""
FILES = {"1_a.sql": table("a"), "2_b.sql": table("b"), "3_c.sql": table("c")}


async def test_migrations_go_up_and_down(simulator: Simulator) -> None:
    database = database_at(simulator.dsn)
    seen = await database.observe()
    assert (seen.engine, seen.initialised) == ("cockroachdb", False)
    outcome = await bring(database, declare(FILES, 3))
    assert outcome.problem is None
    assert applied(simulator.postgresql) == [1, 2, 3]
    outcome = await bring(database, declare(FILES, 1))
    assert outcome.problem is None
    assert applied(simulator.postgresql) == [1]
    await database.close()


MIXED = {
    "1_a.sql": table("a"),
    "2_mixed.sql": migration(
        "INSERT INTO a VALUES (1);\nALTER TABLE a ADD COLUMN n int;\nINSERT INTO a VALUES (2, 2);\nCREATE INDEX a_n ON a (n);\n"
        "UPDATE a SET n = 7;",
        "DROP INDEX a_n;\nDELETE FROM a;\nALTER TABLE a DROP COLUMN n;",
    ),
    "3_data.sql": migration(
        "INSERT INTO a VALUES (3, 3);\nUPDATE a SET n = n + 1;", "DELETE FROM a WHERE id = 3;"
    ),
}


def content(simulator: Simulator) -> list[tuple[object, ...]]:
    with psycopg.connect(simulator.postgresql) as connection:
        return connection.execute("SELECT id, n FROM a ORDER BY id").fetchall()


async def test_changes_of_the_schema_run_alone_and_data_in_transactions(simulator: Simulator) -> None:
    database = database_at(simulator.dsn)
    outcome = await bring(database, declare(MIXED, 3))
    assert outcome.problem is None, outcome.problem
    assert content(simulator) == [(1, 8), (2, 8), (3, 4)]
    outcome = await bring(database, declare(MIXED, 1))
    assert outcome.problem is None, outcome.problem
    with psycopg.connect(simulator.postgresql) as connection:
        assert connection.execute("SELECT * FROM a").fetchall() == []
        rows = connection.execute("SELECT mode, owner FROM schema_migrations_lock").fetchall()
    assert rows == [("lease", None)]
    await database.close()


async def test_a_server_that_does_not_report_its_version_is_asked_for_it(simulator: Simulator) -> None:
    simulator.reports_version = False
    database = database_at(simulator.dsn)
    assert (await database.observe()).engine == "cockroachdb"
    assert (await bring(database, declare(FILES, 2))).problem is None
    await database.close()


def ours(seen: Seen) -> bool:
    """What is numbered: all but the heartbeat, which comes when it comes."""
    return "renewed_at = now(), expires_at" not in seen.text


HARMS = {
    "conflict": lambda at: Fault(at=at, sqlstate="40001"),
    "ambiguous, and done": lambda at: Fault(at=at, sqlstate="40003", when=AFTER),
    "ambiguous, and not done": lambda at: Fault(at=at, sqlstate="40003", when=BEFORE),
    "committed, and the change failed": lambda at: Fault(at=at, sqlstate="XXA00", when=AFTER),
    "shut down before": lambda at: Fault(at=at, sqlstate="57P01", when=BEFORE),
    "shut down after": lambda at: Fault(at=at, sqlstate="57P01", when=AFTER),
    "cut before": lambda at: Fault(at=at, cut=True, when=BEFORE),
    "cut while its job goes on": lambda at: Fault(at=at, cut=True, when=DURING),
    "cut in the midst of the answer": lambda at: Fault(at=at, cut=True, when=AFTER, portion=0.5),
}


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("harm", HARMS)
async def test_harm_at_any_statement_is_settled_and_each_takes_effect_once(
    simulator: Simulator, harm: str, direction: str
) -> None:
    database = database_at(simulator.dsn, lease=1.0)
    target = {"up": 3, "down": 0}[direction]
    assert (await bring(database, declare(MIXED, 3 - target))).problem is None
    at = 0
    while True:
        fault = HARMS[harm](at)
        simulator.arm(fault, counting=ours)
        await finish(database, target)
        if direction == "up":
            assert content(simulator) == [(1, 8), (2, 8), (3, 4)], at
            assert applied(simulator.postgresql) == [1, 2, 3], at
        else:
            assert applied(simulator.postgresql) == [], at
            with psycopg.connect(simulator.postgresql) as connection:
                assert connection.execute("SELECT to_regclass('a')").fetchone() == (None,), at
        if not fault.done:
            break
        simulator.arm()
        await finish(database, 3 - target)
        at += STEP
    assert at > 20
    await database.close()


async def finish(database: Database, target: int) -> None:
    """Bring the database to `target`, as a daemon would try and a person who runs `retry`."""
    for _ in range(6):
        outcome = await bring(database, declare(MIXED, target), acquire_timeout=10)
        if outcome.problem is None and outcome.plan is not None and not outcome.plan.refusals:
            return
        problems = [outcome.problem, *(outcome.plan.refusals if outcome.plan is not None else ())]
        with contextlib.suppress(ProblemError):
            await database.request_retry(actor())
    raise AssertionError([str(problem) for problem in problems if problem is not None])
