"""`COPY ... FROM stdin` with its rows in the file: streamed within the step's transaction, failures named by row."""

from __future__ import annotations

import asyncio
import subprocess

import psycopg
import pytest

from reconciler.model import Reason
from tests.applying import bring, database_at, declare, migration
from tests.command_line import execute, execute_on_terminal
from tests.daemon import manifest
from tests.faults.proxy import Frame, Harm, Proxy
from tests.faults.stage import through
from tests.git import Repository
from tests.servers import TestServer
from tests.wire import Loop

TABLE = "CREATE TABLE t (id int PRIMARY KEY, word text);"


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_rows_go_with_the_statements_around_them(any_database: str) -> None:
    database = database_at(any_database)
    up = (
        f"\\restrict k3y\n{TABLE}\nCOPY t (id, word) FROM stdin;\n"
        "1\tit's; -- no comment \"\n2\t\\N\n3\t$$ /* zażółć\n\\.\n"
        "SELECT count(*) FROM t;\nCOPY t FROM STDIN WITH (FORMAT csv, HEADER); -- more\n"
        'id,word\n4,"two\nlines; \'"\n\\.\n'
        "COPY t FROM stdin;\n\\.\nUPDATE t SET word = word || '%' WHERE id = 1\n;\n\\unrestrict k3y\n"
    )
    outcome = await bring(database, declare({"1_t.sql": migration(up, "DROP TABLE t;")}, 1))
    assert outcome.problem is None
    assert rows(any_database, "SELECT * FROM t ORDER BY id") == [
        (1, "it's; -- no comment \"%"),
        (2, None),
        (3, "$$ /* zażółć"),
        (4, "two\nlines; '"),
    ]
    await database.close()


async def test_a_marker_among_the_rows_is_a_row(fresh_database: str) -> None:
    database = database_at(fresh_database)
    up = "CREATE TABLE t (word text);\nCOPY t FROM stdin;\n-- UP MIGRATION\n-- DOWN MIGRATION\n\\.\n"
    files = {"1_t.sql": migration(up, "COPY t FROM stdin;\n-- DOWN MIGRATION\n\\.\nDROP TABLE t;")}
    assert (await bring(database, declare(files, 1))).problem is None
    assert rows(fresh_database, "SELECT * FROM t") == [("-- UP MIGRATION",), ("-- DOWN MIGRATION",)]
    assert (await bring(database, declare(files, 0))).problem is None
    await database.close()


async def test_fifty_thousand_rows_and_a_talkative_trigger(any_database: str) -> None:
    database = database_at(any_database)
    shouting = (
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE NOTICE 'row % %', NEW.id, repeat('x', 500); RETURN NEW; END $$;\n"
        "CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION shout();\n"
    )
    data = "".join(f"{number}\tword {number} é\n" for number in range(50_000))
    up = f"{TABLE}\n{shouting}COPY t FROM stdin;\n{data}\\.\nCREATE INDEX ON t (word);"
    outcome = await bring(database, declare({"1_t.sql": migration(up, "DROP TABLE t;")}, 1))
    assert outcome.problem is None
    assert rows(any_database, "SELECT count(*), max(id) FROM t") == [(50_000, 49_999)]
    await database.close()


@pytest.mark.parametrize(
    ("data", "place", "excerpt", "sqlstate"),
    [
        ("1\ta\n2\tb\nthree\tc\n4\td\n", "1_t.sql:6:1", "three\tc\n^", "22P02"),
        ("1\ta\n2\tb\n1\tc\n", "1_t.sql:6:1", "1\tc\n^", "23505"),
        ("1\ta\n2\n", "1_t.sql:5:1", "2\n^", "22P04"),
    ],
)
async def test_a_row_that_fails_is_named(
    any_database: str, data: str, place: str, excerpt: str, sqlstate: str
) -> None:
    database = database_at(any_database)
    up = f"{TABLE}\nCOPY t FROM stdin;\n{data}\\.\nSELECT 1;"
    outcome = await bring(database, declare({"1_t.sql": migration(up)}, 1))
    problem = outcome.problem
    assert problem is not None
    assert problem.reason is Reason.STATEMENT_FAILED
    assert str(problem.place) == f"migrations/{place}"
    assert (problem.excerpt, problem.sqlstate, problem.statement_index) == (excerpt, sqlstate, 2)
    assert "COPY t, line" in problem.detail
    assert "of 3" in problem.message
    with psycopg.connect(any_database) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
        kept = connection.execute(
            "SELECT excerpt, line FROM schema_migrations_journal WHERE outcome = 'failed'"
        ).fetchall()
    # values of rows are not kept for ever
    assert kept == [(None, problem.place.line if problem.place else 0)]
    await database.close()


@pytest.mark.parametrize(
    ("up", "place", "excerpt"),
    [
        (f"{TABLE}\nCOPY nobody FROM stdin;\n1\ta\n\\.\nSELECT 1;", "3:1", "COPY nobody FROM stdin;\n^"),
        (
            f"{TABLE}\nCOPY t FROM stdin;\n1\té\n\\.\nSELECT 'é', nope;",
            "6:13",
            "SELECT 'é', nope;\n            ^",
        ),
        (f"\\restrict k\n{TABLE}\nSELECT nope;\nCOPY t FROM stdin;\n1\ta\n\\.\n", "4:8", None),
        (f"{TABLE}\nCOPY t FROM stdin;\n1\ta\n\\.\nSELECT FROM WHERE;", "6:13", None),
    ],
)
async def test_errors_around_the_rows_name_their_place(
    any_database: str, up: str, place: str, excerpt: str | None
) -> None:
    database = database_at(any_database)
    problem = (await bring(database, declare({"1_t.sql": migration(up)}, 1))).problem
    assert problem is not None
    assert str(problem.place) == f"migrations/1_t.sql:{place}"
    assert excerpt is None or problem.excerpt == excerpt
    # the session is as good as before
    assert (await bring(database, declare({"1_t.sql": migration(TABLE)}, 1))).problem is None
    await database.close()


async def test_a_stop_in_the_midst_of_rows_rolls_them_back(any_database: str) -> None:
    database = database_at(any_database)
    slow = (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow();"
    )
    data = "".join(f"{number}\t{'x' * 500}\n" for number in range(40_000))
    files = {"1_t.sql": migration(f"{TABLE}{slow}\nCOPY t FROM stdin;\n{data}\\.\nSELECT 1;")}
    work = asyncio.create_task(bring(database, declare(files, 1)))
    async with await psycopg.AsyncConnection.connect(
        any_database, autocommit=True, prepare_threshold=None
    ) as connection:
        async with asyncio.timeout(20):
            while True:
                cursor = await connection.execute("SELECT tuples_processed > 5 FROM pg_stat_progress_copy")
                if (await cursor.fetchone()) == (True,):
                    break
                await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await work
        cursor = await connection.execute(
            "SELECT outcome, to_regclass('t') FROM schema_migrations_journal WHERE event = 'finished'"
        )
        assert await cursor.fetchall() == [("interrupted", None)]
    await database.close()


MANY = "".join(f"{number}\t{'x' * 500}\n" for number in range(20_000))


async def test_a_backend_that_ends_before_it_takes_the_rows_is_noticed(any_database: str) -> None:
    database = database_at(any_database)
    up = f"{TABLE}\nCOPY t FROM stdin;\n{MANY}\\.\nSELECT 1;"
    end = "DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$;\n"
    problem = (await bring(database, declare({"1_t.sql": migration(end + up)}, 1))).problem
    assert problem is not None
    assert problem.reason is Reason.CONNECTION_FAILED
    assert (await bring(database, declare({"1_t.sql": migration(up)}, 1))).problem is None
    await database.close()


@pytest.mark.parametrize("directive", ["", "no-transaction"])
@pytest.mark.parametrize("linger", [0.0, 0.3])
async def test_a_connection_cut_in_the_midst_of_rows_loses_none_and_doubles_none(
    any_server: TestServer, any_database: str, directive: str, linger: float
) -> None:
    """Megabytes have arrived, half a message follows, and the line is dead."""
    up = (
        "CREATE TABLE t (id int, word text);\nCOPY t FROM stdin;\n0\tfirst\n\\.\n"
        f"COPY t FROM stdin;\n{MANY}\\.\nSELECT 1;"
    )
    files = {"1_t.sql": migration(up, "DROP TABLE t;", directive)}
    arrived = 0

    def midway(frame: Frame) -> bool:
        nonlocal arrived
        arrived += len(frame.data) if frame.is_rows else 0
        return arrived > len(MANY) // 2

    harm = Harm(midway, portion=0.5, linger=linger)
    socket = any_server.socket_directory / f".s.PGSQL.{any_server.port}"
    with Loop() as loop, Proxy(loop, socket) as proxy:
        proxy.arm(harm)
        name = str(rows(any_database, "SELECT current_database()")[0][0])
        database = database_at(through(proxy, name))
        problem = (await bring(database, declare(files, 1))).problem
        assert harm.done.is_set()
        assert problem is not None
        assert problem.reason is Reason.CONNECTION_FAILED
        assert problem.remedy
        outcome = await bring(database, declare(files, 1))
        assert outcome.problem is None
        await database.close()
    assert rows(any_database, "SELECT count(*), count(DISTINCT id), sum(length(word)) FROM t") == [
        (20_001, 20_000, 500 * 20_000 + len("first"))
    ]
    assert rows(any_database, "SELECT status FROM schema_migrations") == [("success",)]


DRY = migration(
    f"{TABLE}\nCOPY t (id, word) FROM stdin;\n"
    + "".join(f"{number}\tit's; $$ \\\\ {number}\n" for number in range(500))
    + '\\.\nCOPY t FROM STDIN WITH (FORMAT csv);\n500,"two\nlines; \'"\n\\.\nSELECT 1;',
    "DROP TABLE t;",
)


def test_a_dry_run_can_be_given_to_psql(
    git_repository: Repository, server: TestServer, fresh_database: str
) -> None:
    files = {"migrations/1_t.sql": DRY, "manifests/dev.yaml": manifest(fresh_database, 1)}
    git_repository.commit(files={**files})
    dry = execute("up", "--dry-run", folder=git_repository.path)
    assert dry.exit == 3
    assert rows(fresh_database, "SELECT to_regclass('t')") == [(None,)]
    psql = [server.installation.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", fresh_database]
    run = subprocess.run(psql, input=dry.out, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    sent = rows(fresh_database, "SELECT * FROM t ORDER BY id")
    assert len(sent) == 501
    rows_of_a_dry_run = execute("up", "--dry-run", "--output", "json", folder=git_repository.path).json
    statements = rows_of_a_dry_run["databases"][0]["plan"]["steps"][0]["statements"]
    assert [each.get("copy_data", "").count("\n") for each in statements] == [0, 500, 2, 0]
    with psycopg.connect(fresh_database) as connection:
        connection.execute("DROP TABLE t")
    assert execute("up", folder=git_repository.path).exit == 0
    assert rows(fresh_database, "SELECT * FROM t ORDER BY id") == sent


def test_a_dry_run_at_a_terminal_shows_the_first_rows_as_a_comment(
    git_repository: Repository, fresh_database: str
) -> None:
    files = {"migrations/1_t.sql": DRY, "manifests/dev.yaml": manifest(fresh_database, 1)}
    git_repository.commit(files={**files})
    shown = execute_on_terminal("up", "--dry-run", folder=git_repository.path).out
    assert "\n-- COPY t (id, word) FROM stdin;\n-- 0\t" in shown
    assert "\n-- and 490 more lines: " in shown
    assert "\nCOPY t FROM STDIN WITH (FORMAT csv);\n500," in shown
