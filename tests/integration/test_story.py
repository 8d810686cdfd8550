"""The whole story of one migration, as a real database tells it: hooks of its runs, an unlock, where it went on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.hooks import Runner
from reconciler.hooks.listener import HookListener
from reconciler.model import Hook, HookOccasion, HookResult, Hooks, JournalEvent
from reconciler.operations import apply
from reconciler.redaction import Secret
from reconciler.report.histories import story
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.cutting import cut_off
from tests.looking import rows


class Unheard(HookListener):
    """Hears nothing."""

    def hook_started(self, hook: Hook, occasion: HookOccasion) -> None: ...

    def hook_output(self, hook: Hook, occasion: HookOccasion, line: str) -> None: ...

    def hook_finished(self, result: HookResult) -> None: ...


async def told(dsn: str, version: int) -> tuple[list[JournalEvent], str]:
    """The events of the story of a migration, and its text in one line."""
    database = database_at(dsn)
    try:
        row = next(iter(await database.applied(version)), None)
        events = await database.journal(version, 1000)
    finally:
        await database.close()
    return events, " ".join("\n".join(story(version, row, events)).split())


async def test_the_story_has_the_backup_of_the_run_and_no_other(any_database: str) -> None:
    async def secret() -> Secret:
        return Secret(any_database)

    files = {"1_a.sql": table("a"), "2_b.sql": table("b")}
    for version in (1, 2):
        backup = Hook(
            command=("sh", "-c", f"echo reconciler-artefact: dump-{version}"), timeout=20, name="backup"
        )
        database = database_at(any_database)
        outcome = await apply(
            database,
            replace(declare(files, version), hooks=Hooks(before=(backup,))),
            actor(),
            now=lambda: datetime.now(UTC),
            acquire_timeout=5.0,
            hooks=Runner(secret, Unheard(), {}),
        )
        assert outcome.problem is None
        await database.close()
    events, text = await told(any_database, 2)
    assert [event.event for event in events] == ["hook", "started", "finished"]
    assert text.startswith("migration 2 (b): applied at ")
    assert "the hook backup ran" in text
    assert "made dump-2" in text
    assert "dump-1" not in text


async def test_the_story_has_the_unlock_that_ended_an_attempt(fresh_database: str) -> None:
    files = {"1_a.sql": table("a"), "2_slow.sql": migration("SELECT pg_sleep(1.5);")}
    database, other = database_at(fresh_database), database_at(fresh_database)
    running = asyncio.create_task(bring(database, declare(files, 2)))
    async with asyncio.timeout(20):
        while not rows(
            fresh_database,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        ):
            await asyncio.sleep(0.02)
        await other.unlock(await other.read_lock(), replace(actor(), verb="unlock"), "it hangs, INC-7")
        await running
    _, text = await told(fresh_database, 2)
    assert "up began, and its session was ended by `unlock`" in text
    assert "may be running" not in text
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()
    await other.close()
    events, text = await told(fresh_database, 2)
    assert [event.event for event in events] == ["started", "unlock", "finished", "started", "finished"]
    assert "up was interrupted after" in text
    assert "the session that held the lock was ended" in text
    assert "it hangs, INC-7" in text


async def test_the_story_says_where_an_attempt_went_on(fresh_database: str) -> None:
    script = (
        "INSERT INTO a VALUES (1);\nINSERT INTO a SELECT 2 FROM pg_sleep(1.5);\nINSERT INTO a VALUES (3);"
    )
    files = {"1_a.sql": table("a"), "2_slow.sql": migration(script, directive="no-transaction")}
    await cut_off(fresh_database, files, 2, "wait_event = 'PgSleep'")
    database = database_at(fresh_database)
    assert (await bring(database, declare(files, 2))).problem is None
    await database.close()
    _, text = await told(fresh_database, 2)
    begun, _, went_on = text.partition("up was interrupted")[2].partition("up done in ")
    assert "went on" not in begun
    assert "went on at statement 2 of 3" in went_on
