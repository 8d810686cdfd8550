"""Attempts whose process or connection ended before their end could be recorded: the journal tells of it all the same."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.applying import actor, bring, database_at, declare, migration, table
from tests.cutting import cut_off
from tests.looking import journal, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reconciler.model import Database

SLOW = {"1_a.sql": table("a"), "2_slow.sql": migration("SELECT pg_sleep(1.5);")}
ASLEEP = "wait_event = 'PgSleep'"
GO_ON = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    database = database_at(dsn)
    try:
        yield database
    finally:
        await database.close()


def ends(dsn: str, version: int) -> list[tuple[str, str | None]]:
    """Outcome and reason of every attempt at `version` that has ended."""
    return [
        (each["outcome"], each["reason"]) for each in journal(dsn, "finished") if each["version"] == version
    ]


def without_an_end(dsn: str) -> list[tuple[int]]:
    return rows(
        dsn,
        "SELECT version FROM schema_migrations_journal AS begun WHERE event = 'started' AND NOT EXISTS ("
        "SELECT FROM schema_migrations_journal AS done WHERE event = 'finished' AND done.attempt = begun.attempt)",
    )


async def test_whoever_takes_the_lock_next_records_the_end_of_what_was_cut_off(any_database: str) -> None:
    await cut_off(any_database, SLOW, 2, ASLEEP)
    assert without_an_end(any_database) == [(2,)]
    async with opened(any_database) as database:
        await bring(database, declare(SLOW, 2), as_actor=replace(actor(), host="next", pid=77))
    assert without_an_end(any_database) == []
    assert ends(any_database, 2) == [("interrupted", "Interrupted"), ("success", None)]
    begun, end = journal(any_database, "started")[1], journal(any_database, "finished")[1]
    shared = (
        "attempt",
        "version",
        "name",
        "direction",
        "script_digest",
        "git_revision",
        "host",
        "pid",
        "verb",
    )
    assert [end[key] for key in shared] == [begun[key] for key in shared]
    assert end["fence"] == begun["fence"] + 1, "written under the next lock"
    assert end["execution_time_ms"] is None
    assert end["message"] == (
        "its process or its connection ended before its end could be recorded; so says who took the lock next: "
        "reconciler run on next, pid 77, user tester"
    )


async def test_looking_at_a_database_writes_no_end(fresh_database: str) -> None:
    await cut_off(fresh_database, SLOW, 2, ASLEEP)
    async with opened(fresh_database) as database:
        await database.observe()
        await database.observe()
        assert without_an_end(fresh_database) == [(2,)]
        # a single event is written under the lock, too
        await database.request_retry(actor())
        assert without_an_end(fresh_database) == []
        await database.request_retry(actor())
    assert ends(fresh_database, 2) == [("interrupted", "Interrupted")]


async def test_a_process_that_lived_tells_why_and_how_long(any_database: str) -> None:
    async with opened(any_database) as database:
        running = asyncio.create_task(bring(database, declare(SLOW, 2)))
        async with asyncio.timeout(20):
            while not rows(any_database, GO_ON):
                await asyncio.sleep(0.02)
            outcome = await running
        assert outcome.problem is not None
        assert (await bring(database, declare(SLOW, 2))).problem is None
    first, second = (each for each in journal(any_database, "finished") if each["version"] == 2)
    assert (first["outcome"], first["reason"]) == ("interrupted", outcome.problem.reason.value)
    assert first["message"] == outcome.problem.message
    assert "terminating connection due to administrator command" in first["message"]
    assert first["remedy"] == outcome.problem.remedy
    assert first["execution_time_ms"] is not None
    assert second["outcome"] == "success"


async def test_a_process_that_lived_tells_of_statements_outside_a_transaction(fresh_database: str) -> None:
    script = "INSERT INTO a VALUES (1);\nINSERT INTO a SELECT 2 FROM pg_sleep(1.5);"
    files = {"1_a.sql": table("a"), "2_slow.sql": migration(script, directive="no-transaction")}
    async with opened(fresh_database) as database:
        running = asyncio.create_task(bring(database, declare(files, 2)))
        async with asyncio.timeout(20):
            while not rows(fresh_database, GO_ON):
                await asyncio.sleep(0.02)
            outcome = await running
        assert outcome.problem is not None
        assert (await bring(database, declare(files, 2))).problem is None
    assert ends(fresh_database, 2) == [("interrupted", outcome.problem.reason.value), ("success", None)]
    first, second = (each for each in journal(fresh_database, "started") if each["version"] == 2)
    assert (first["statement_index"], first["message"]) == (None, None)
    assert (second["statement_index"], second["message"]) == (2, "went on at statement 2 of 2")


async def test_what_a_person_said_who_ended_the_session_is_told(fresh_database: str) -> None:
    async with opened(fresh_database) as database, opened(fresh_database) as other:
        running = asyncio.create_task(bring(database, declare(SLOW, 2)))
        async with asyncio.timeout(20):
            while not rows(
                fresh_database,
                f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {ASLEEP}",
            ):
                await asyncio.sleep(0.02)
            await other.unlock(await other.read_lock(), actor(), "it hangs, INC-7")
            await running
        # another process: it knows no more than the journal
        assert (await bring(other, declare(SLOW, 2))).problem is None
    (said,) = journal(fresh_database, "unlock")
    (end, _) = (each for each in journal(fresh_database, "finished") if each["version"] == 2)
    assert end["message"] == f"its session was ended by `unlock`: {said['message']}"
    assert said["message"].endswith("it hangs, INC-7")


async def test_only_the_newest_events_are_looked_at(fresh_database: str) -> None:
    async with opened(fresh_database) as database:
        await bring(database, declare({"1_a.sql": table("a")}, 1))
        rows(
            fresh_database,
            "INSERT INTO schema_migrations_journal (recorded_at, attempt, event, version) "
            "SELECT clock_timestamp() - interval '1 day' + n * interval '1 second', gen_random_uuid(), "
            "       CASE n WHEN 0 THEN 'started' ELSE 'refused' END, 9 FROM generate_series(0, 400) AS n",
        )
        await database.request_retry(actor())
        assert without_an_end(fresh_database) == [(9,)]
