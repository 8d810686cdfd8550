"""What needs autocommit, what controls a transaction, what loses data."""

from __future__ import annotations

import pytest

from reconciler.model import Directives, ProblemError, Script
from reconciler.sqltext import Analysis, analyse, transactional


def analysed(text: str) -> Analysis:
    return analyse(Script(text, "x.sql", 1), strict=True)


STANDS_ALONE = [
    "CREATE INDEX CONCURRENTLY i ON t (a)",
    "create unique index concurrently if not exists i on t (a)",
    "CREATE INDEX CONCURRENTLY ON t (a)",
    "DROP INDEX CONCURRENTLY IF EXISTS i",
    "REINDEX INDEX CONCURRENTLY i",
    "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
    "REINDEX (CONCURRENTLY true) TABLE t",
    "REINDEX DATABASE d",
    "REINDEX (VERBOSE) SCHEMA s",
    "REINDEX SYSTEM d",
    "VACUUM",
    "VACUUM (FULL) t",
    "CLUSTER",
    "CLUSTER (VERBOSE)",
    "CREATE DATABASE d",
    "DROP DATABASE IF EXISTS d",
    "ALTER DATABASE d SET TABLESPACE s",
    "CREATE TABLESPACE s LOCATION '/s'",
    "DROP TABLESPACE s",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "DISCARD ALL",
    "ALTER TABLE a.t DETACH PARTITION a.p CONCURRENTLY",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
    "DROP SUBSCRIPTION s",
    "ALTER SUBSCRIPTION s REFRESH PUBLICATION",
    "ALTER SUBSCRIPTION s SET PUBLICATION p",
    "ALTER SUBSCRIPTION s SET (failover = true)",
    "COMMIT PREPARED 'x'",
]


@pytest.mark.parametrize("sql", STANDS_ALONE)
def test_needs_autocommit(sql: str) -> None:
    assert analysed(f"-- why\n{sql};").needs_autocommit == (True,)


FITS_A_TRANSACTION = [
    "CREATE INDEX i ON t (a)",
    'CREATE INDEX "concurrently" ON t (a)',
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
    "REINDEX TABLE t",
    "REINDEX (CONCURRENTLY false) TABLE t",
    "CLUSTER t USING i",
    "ALTER DATABASE d SET work_mem = '1MB'",
    "ALTER TABLE t DETACH PARTITION p",
    "ALTER TABLE t DETACH PARTITION p FINALIZE",
    "ALTER TABLE t ADD COLUMN detach int",
    "ALTER TYPE e ADD VALUE 'x'",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false)",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (slot_name = NONE, enabled = false, create_slot = false)",
    "ALTER SUBSCRIPTION s SET PUBLICATION p WITH (refresh = false)",
    "DISCARD PLANS",
    "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$",
    "SELECT 'CREATE INDEX CONCURRENTLY'",
    "SAVEPOINT s",
]


@pytest.mark.parametrize("sql", FITS_A_TRANSACTION)
def test_does_not_need_autocommit(sql: str) -> None:
    assert analysed(sql).needs_autocommit == (False,)


def test_a_subscription_without_its_slot_may_be_dropped_in_a_transaction() -> None:
    sql = "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s"
    assert analysed(sql).needs_autocommit == (False, False, False)


@pytest.mark.parametrize(
    "sql",
    [
        *(
            "BEGIN",
            "begin isolation level serializable",
            "START TRANSACTION READ ONLY",
            "COMMIT",
            "END WORK",
            "ABORT",
        ),
        *(
            "ROLLBACK",
            "ROLLBACK AND CHAIN",
            "PREPARE TRANSACTION 'x'",
        ),
    ],
)
def test_transaction_control(sql: str) -> None:
    control = analysed(f"SELECT 1;\n  {sql}; COMMIT").transaction_control
    assert control is not None
    assert (control.text, control.line, control.column) == (sql, 2, 3)


@pytest.mark.parametrize(
    "sql",
    [
        *(
            "SAVEPOINT s",
            "RELEASE s",
            "ROLLBACK TO s",
            "ROLLBACK WORK TO SAVEPOINT s",
            "PREPARE p AS SELECT 1",
        ),
        *("SET TRANSACTION READ ONLY", "SELECT 'BEGIN'", "DO $$ BEGIN COMMIT; END $$"),
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
    ],
)
def test_no_transaction_control(sql: str) -> None:
    assert analysed(sql).transaction_control is None


@pytest.mark.parametrize(
    ("sql", "losses"),
    [
        ("DROP TABLE customers", ["drops table customers"]),
        ('drop table if exists a.b, "C d" cascade', ["drops table a.b", 'drops table "C d"']),
        ("DROP SCHEMA s CASCADE", ["drops schema s"]),
        ("DROP DATABASE d", ["drops database d"]),
        ("DROP MATERIALIZED VIEW m", ["drops materialized view m"]),
        ("DROP OWNED BY r, q", ["drops everything owned by r", "drops everything owned by q"]),
        ("DROP TYPE mood CASCADE", ["drops type mood and every column that uses it"]),
        ("DROP TYPE mood", []),
        ("DROP VIEW v", []),
        ("DROP INDEX i", []),
        ("ALTER TABLE users DROP COLUMN email", ["drops column users.email"]),
        (
            'ALTER TABLE IF EXISTS ONLY s.users ADD x numeric(3,2), DROP IF EXISTS "E mail", ALTER a DROP DEFAULT, '
            "DROP CONSTRAINT c, DROP b CASCADE",
            ['drops column s.users."E mail"', "drops column s.users.b"],
        ),
        ("ALTER TABLE t ALTER COLUMN c DROP NOT NULL", []),
        ("ALTER TYPE pair DROP ATTRIBUTE a", ["drops attribute pair.a"]),
        ("TRUNCATE TABLE ONLY a, s.b * CASCADE", ["truncates a", "truncates s.b"]),
        ("DELETE FROM x", ["deletes every row of x"]),
        ("DELETE FROM ONLY s.x AS y USING z RETURNING *", ["deletes every row of s.x"]),
        ("DELETE FROM x WHERE true", ["deletes every row of x"]),
        ("DELETE FROM x WHERE true AND a", []),
        ("DELETE FROM x WHERE id IN (SELECT 1)", []),
        ("DELETE FROM x USING (SELECT 1 WHERE false) y", ["deletes every row of x"]),
        ("WITH d AS (DELETE FROM a RETURNING *) DELETE FROM b WHERE id = 1", ["deletes every row of a"]),
        ("WITH d AS (DELETE FROM a WHERE id = 1 RETURNING *) INSERT INTO b SELECT * FROM d", []),
        ("EXPLAIN ANALYZE DELETE FROM x", ["deletes every row of x"]),
        ("GRANT DELETE ON x TO y", []),
        ("CREATE RULE r AS ON DELETE TO t DO INSTEAD DELETE FROM u", []),
        ("SELECT 'DROP TABLE t'", []),
        ("UPDATE t SET a = 1", []),
    ],
)
def test_data_loss(sql: str, losses: list[str]) -> None:
    assert list(analysed(sql).data_loss) == losses


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT AND CHAIN",
        "end work and chain",
        "ROLLBACK AND CHAIN",
        "PREPARE TRANSACTION 'x'",
        "DISCARD ALL",
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_what_would_lose_track_is_refused_in_and_outside_a_transaction(sql: str, alone: bool) -> None:
    with pytest.raises(ProblemError, match="cannot be part of a migration"):
        transactional(Directives(no_transaction=alone), analysed(f"BEGIN; SELECT 1; {sql}"))


@pytest.mark.parametrize(
    "sql", ["COMMIT AND NO CHAIN", "END", "ROLLBACK", "DISCARD TEMP", "PREPARE x AS SELECT 1"]
)
def test_what_keeps_track_is_not(sql: str) -> None:
    assert not transactional(Directives(no_transaction=True), analysed(f"BEGIN; SELECT 1; {sql}; END"))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMP TABLE v AS SELECT 1",
        "create local temporary table v (id int) on commit delete rows",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TABLE pg_temp.v (id int)",
        "CREATE TEMPORARY SEQUENCE v",
        "CREATE TEMP RECURSIVE VIEW v (n) AS SELECT 1",
        "CREATE GLOBAL TEMP TABLE temp (id int)",
        'CREATE TABLE "pg_temp".v (id int)',
        "CREATE TABLE IF NOT EXISTS pg_temp . v (id int)",
        "CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE pg_temp.v AS (id int)",
        "SELECT 1 INTO TEMP v",
        "SELECT 1 INTO TEMP TABLE v",
        'SELECT 1 INTO TEMP "v"',
        "SELECT 1 INTO pg_temp.v",
        "SELECT 1 INTO UNLOGGED TABLE pg_temp.v",
        "WITH a AS (SELECT 1) SELECT * INTO LOCAL TEMPORARY v FROM a",
        "BEGIN; CREATE TEMP TABLE v (id int); COMMIT",
    ],
)
def test_what_ends_with_the_session_is_refused_where_another_may_go_on(sql: str) -> None:
    if not sql.startswith("BEGIN"):
        assert transactional(Directives(), analysed(sql))
    with pytest.raises(ProblemError, match="makes something that ends with the session") as caught:
        transactional(Directives(no_transaction=True), analysed(f"SELECT 1; {sql}"))
    assert caught.value.problem.remedy


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN; CREATE TEMP TABLE v (id int) ON COMMIT DROP; COMMIT",
        "CREATE TABLE temperatures (temp int)",
        "INSERT INTO temp SELECT 1",
        "INSERT INTO pg_temp.v SELECT 1",
        "SELECT 1 INTO temperatures",
        "SELECT 1 INTO temp",
        "SELECT a INTO temp FROM b",
        "SELECT a INTO temp.b FROM c",
        'SELECT 1 INTO "PG_TEMP".v',
        "CREATE INDEX CONCURRENTLY temp ON a (i)",
        "CREATE INDEX ON pg_temp.v (i)",
        "CREATE TABLE temp.x (id int)",
        "CREATE TABLE temp (i int)",
        "CREATE TABLE temp AS SELECT 1",
        "CREATE TABLE pg_temp (i int)",
        'CREATE TABLE "PG_TEMP".x (i int)',
        "CREATE TABLE v (LIKE pg_temp.x)",
        "CREATE TABLE v AS SELECT * FROM pg_temp.x",
        "CREATE SCHEMA temp",
        "CREATE VIEW temporary AS SELECT 1",
        "CREATE OR REPLACE VIEW temp AS SELECT 1",
        "CREATE TYPE temp AS (i int)",
        "CREATE ROLE temp",
        "CREATE FUNCTION temp() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DISCARD TEMP",
    ],
)
def test_what_only_sounds_temporary_runs_outside_a_transaction(sql: str) -> None:
    assert not transactional(Directives(no_transaction=True), analysed(sql))
