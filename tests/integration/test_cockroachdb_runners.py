"""Several runners, roles, schemas and an earlier tool's table on CockroachDB, as far as a simulator of it tells."""

from __future__ import annotations

import asyncio

from tests.applying import bring, database_at, declare, migration, table
from tests.cockroach.simulator import Simulator
from tests.looking import applied, rows
from tests.servers import TestServer

FILES = {
    "1_a.sql": table("a"),
    "2_data.sql": migration("INSERT INTO a VALUES (1);\nUPDATE a SET id = id + 1;", "DELETE FROM a;"),
    "3_mixed.sql": migration("CREATE TABLE b (id int);\nINSERT INTO b VALUES (3);", "DROP TABLE b;"),
}


async def test_of_runners_at_once_each_migration_is_applied_by_one(simulator: Simulator) -> None:
    databases = [database_at(simulator.dsn) for _ in range(3)]
    outcomes = await asyncio.gather(
        *(bring(database, declare(FILES, 3), acquire_timeout=30) for database in databases)
    )
    assert [outcome.problem for outcome in outcomes] == [None] * 3
    assert applied(simulator.postgresql) == [1, 2, 3]
    assert rows(simulator.postgresql, "SELECT id FROM a") == [(2,)]
    assert rows(simulator.postgresql, "SELECT id FROM b") == [(3,)]
    ended = "SELECT version, count(*) FROM schema_migrations_journal WHERE outcome = 'success' GROUP BY 1 ORDER BY 1"
    assert rows(simulator.postgresql, ended) == [(1, 1), (2, 1), (3, 1)]
    assert simulator.refusals == []
    for database in databases:
        await database.close()


async def test_a_role_and_a_schema_of_our_own(simulator: Simulator, server: TestServer) -> None:
    role = server.create_role()
    name = str(rows(simulator.postgresql, "SELECT current_database()")[0][0])
    server.execute(f"GRANT ALL ON DATABASE {name} TO {role.name}")
    server.execute(f"GRANT ALL ON SCHEMA public TO {role.name}", name)
    database = database_at(simulator.dsn, role=role.name, history_schema="bookkeeping")
    outcome = await bring(database, declare(FILES, 3))
    assert outcome.problem is None, outcome.problem
    assert rows(simulator.postgresql, "SELECT version FROM bookkeeping.schema_migrations ORDER BY 1") == [
        (1,),
        (2,),
        (3,),
    ]
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'bookkeeping')"
    assert rows(simulator.postgresql, owners) == [(role.name,)]
    assert (await bring(database, declare(FILES, 0))).problem is None
    assert (simulator.refusals, simulator.violations) == ([], [])
    await database.close()


async def test_the_table_of_an_earlier_tool_is_adopted(simulator: Simulator) -> None:
    rows(
        simulator.postgresql,
        "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name VARCHAR(255) NOT NULL, "
        "applied_at TIMESTAMP NOT NULL DEFAULT now(), checksum VARCHAR(64) NOT NULL, execution_time_ms INTEGER, "
        "status VARCHAR(20) DEFAULT 'success', error_message TEXT)",
    )
    database = database_at(simulator.dsn)
    seen = await database.observe()
    assert seen.adoptable
    assert (await bring(database, declare(FILES, 3))).problem is None
    assert applied(simulator.postgresql) == [1, 2, 3]
    assert simulator.refusals == []
    await database.close()
