"""Repairs by the operations, on real servers: decided again under the lock, fenced, and seen by who watches."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from reconciler.database.reading import ADVISORY_KEY
from reconciler.model import Database, ProblemError, Reason, RepairKind
from reconciler.operations import Declaration
from reconciler.operations.repair import RepairRequest, plan_repair, repair
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.looking import applied, exists, journal, rows

FILES = {"1_a.sql": table("a"), "2_b.sql": table("b"), "3_c.sql": table("c")}


async def change(database: Database, request: RepairRequest, declaration: Declaration) -> None:
    """Look, say yes, and change."""
    shown = await plan_repair(database, request, declaration)
    await repair(database, request, declaration, shown, actor(), "why", acquire_timeout=5)


async def test_of_two_people_one_repairs_and_the_other_is_told(any_database: str) -> None:
    declaration, request = declare(FILES, 3), RepairRequest(kind=RepairKind.BASELINE, version=2)
    people = [database_at(any_database) for _ in range(2)]
    shown = [await plan_repair(each, request, declaration) for each in people]
    came = await asyncio.gather(
        *(
            repair(each, request, declaration, seen, actor(), "why", acquire_timeout=10)
            for each, seen in zip(people, shown, strict=True)
        ),
        return_exceptions=True,
    )
    (refusal,) = [each for each in came if each is not None]
    assert isinstance(refusal, ProblemError)
    assert refusal.problem.reason is Reason.REPAIR_REFUSED
    assert "already" in refusal.problem.message
    assert applied(any_database) == [1, 2]
    assert len(journal(any_database, "baseline")) == 2
    for each in people:
        await each.close()


async def test_a_row_that_changed_since_it_was_shown_is_left_alone(any_database: str) -> None:
    declaration = declare(FILES, 2)
    database = database_at(any_database)
    await bring(database, declaration)
    rows(any_database, "UPDATE schema_migrations SET status = 'running' WHERE version = 2")
    request = RepairRequest(kind=RepairKind.MARK_ROLLED_BACK, version=2)
    shown = await plan_repair(database, request, declaration)
    rows(any_database, "UPDATE schema_migrations SET status = 'failed' WHERE version = 2")
    with pytest.raises(ProblemError) as refusal:
        await repair(database, request, declaration, shown, actor(), "why", acquire_timeout=5)
    assert "nothing was changed" in refusal.value.problem.message
    assert rows(any_database, "SELECT status FROM schema_migrations WHERE version = 2") == [("failed",)]
    await database.close()


@pytest.mark.direct("looks at how the lock of a bare session is told")
async def test_a_repair_waits_for_the_lock_and_names_its_holder(any_database: str) -> None:
    declaration, request = declare(FILES, 3), RepairRequest(kind=RepairKind.MARK_APPLIED, version=1)
    database = database_at(any_database)
    shown = await plan_repair(database, request, declaration)
    with psycopg.connect(any_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        heard: list[object] = []
        with pytest.raises(ProblemError) as held:
            await repair(
                database,
                request,
                declaration,
                shown,
                actor(),
                "why",
                acquire_timeout=0.2,
                on_waiting=heard.append,
            )
        assert held.value.problem.reason is Reason.LOCK_HELD
        assert len(heard) == 1
    await database.close()


async def test_whoever_watches_sees_a_repair_at_the_next_look_and_goes_on(any_database: str) -> None:
    """A daemon keeps its connection and what it read; a failure that stood against it does no more."""
    declaration = declare({"1_a.sql": migration("CREATE TABLE a (id int);", "DROP TABLE a;")}, 1)
    rows(any_database, "CREATE TABLE a (id int)")
    daemon, person = database_at(any_database), database_at(any_database)
    assert (await bring(daemon, declaration)).problem is not None
    stalled = await bring(daemon, declaration)
    assert stalled.plan is not None
    assert stalled.plan.refusals
    await change(person, RepairRequest(kind=RepairKind.BASELINE, version=1), declaration)
    now = await bring(daemon, declaration)
    assert now.plan is not None
    assert now.plan.in_sync
    assert now.observation is not None
    assert now.observation.last_failure is None
    await daemon.close()
    await person.close()


async def test_an_earlier_tools_table_is_completed_by_a_baseline(any_database: str) -> None:
    rows(
        any_database,
        "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name VARCHAR(255) NOT NULL, "
        "applied_at TIMESTAMP NOT NULL DEFAULT now(), checksum VARCHAR(64) NOT NULL, execution_time_ms INTEGER, "
        "status VARCHAR(20) DEFAULT 'success', error_message TEXT)",
    )
    rows(any_database, "INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'a', 'x')")
    database = database_at(any_database)
    await change(database, RepairRequest(kind=RepairKind.BASELINE, version=2), declare(FILES, 3))
    assert applied(any_database) == [1, 2]
    assert (await bring(database, declare(FILES, 3))).problem is None
    assert exists(any_database, "c")
    await database.close()


async def test_unlocking_refuses_when_the_lock_has_changed_hands(any_database: str) -> None:
    database = database_at(any_database)
    await bring(database, declare(FILES, 1))
    with psycopg.connect(any_database, autocommit=True) as first:
        first.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        shown = await database.read_lock()
    with psycopg.connect(any_database, autocommit=True) as second:
        while (await database.read_lock()).session is not None:
            await asyncio.sleep(0.01)
        second.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        with pytest.raises(ProblemError) as refusal:
            await database.unlock(shown, actor(None), "why")
        assert refusal.value.problem.reason is Reason.REPAIR_REFUSED
        assert second.execute("SELECT 1").fetchone() == (1,)
    assert journal(any_database, "unlock") == []
    await database.close()


async def test_a_lease_is_withdrawn(any_database: str) -> None:
    database = database_at(any_database)
    await bring(database, declare(FILES, 1))
    rows(
        any_database,
        "UPDATE schema_migrations_lock SET mode = 'lease', owner = gen_random_uuid(), holder = 'other', "
        "expires_at = now() + interval '1 hour'",
    )
    shown = await database.read_lock()
    assert shown.leased
    await database.unlock(shown, actor(None), "why")
    assert not (await database.read_lock()).held
    assert (await bring(database, declare(FILES, 2))).problem is None
    await database.close()
