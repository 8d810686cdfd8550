"""Tables that an earlier version of this program made are read as they are, and completed by the first run that writes."""

from __future__ import annotations

import psycopg
import pytest

from reconciler.model import Direction, Hook, HookMoment, HookOccasion, HookResult, RowStatus
from reconciler.sqltext import token_checksum
from tests.applying import CLAIM, actor, bring, catalog_of, database_at, declare, migration, table
from tests.command_line import CommandLine
from tests.looking import applied, rows

FILES = {"1_a.sql": table("a"), "2_b.sql": table("b")}

HISTORY = """
CREATE TABLE schema_migrations (
    version BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp,
    checksum VARCHAR(64) NOT NULL,
    execution_time_ms INTEGER,
    status VARCHAR(20) DEFAULT 'success',
    error_message TEXT,
    direction VARCHAR(4) NOT NULL DEFAULT 'up',
    path TEXT,
    token_checksum VARCHAR(64),
    down_script TEXT,
    down_checksum VARCHAR(64),
    down_first_line INTEGER,
    transactional BOOLEAN NOT NULL DEFAULT true,
    no_transaction BOOLEAN NOT NULL DEFAULT false,
    irreversible BOOLEAN NOT NULL DEFAULT false,
    lock_timeout DOUBLE PRECISION,
    statement_timeout DOUBLE PRECISION,
    statements_done INTEGER NOT NULL DEFAULT 0,
    statements_total INTEGER NOT NULL DEFAULT 0,
    statements_digest VARCHAR(64),
    git_revision VARCHAR(64),
    tool_version VARCHAR(32)
);
"""
JOURNAL = """
CREATE TABLE schema_migrations_journal (
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    id UUID NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    attempt UUID NOT NULL,
    event VARCHAR(20) NOT NULL,
    version BIGINT,
    name VARCHAR(255),
    direction VARCHAR(4),
    outcome VARCHAR(20),
    script_source VARCHAR(20),
    script_digest VARCHAR(64),
    policy_digest VARCHAR(64),
    execution_time_ms INTEGER,
    reason VARCHAR(64),
    message TEXT,
    remedy TEXT,
    sqlstate VARCHAR(5),
    path TEXT,
    line INTEGER,
    column_number INTEGER,
    excerpt TEXT,
    statement_index INTEGER,
    git_revision VARCHAR(64),
    git_author TEXT,
    environment TEXT,
    database_name TEXT,
    verb VARCHAR(20),
    os_user TEXT,
    database_user TEXT NOT NULL DEFAULT session_user,
    host TEXT,
    pid INTEGER,
    tool_version VARCHAR(32),
    fence BIGINT,
    PRIMARY KEY (recorded_at, id)
);
"""
LOCK = """
CREATE TABLE schema_migrations_lock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    owner UUID,
    holder TEXT,
    mode VARCHAR(10),
    fence BIGINT NOT NULL,
    since TIMESTAMPTZ,
    renewed_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ,
    environment TEXT,
    database_name TEXT,
    repository TEXT
);
"""
INTENTS = """
ALTER TABLE schema_migrations
    ADD COLUMN intent_digest VARCHAR(64), ADD COLUMN intent_object TEXT, ADD COLUMN intent_before VARCHAR(10);
"""
BLOCKERS = "ALTER TABLE schema_migrations_journal ADD COLUMN blockers TEXT;"
EARLIER = {
    "before intents": HISTORY + JOURNAL + LOCK,
    "with intents": HISTORY + INTENTS + JOURNAL + LOCK,
    "with blockers": HISTORY + INTENTS + JOURNAL + BLOCKERS + LOCK,
}


@pytest.fixture(params=EARLIER)
def earlier(any_database: str, request: pytest.FixtureRequest) -> str:
    """A database where migration 1 was applied by an earlier version, and its DSN."""
    found = catalog_of(FILES).get(1)
    assert found is not None
    assert found.down is not None
    with psycopg.connect(any_database, autocommit=True) as connection:
        connection.execute((EARLIER[request.param] + found.up.text).encode())
        connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum, token_checksum, path, down_script, down_checksum, "
            "down_first_line, statements_done, statements_total) VALUES (1, 'a', %s, %s, %s, %s, %s, %s, 1, 1)",
            [
                found.checksum,
                token_checksum(found.up.text),
                found.path,
                found.down.text,
                found.down_checksum,
                found.down.first_line,
            ],
        )
        connection.execute(
            "INSERT INTO schema_migrations_journal (attempt, event, version, name, direction, outcome) "
            "SELECT a, e, 1, 'a', 'up', o FROM (SELECT gen_random_uuid() AS a) attempt, "
            "(VALUES ('started', NULL), ('finished', 'success')) event (e, o)"
        )
        connection.execute(
            "INSERT INTO schema_migrations_lock (id, fence, environment, database_name, repository) VALUES (1, 1, %s, %s, %s)",
            [CLAIM.environment, CLAIM.database, CLAIM.repository],
        )
    return any_database


def test_they_are_read_as_they_are(earlier: str, reconciler: CommandLine) -> None:
    before = rows(
        earlier,
        "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum > 0 ORDER BY 1, attnum",
    )
    status = reconciler("status", "--dsn", earlier)
    assert (status.exit, status.err) == (0, "")
    history = reconciler("history", "--dsn", earlier, "--version", "1")
    assert (history.exit, "applied at" in history.out) == (0, True), history.err
    after = rows(
        earlier,
        "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum > 0 ORDER BY 1, attnum",
    )
    assert after == before, "looking changes nothing"


async def test_the_first_run_that_writes_completes_them(earlier: str) -> None:
    database = database_at(earlier)
    seen = await database.observe()
    assert [(row.version, row.status) for row in seen.rows] == [(1, RowStatus.SUCCESS)]
    assert seen.claim == CLAIM, "whom it belongs to is known before anything is written"
    outcome = await bring(database, declare(FILES, 2))
    assert (outcome.problem, [step.version for step, _ in outcome.applied]) == (None, [2])
    assert (await database.observe()).initialised
    async with database.writer(actor(), acquire_timeout=1) as writer:
        occasion = HookOccasion(
            moment=HookMoment.BEFORE,
            environment="dev",
            database="orders",
            from_version=1,
            target_version=2,
            revision="",
        )
        await writer.record_hook(
            HookResult(hook=Hook(command=("backup",)), occasion=occasion, duration=1.0, artefact="b.dump")
        )
    assert [event.details.get("artefact") for event in await database.journal() if event.event == "hook"] == [
        "b.dump"
    ]
    outcome = await bring(database, declare(FILES, 0))
    assert (outcome.problem, [step.direction for step, _ in outcome.applied]) == (None, [Direction.DOWN] * 2)
    await database.close()


async def test_a_failure_on_them_is_recorded(earlier: str) -> None:
    database = database_at(earlier)
    outcome = await bring(database, declare({**FILES, "2_b.sql": migration("SELECT 1/0;")}, 2))
    assert outcome.problem is not None
    assert (await database.journal())[-1].outcome == "failed"
    assert applied(earlier) == [1]
    await database.close()
