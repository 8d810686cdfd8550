"""One writer: the advisory lock, the fence, the claim, and what others are told."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from reconciler.model import Claim, LockHolder, ProblemError, Reason
from reconciler.operations import Silent
from tests.applying import actor, bring, database_at, declare, migration, table


async def test_five_writers_apply_each_migration_once(any_database: str) -> None:
    files = {f"{n}_t.sql": table(f"t{n}") for n in range(1, 11)}
    databases = [database_at(any_database) for _ in range(5)]
    outcomes = await asyncio.gather(
        *(bring(each, declare(files, 10), acquire_timeout=30) for each in databases)
    )
    assert [outcome.problem for outcome in outcomes] == [None] * 5
    assert sorted(step.version for outcome in outcomes for step, _ in outcome.applied) == list(range(1, 11))
    finished = [event for event in await databases[0].journal() if event.event == "finished"]
    assert len(finished) == 10
    for each in databases:
        await each.close()


async def test_a_held_lock_names_its_holder_and_since_when(fresh_database: str) -> None:
    first, second = database_at(fresh_database), database_at(fresh_database)
    files = {"1_a.sql": table("a")}
    heard: list[LockHolder] = []

    class Hears(Silent):
        def waiting(self, holder: LockHolder) -> None:
            heard.append(holder)

    async with first.writer(actor(), acquire_timeout=0):
        outcome = await bring(second, declare(files, 1), acquire_timeout=0.2, listener=Hears())
        assert (await second.observe()).holder is not None
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_HELD
    assert "reconciler run on test, pid 1, user tester since 20" in outcome.problem.message
    (holder,) = heard
    assert holder.owner == "reconciler run on test, pid 1, user tester"
    assert holder.since is not None
    assert (await second.observe()).holder is None
    assert (await bring(second, declare(files, 1))).problem is None
    await first.close()
    await second.close()


@pytest.mark.direct("a row that says a lease is held is waited out")
async def test_a_writer_whose_lock_row_was_taken_over_commits_nothing(fresh_database: str) -> None:
    database = database_at(fresh_database)
    files = {"1_a.sql": table("a"), "2_b.sql": migration("CREATE TABLE b (id int); SELECT pg_sleep(1);")}

    async def take_over() -> None:
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            while not connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            ).fetchone():
                await asyncio.sleep(0.02)
            connection.execute("UPDATE schema_migrations_lock SET fence = fence + 1")

    outcome, _ = await asyncio.gather(bring(database, declare(files, 2)), take_over())
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_LOST
    assert [row.version for row in await database.applied()] == [1]
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT to_regclass('b')").fetchone() == (None,)
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()


@pytest.mark.direct("an advisory lock can be dropped by a script, a lease cannot")
async def test_a_script_that_drops_our_lock_cannot_commit_beside_another_writer(fresh_database: str) -> None:
    first, second = database_at(fresh_database), database_at(fresh_database)
    unlocking = migration("SELECT pg_advisory_unlock_all(); CREATE TABLE a (id int); SELECT pg_sleep(1);")

    async def other() -> None:
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            while not connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            ).fetchone():
                await asyncio.sleep(0.02)
        async with second.writer(actor(), acquire_timeout=5):
            await asyncio.sleep(1.5)

    outcome, _ = await asyncio.gather(bring(first, declare({"1_a.sql": unlocking}, 1)), other())
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_LOST
    await first.close()
    await second.close()


async def test_an_unexpired_lease_is_respected(fresh_database: str) -> None:
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute(
            "UPDATE schema_migrations_lock SET mode = 'lease', owner = gen_random_uuid(), holder = 'another runner', since = now(),"
            " expires_at = now() + interval '1 hour'"
        )
        held = await bring(database, declare({}, 0), acquire_timeout=0)
        assert held.problem is not None
        assert held.problem.reason is Reason.LOCK_HELD
        assert "another runner" in held.problem.message
        connection.execute("UPDATE schema_migrations_lock SET expires_at = now() - interval '1 second'")
    assert (await bring(database, declare({}, 0))).problem is None
    await database.close()


async def test_a_database_of_another_environment_is_left_alone(fresh_database: str) -> None:
    database = database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    for claim in (
        Claim("production", "orders", "example.org/team/schema"),
        Claim("dev", "orders", "example.org/fork"),
        None,
    ):
        outcome = await bring(database, declare({}, 0, claim=claim))
        assert outcome.plan is not None
        assert [problem.reason for problem in outcome.plan.refusals] == [Reason.CLAIMED_BY_OTHER]
        assert "dev/orders of example.org/team/schema" in outcome.plan.refusals[0].message
        with pytest.raises(ProblemError) as caught:
            async with database.writer(actor(claim), acquire_timeout=0):
                raise AssertionError("nobody may write here")
        assert caught.value.problem.reason is Reason.CLAIMED_BY_OTHER
    assert [row.version for row in await database.applied()] == [1]
    await database.close()


@pytest.mark.direct("a lease of somebody who is gone runs out, and is not freed at once")
async def test_the_lock_of_a_killed_holder_is_free_at_once(fresh_database: str) -> None:
    first, second = database_at(fresh_database), database_at(fresh_database)
    with pytest.raises(ProblemError):
        async with first.writer(actor(), acquire_timeout=0) as writer:
            with psycopg.connect(fresh_database, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reconciler'"
                )
            await writer.observe()
    assert (await bring(second, declare({"1_a.sql": table("a")}, 1), acquire_timeout=5)).problem is None
    await first.close()
    await second.close()


@pytest.mark.direct("looks for the advisory lock of a session")
async def test_a_cancelled_acquire_leaves_no_lock_behind(fresh_database: str) -> None:
    database, other = database_at(fresh_database), database_at(fresh_database)
    await bring(database, declare({"1_a.sql": table("a")}, 1))
    for pause in range(40):
        files = {"1_a.sql": table("a"), "2_b.sql": table("b")}
        running = asyncio.create_task(bring(database, declare(files, 1 + pause % 2)))
        await asyncio.sleep(pause / 4000)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        async with asyncio.timeout(5):
            while (await other.observe()).holder is not None:
                await asyncio.sleep(0.01)
    await database.close()
    await other.close()
