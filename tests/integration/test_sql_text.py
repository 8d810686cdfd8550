"""What `reconciler.sqltext` claims of the server, asked of the server."""

from __future__ import annotations

import psycopg
from hypothesis import Phase, given, settings

from reconciler.model import Script
from reconciler.sqltext import split
from tests.applying import bring, database_at, declare, migration
from tests.unit.sqltext.scripts import TABLES, Built, scripts
from tests.unit.sqltext.test_analysis import WHOLE
from tests.unit.sqltext.test_classification import FITS_A_TRANSACTION, STANDS_ALONE

ACTIVE_TRANSACTION = "25001"
SYNTAX_ERROR = "42601"

OBJECTS = """
CREATE SCHEMA a;
CREATE TABLE a.t (a int) PARTITION BY LIST (a);
CREATE TABLE a.p PARTITION OF a.t FOR VALUES IN (1);
CREATE TABLE t (a int, a$b$ int, "end" int);
CREATE TABLE u (a int);
CREATE TABLE v (a int);
CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false);
"""


def outcome(connection: psycopg.Connection, sql: str) -> tuple[str | None, int]:
    """Run `sql` in a transaction that is rolled back: the SQLSTATE, None for success, and how many results came."""
    results = 0
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql.encode())
            results = 1
            while cursor.nextset():
                results += 1
        return None, results
    except psycopg.Error as error:
        return error.sqlstate, results
    finally:
        connection.rollback()


def test_the_server_agrees_on_what_needs_autocommit(any_database: str) -> None:
    with psycopg.connect(any_database) as connection:
        connection.execute(OBJECTS.encode())
        connection.commit()
        # these two complain of the subscription's state first
        alone = [sql for sql in STANDS_ALONE if not sql.startswith("ALTER SUBSCRIPTION")]
        codes = {sql: outcome(connection, f"SELECT 1; {sql}")[0] for sql in [*alone, *FITS_A_TRANSACTION]}
        connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        connection.execute("DROP SUBSCRIPTION s")
    known = {sql for sql, code in codes.items() if code != SYNTAX_ERROR}
    assert len(codes) - len(known) <= 1, "a server knows all but the newest syntax"
    assert {sql for sql in known if codes[sql] == ACTIVE_TRANSACTION} == known.intersection(alone)


def test_the_server_counts_as_many_statements(any_database: str) -> None:
    counted = 0
    with psycopg.connect(any_database) as connection:
        connection.execute(OBJECTS.replace("CREATE SUBSCRIPTION", "-- ").encode())
        connection.commit()
        for whole in WHOLE:
            text = f"SELECT 1; {whole} ; -- é\n ;; SELECT 9"
            code, results = outcome(connection, text)
            # the server's parser goes through all of the text before the first statement runs
            assert code != SYNTAX_ERROR, whole
            if code is None:
                assert results == len(split(Script(text, "x.sql", 1))) == 3, whole
                counted += 1
    assert counted > len(WHOLE) // 2


async def test_the_server_runs_what_scripts_are_made_of(fresh_database: str) -> None:
    built: list[Built] = []

    @settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate])
    @given(scripts())
    def collect(each: Built) -> None:
        built.append(each)

    collect()
    files = {"1_tables.sql": migration(TABLES)}
    files |= {f"{version}_x.sql": migration(each.text) for version, each in enumerate(built, 2)}
    database = database_at(fresh_database)
    outcome = await bring(database, declare(files, len(files)))
    await database.close()
    assert outcome.problem is None
    with psycopg.connect(fresh_database) as connection:
        stored = connection.execute("SELECT a FROM t ORDER BY number").fetchall()
    assert len(stored) > 100
    assert [value for (value,) in stored] == [value for each in built for value in each.stores]
