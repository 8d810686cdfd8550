"""What `Database` and `Writer` promise, held against every way of working: each server, each lock, and with a pooler between.

Where the ways differ, a trait of the dialect says so. A real CockroachDB is one of them where COCKROACH_URL leads to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from reconciler.model import Claim, Database, Direction, LockHolder, Problem, ProblemError, Reason, RepairKind
from reconciler.operations.repair import RepairRequest, plan_repair, repair
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.looking import applied, exists, rows
from tests.poolers import Pooler
from tests.servers import TestServer
from tests.ways import WAYS, Way, way_of

FILES = {"1_a.sql": table("a"), "2_b.sql": table("b"), "3_c.sql": table("c")}
DATA = {
    "1_a.sql": table("a"),
    "2_slow.sql": migration("INSERT INTO a VALUES (1);\nSELECT pg_sleep({seconds});", "DELETE FROM a;"),
}
STAGING = Claim("staging", "orders", "example.org/team/schema")


@pytest.fixture(scope="module")
def pooler(server: TestServer) -> Iterator[Pooler]:
    with Pooler(server, pool_size=3) as pooler:
        yield pooler


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with way_of(request.param, request) as way:
        yield way


def slow(seconds: float) -> dict[str, str]:
    """The second of these takes its time, and writes only data: it can be rolled back everywhere."""
    return {name: text.replace("{seconds}", str(seconds)) for name, text in DATA.items()}


async def until_begun(database: Database, version: int) -> None:
    """Wait until the journal says that a migration has begun."""
    async with asyncio.timeout(20):
        while not any(event.event == "started" for event in await database.journal(version)):
            await asyncio.sleep(0.02)


async def until_free(database: Database) -> None:
    """Wait until nobody holds the lock."""
    async with asyncio.timeout(10):
        while (await database.observe()).holder is not None:
            await asyncio.sleep(0.02)


async def test_an_empty_database_is_seen_as_one(way: Way) -> None:
    database = way.database()
    seen = await database.observe()
    assert (seen.engine, seen.pooled, seen.read_only) == (way.dialect.name, way.pooled, False)
    assert (seen.rows, seen.claim, seen.holder, seen.last_failure) == ((), None, None, None)
    assert (seen.initialised, seen.adoptable, seen.foreign_history, seen.current_version) == (
        False,
        False,
        None,
        0,
    )
    assert await database.journal() == []
    assert await database.applied() == []
    assert await database.stored_downs([1, 2]) == {}
    lock = await database.read_lock()
    assert (lock.held, lock.forgotten, lock.fence) == (False, False, None)
    assert not exists(way.direct, "public.schema_migrations")
    await database.close()


async def test_a_writer_makes_the_tables_and_claims_the_database(way: Way) -> None:
    database = way.database()
    async with database.writer(actor(), acquire_timeout=5) as writer:
        assert writer.holds_lock
        seen = await writer.observe()
        assert seen.initialised
        assert seen.claim == actor().claim
        assert seen.holder is not None
    seen = await database.observe()
    assert (seen.initialised, seen.holder, seen.rows) == (True, None, ())
    assert not database.holds_lock
    await database.close()


async def test_migrations_go_up_and_down_by_the_downs_that_are_stored(way: Way) -> None:
    database = way.database()
    outcome = await bring(database, declare(FILES, 3))
    assert outcome.problem is None, outcome.problem
    assert [step.version for step, _ in outcome.applied] == [1, 2, 3]
    downs = await database.stored_downs([1, 2, 3, 4])
    assert sorted(downs) == [1, 2, 3]
    assert "DROP TABLE b;" in downs[2].text
    assert downs[2].path == "migrations/2_b.sql"
    # the files of what goes down are gone from git
    outcome = await bring(database, declare({"1_a.sql": FILES["1_a.sql"]}, 1))
    assert outcome.problem is None, outcome.problem
    assert [(step.version, step.direction) for step, _ in outcome.applied] == [
        (3, Direction.DOWN),
        (2, Direction.DOWN),
    ]
    assert [row.version for row in await database.applied()] == applied(way.direct) == [1]
    assert [exists(way.direct, name) for name in "abc"] == [True, False, False]
    again = await bring(database, declare(FILES, 1))
    assert again.plan is not None
    assert again.plan.in_sync
    await database.close()


async def test_every_taking_of_the_lock_has_a_higher_fence(way: Way) -> None:
    fences = []
    for _ in range(3):
        database = way.database()
        async with database.writer(actor(), acquire_timeout=5):
            state = await database.read_lock()
            assert state.held
            assert state.mode == way.lock_mode
            fences.append(state.fence)
        await database.close()
    assert fences == [1, 2, 3]


async def test_one_writer_keeps_another_out_and_is_named_to_it(way: Way) -> None:
    first, second = way.database(), way.database()
    heard: list[LockHolder] = []
    async with first.writer(actor(), acquire_timeout=5):
        with pytest.raises(ProblemError) as caught:
            async with second.writer(actor(), acquire_timeout=0.3, on_waiting=heard.append):
                raise AssertionError("there are two")
        assert caught.value.problem.reason is Reason.LOCK_HELD
        holder = (await second.observe()).holder
    assert heard == [holder]
    assert holder is not None
    assert (holder.owner, holder.mode) == (actor().owner, way.lock_mode)
    assert holder.since is not None
    async with second.writer(actor(), acquire_timeout=5, on_waiting=heard.append):
        pass
    assert len(heard) == 1
    await first.close()
    await second.close()


async def test_whoever_waits_gets_the_lock_when_it_is_given_back(way: Way) -> None:
    first, second = way.database(), way.database()
    waits = asyncio.Event()

    async def wait() -> None:
        async with second.writer(actor(), acquire_timeout=20, on_waiting=lambda _: waits.set()):
            pass

    async with first.writer(actor(), acquire_timeout=5):
        waiting = asyncio.create_task(wait())
        async with asyncio.timeout(10):
            await waits.wait()
    await waiting
    await first.close()
    await second.close()


async def test_several_writers_apply_each_migration_once(way: Way) -> None:
    databases = [way.database() for _ in range(3)]
    outcomes = await asyncio.gather(
        *(bring(each, declare(FILES, 3), acquire_timeout=30) for each in databases)
    )
    assert [outcome.problem for outcome in outcomes] == [None] * 3
    assert sorted(step.version for outcome in outcomes for step, _ in outcome.applied) == [1, 2, 3]
    for each in databases:
        await each.close()


async def test_whose_it_is_stands_until_a_person_says_otherwise(way: Way) -> None:
    database = way.database()
    assert (await bring(database, declare(FILES, 1))).problem is None
    with pytest.raises(ProblemError) as caught:
        async with database.writer(actor(STAGING), acquire_timeout=1):
            raise AssertionError("it is not theirs")
    assert caught.value.problem.reason is Reason.CLAIMED_BY_OTHER
    async with database.repairer(actor(STAGING), acquire_timeout=5, taking_over=True) as repairer:
        assert (await repairer.observe()).claim == actor().claim
    request, declaration = RepairRequest(kind=RepairKind.CLAIM), declare(FILES, 1, claim=STAGING)
    shown = await plan_repair(database, request, declaration)
    await repair(database, request, declaration, shown, actor(STAGING), "why", acquire_timeout=5)
    assert (await database.observe()).claim == STAGING
    assert (await bring(database, declare(FILES, 2, claim=STAGING))).problem is None
    await database.close()


async def test_whoever_lost_the_lock_writes_nothing(way: Way) -> None:
    database, other = way.database(), way.database()
    running = asyncio.create_task(bring(database, declare(slow(1.5), 2)))
    await until_begun(other, 2)
    rows(way.direct, "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), fence = fence + 1")
    outcome = await running
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.LOCK_LOST
    assert applied(way.direct) == [1]
    assert rows(way.direct, "SELECT * FROM a") == []
    # what the thief never gives back is forgotten
    rows(way.direct, "UPDATE schema_migrations_lock SET owner = NULL, expires_at = NULL")
    settled = await bring(other, declare(slow(0), 2), acquire_timeout=10)
    assert settled.problem is None, settled.problem
    assert rows(way.direct, "SELECT * FROM a") == [(1,)]
    await database.close()
    await other.close()


async def test_a_writer_asks_whether_the_lock_is_still_its_own(way: Way) -> None:
    database = way.database()
    async with database.writer(actor(), acquire_timeout=5) as writer:
        await writer.confirm_lock()
        rows(way.direct, "UPDATE schema_migrations_lock SET fence = fence + 1")
        with pytest.raises(ProblemError) as caught:
            await writer.confirm_lock()
        assert caught.value.problem.reason is Reason.LOCK_LOST
    await database.close()


async def test_a_failure_is_kept_until_somebody_asks_for_another_attempt(way: Way) -> None:
    failing = {
        "1_a.sql": table("a"),
        "2_x.sql": migration("INSERT INTO a VALUES (1);\nINSERT INTO nowhere VALUES (1);"),
    }
    database = way.database()
    outcome = await bring(database, declare(failing, 2))
    assert outcome.problem is not None
    assert outcome.problem.sqlstate == "42P01"
    failure = (await database.observe()).last_failure
    assert failure is not None
    assert (failure.key.version, failure.sqlstate) == (2, "42P01")
    assert rows(way.direct, "SELECT * FROM a") == []
    assert applied(way.direct) == [1]
    again = await bring(database, declare(failing, 2))
    assert again.plan is not None
    assert again.plan.refusals
    await database.request_retry(actor())
    assert (await database.observe()).last_failure is None
    assert [event.event for event in await database.journal(limit=1)] == ["retry"]
    rows(way.direct, "CREATE TABLE nowhere (id int)")
    assert (await bring(database, declare(failing, 2))).problem is None
    await database.close()


async def test_a_refusal_is_written_once(way: Way) -> None:
    database = way.database()
    problem = Problem(reason=Reason.CHECKSUM_MISMATCH, message="it was changed", remedy="change it back")
    for _ in range(2):
        await database.record_refusal(actor(), problem)
    (event,) = await database.journal()
    assert (event.event, event.reason, event.message) == (
        "refused",
        "ChecksumMismatch",
        "it was changed",
    )
    await database.close()


async def test_a_person_repairs_the_history(way: Way) -> None:
    database = way.database()
    declaration, request = declare(FILES, 3), RepairRequest(kind=RepairKind.BASELINE, version=2)
    shown = await plan_repair(database, request, declaration)
    await repair(database, request, declaration, shown, actor(), "it was there", acquire_timeout=5)
    assert applied(way.direct) == [1, 2]
    assert not exists(way.direct, "a")
    assert [event.event for event in await database.journal()] == ["baseline", "baseline"]
    assert (await bring(database, declaration)).problem is None
    assert [exists(way.direct, name) for name in "abc"] == [False, False, True]
    await database.close()


async def test_a_lock_is_shown_and_freed_by_a_persons_word(way: Way) -> None:
    database, person = way.database(), way.database()
    assert (await bring(database, declare(FILES, 1))).problem is None
    with pytest.raises(ProblemError) as caught:
        async with database.writer(actor(), acquire_timeout=5) as writer:
            state = await person.read_lock()
            assert state.held
            assert state.owner == actor().owner
            assert state.leased is way.leased
            assert (state.session is None) is way.leased
            await person.unlock(state, actor(), "it hangs")
            await writer.confirm_lock()
    assert caught.value.problem.reason in (Reason.LOCK_LOST, Reason.CONNECTION_FAILED)
    assert not (await person.read_lock()).held
    assert "unlock" in [event.event for event in await person.journal()]
    # what was shown is not so any more
    with pytest.raises(ProblemError) as caught:
        await person.unlock(state, actor(), "again")
    assert caught.value.problem.reason is Reason.REPAIR_REFUSED
    assert (await bring(person, declare(FILES, 2))).problem is None
    await database.close()
    await person.close()


async def test_the_journal_tells_in_order(way: Way) -> None:
    database = way.database()
    assert (await bring(database, declare(FILES, 2))).problem is None
    assert (await bring(database, declare(FILES, 1))).problem is None
    told = await database.journal()
    assert [
        (event.version, event.event, event.direction) for event in told if event.event != "statement"
    ] == [
        (1, "started", "up"),
        (1, "finished", "up"),
        (2, "started", "up"),
        (2, "finished", "up"),
        (2, "started", "down"),
        (2, "finished", "down"),
    ]
    assert [event.at for event in told] == sorted(event.at for event in told)
    assert {event.outcome for event in told if event.event == "finished"} == {"success"}
    assert (await database.journal(limit=2)) == told[-2:]
    assert {event.version for event in await database.journal(1)} == {1}
    await database.close()


async def test_what_is_cancelled_is_rolled_back_and_said(way: Way) -> None:
    database, other = way.database(), way.database()
    running = asyncio.create_task(bring(database, declare(slow(60), 2)))
    await until_begun(other, 2)
    # it is on its way to the server once its row or its transaction is there
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert applied(way.direct) == [1]
    assert rows(way.direct, "SELECT * FROM a") == []
    assert (await other.observe()).holder is None
    newest = (await other.journal(2))[-1]
    assert (newest.event, newest.outcome) == ("finished", "interrupted")
    assert (await bring(other, declare(slow(0), 2))).problem is None
    await database.close()
    await other.close()


async def test_an_attempt_at_the_lock_that_is_cancelled_leaves_none_behind(way: Way) -> None:
    database, other = way.database(), way.database()
    assert (await bring(database, declare(FILES, 1))).problem is None
    for pause in range(12):
        running = asyncio.create_task(bring(database, declare(FILES, 1 + pause % 2)))
        await asyncio.sleep(pause / 400)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until_free(other)
    await database.close()
    await other.close()


async def test_while_nothing_changes_it_is_the_same_object(way: Way) -> None:
    database = way.database()
    assert (await bring(database, declare(FILES, 2))).problem is None
    seen = await database.observe()
    assert await database.observe() is seen
    await database.close()
    assert await database.observe() is seen
    other = way.database()
    assert (await bring(other, declare(FILES, 3))).problem is None
    after = await database.observe()
    assert (seen.current_version, after.current_version) == (2, 3)
    await other.request_retry(actor())
    assert await database.observe() is not after
    await database.close()
    await other.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM schema_migrations WHERE version = 2",
        "UPDATE schema_migrations SET checksum = 'x' WHERE version = 1",
        "UPDATE schema_migrations SET git_revision = 'x' WHERE version = 1",
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (7, 'x', 'x')",
        "UPDATE schema_migrations_lock SET environment = 'staging'",
        "DELETE FROM schema_migrations_lock",
        "DROP TABLE schema_migrations",
    ],
)
async def test_a_change_by_hand_is_seen(way: Way, change: str) -> None:
    database = way.database()
    assert (await bring(database, declare(FILES, 2))).problem is None
    before = await database.observe()
    assert await database.observe() is before
    rows(way.direct, change)
    assert await database.observe() is not before
    await database.close()


async def test_a_database_that_cannot_be_reached_says_so(way: Way) -> None:
    database = database_at(f"{way.dsn} port=1", connect_timeout=5)
    with pytest.raises(ProblemError) as caught:
        await database.observe()
    assert caught.value.problem.reason is Reason.CONNECTION_FAILED
    await database.close()
