"""What to look at when nobody saw how a change of CockroachDB's schema ended."""

from __future__ import annotations

import pytest

from reconciler.model import Statement
from reconciler.sqltext import LOOKED_AT, OPAQUE, REPEATABLE, UNNAMED, Intent, cockroachdb_intent_of

TELLING = [
    ("CREATE TABLE a.t (id INT)", "table a.t"),
    ("create table T as select 1", "table T"),
    ('CREATE TABLE "odd ""name" (id INT)', 'table "odd ""name"'),
    ("DROP TABLE t, u CASCADE", "no-table t"),
    ("CREATE INDEX i ON t (a)", "index i of t"),
    ("CREATE UNIQUE INDEX CONCURRENTLY i ON a.t (a) USING HASH", "index i of a.t"),
    ("CREATE INVERTED INDEX i ON t (a)", "index i of t"),
    ("CREATE VECTOR INDEX i ON t (a)", "index i of t"),
    ("DROP INDEX a.t@i, t@j", "no-index i of a.t"),
    ("DROP INDEX CONCURRENTLY i CASCADE", "no-index i"),
    ("ALTER INDEX t@i RENAME TO j", "index j of t"),
    ("ALTER INDEX i RENAME TO j", "index j"),
    ("CREATE VIEW v AS SELECT 1", "view v"),
    ("CREATE MATERIALIZED VIEW v AS SELECT 1", "view v"),
    ("DROP MATERIALIZED VIEW v", "no-view v"),
    ("ALTER VIEW s.v RENAME TO w", "view s.w"),
    ("ALTER MATERIALIZED VIEW v SET SCHEMA s", "view s.v"),
    ("CREATE SEQUENCE s START 5", "sequence s"),
    ("DROP SEQUENCE s", "no-sequence s"),
    ("ALTER SEQUENCE s RENAME TO r", "sequence r"),
    ("CREATE TYPE e AS ENUM ('a')", "type e"),
    ("DROP TYPE e", "no-type e"),
    ("ALTER TYPE s.e RENAME TO f", "type s.f"),
    ("ALTER TYPE e SET SCHEMA s", "type s.e"),
    ("ALTER TYPE e ADD VALUE 'x''y' BEFORE 'a'", "value 'x''y' of e"),
    ("ALTER TYPE e DROP VALUE 'x'", "no-value 'x' of e"),
    ("ALTER TYPE e RENAME VALUE 'x' TO 'y'", "value 'y' of e"),
    ("CREATE SCHEMA s AUTHORIZATION bob", "schema s"),
    ("CREATE SCHEMA AUTHORIZATION bob", "schema bob"),
    ("DROP SCHEMA s CASCADE", "no-schema s"),
    ("ALTER SCHEMA s RENAME TO r", "schema r"),
    ("CREATE DATABASE d PRIMARY REGION 'eu'", "database d"),
    ("DROP DATABASE d CASCADE", "no-database d"),
    ("ALTER DATABASE d RENAME TO c", "database c"),
    ("CREATE FUNCTION s.f(a INT) RETURNS INT LANGUAGE SQL AS 'SELECT 1'", "function s.f"),
    ("CREATE PROCEDURE p() LANGUAGE SQL AS 'SELECT 1'", "function p"),
    ("DROP FUNCTION f(INT)", "no-function f"),
    ("DROP PROCEDURE p", "no-function p"),
    ("ALTER FUNCTION s.f(INT, INT) RENAME TO g", "function s.g"),
    ("CREATE ROLE r", "role r"),
    ("CREATE USER u WITH PASSWORD 'x'", "role u"),
    ("DROP USER u", "no-role u"),
    ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "trigger g of t"),
    ("DROP TRIGGER g ON t", "no-trigger g of t"),
    ("CREATE POLICY p ON t USING (true)", "policy p of t"),
    ("ALTER POLICY p ON t RENAME TO q", "policy q of t"),
    ("DROP POLICY p ON t", "no-policy p of t"),
    ("ALTER TABLE a.t ADD COLUMN c INT", "column c of a.t"),
    ("ALTER TABLE IF EXISTS t ADD c INT", "column c of t"),
    ("ALTER TABLE t DROP COLUMN c CASCADE", "no-column c of t"),
    ("ALTER TABLE t DROP c", "no-column c of t"),
    ("ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID", "constraint k of t"),
    ("ALTER TABLE t DROP CONSTRAINT k", "no-constraint k of t"),
    ("ALTER TABLE a.t RENAME TO u", "table a.u"),
    ("ALTER TABLE a.t SET SCHEMA b", "table b.t"),
    ("ALTER TABLE t RENAME COLUMN c TO d", "column d of t"),
    ("ALTER TABLE t RENAME c TO d", "column d of t"),
    ("ALTER TABLE t RENAME CONSTRAINT k TO l", "constraint l of t"),
    # what may be void is looked at too: nothing seen, it runs once more, to no harm
    ("CREATE TABLE IF NOT EXISTS t (a INT)", "table t"),
    ("CREATE INDEX IF NOT EXISTS i ON t (a)", "index i of t"),
    ("CREATE SCHEMA IF NOT EXISTS s", "schema s"),
    ("CREATE DATABASE IF NOT EXISTS d", "database d"),
    ("CREATE TYPE IF NOT EXISTS e AS ENUM ()", "type e"),
    ("CREATE ROLE IF NOT EXISTS r", "role r"),
    ("DROP TABLE IF EXISTS t", "no-table t"),
    ("DROP INDEX IF EXISTS t@i", "no-index i of t"),
    ("DROP MATERIALIZED VIEW IF EXISTS v", "no-view v"),
    ("DROP TRIGGER IF EXISTS g ON t", "no-trigger g of t"),
    ("DROP POLICY IF EXISTS p ON t", "no-policy p of t"),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS c INT", "column c of t"),
    ("ALTER TABLE t DROP COLUMN IF EXISTS c, DROP CONSTRAINT IF EXISTS k", "no-column c of t"),
    ("ALTER TABLE t ADD CONSTRAINT IF NOT EXISTS k CHECK (a > 0)", "constraint k of t"),
    ("ALTER TYPE e ADD VALUE IF NOT EXISTS 'x'", "value 'x' of e"),
    ("ALTER TABLE t ALTER COLUMN c SET DEFAULT 1, ADD COLUMN IF NOT EXISTS d INT", "column d of t"),
    # the first action that tells
    ("ALTER TABLE t ALTER COLUMN a SET DEFAULT f(1, 2), ADD COLUMN c INT, DROP COLUMN d", "column c of t"),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS b INT, DROP COLUMN d", "no-column d of t"),
    ("ALTER TABLE t ADD CHECK (a IN (1, 2)), ADD COLUMN c INT", "column c of t"),
    ("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (a)", "no-constraint t_pkey of t"),
]


@pytest.mark.parametrize(("sql", "expected"), TELLING)
def test_what_tells(sql: str, expected: str) -> None:
    what, _, table = expected.partition(" of ")
    kind, _, name = what.partition(" ")
    assert intent(sql) == Intent(kind, name, table)
    assert kind.removeprefix("no-") in LOOKED_AT


def test_every_kind_that_is_looked_at_is_tried() -> None:
    assert {expected.split()[0].removeprefix("no-") for _, expected in TELLING} == LOOKED_AT


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE OR REPLACE FUNCTION f() RETURNS INT LANGUAGE SQL AS 'SELECT 1'",
        "CREATE EXTENSION pgcrypto",
        "CREATE STATISTICS s FROM t",
        "DROP OWNED BY bob",
        "ALTER TABLE t ALTER COLUMN c SET DEFAULT 1",
        "ALTER TABLE t ALTER c DROP DEFAULT, ALTER d SET NOT NULL, ALTER e DROP NOT NULL",
        "ALTER TABLE t ALTER COLUMN c TYPE DECIMAL(10, 2)",
        "ALTER TABLE t ALTER COLUMN c SET DATA TYPE TEXT",
        "ALTER TABLE t VALIDATE CONSTRAINT k",
        "ALTER TABLE t SET (ttl_expire_after = '1 day', x = 1)",
        "ALTER TABLE t SET LOCALITY REGIONAL BY ROW",
        "ALTER TABLE t OWNER TO bob",
        "ALTER TABLE t CONFIGURE ZONE USING num_replicas = 3, gc.ttlseconds = 100",
        "ALTER TABLE t SPLIT AT VALUES (1), (2)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "ALTER INDEX t@i NOT VISIBLE",
        "ALTER INDEX t@i CONFIGURE ZONE DISCARD",
        "ALTER TYPE e OWNER TO bob",
        "ALTER SEQUENCE s INCREMENT 2",
        "ALTER SCHEMA s OWNER TO bob",
        "ALTER DATABASE d SET timezone = 'UTC'",
        "ALTER DATABASE d ADD REGION IF NOT EXISTS 'eu'",
        "ALTER DATABASE d SURVIVE REGION FAILURE",
        "ALTER ROLE r WITH NOLOGIN",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob",
        "ALTER RANGE default CONFIGURE ZONE USING num_replicas = 5",
        "COMMENT ON TABLE t IS 'x'",
        "GRANT SELECT ON t TO bob",
        "REVOKE ALL ON t FROM bob",
        "REFRESH MATERIALIZED VIEW v",
        "ANALYZE t",
        "SET CLUSTER SETTING a.b = 'c'",
        "RESET CLUSTER SETTING a.b",
    ],
)
def test_what_may_be_run_twice(sql: str) -> None:
    assert intent(sql) == Intent(REPEATABLE)


@pytest.mark.parametrize(
    "sql",
    [
        "TRUNCATE t",
        "CALL p()",
        "DO $$ BEGIN COMMIT; END $$",
        "EXECUTE p",
        "EXPLAIN ANALYZE CREATE INDEX i ON t (a)",
        "BACKUP INTO 'gs://b'",
        "CREATE SCHEDULE FOR BACKUP INTO 'x'",
        "CREATE CHANGEFEED FOR t",
        "ALTER TABLE t ADD CHECK (a > 0)",
        "ALTER TABLE t ADD PRIMARY KEY (a)",
        "ALTER TABLE t ALTER PRIMARY KEY USING COLUMNS (a)",
        "ALTER TABLE t ALTER COLUMN c TYPE INT USING c::INT * 2",
        "ALTER TABLE t ALTER COLUMN c SET DEFAULT 1, ALTER COLUMN d TYPE INT USING (d + 1)",
        "ALTER TABLE t ALTER COLUMN c DROP STORED",
        "ALTER TABLE t ALTER COLUMN c ADD GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS c INT, ADD CHECK (a > 0)",
        "ALTER SEQUENCE s RESTART WITH 1",
        "ALTER DATABASE d ADD REGION 'eu'",
        "ALTER TABLE",
        "ALTER",
        "CREATE",
        "DROP",
        "CREATE TABLE",
        "CREATE INDEX",
        "ALTER TYPE e ADD VALUE",
        "ALTER TABLE t ADD",
        "ALTER TABLE t RENAME TO",
        "FROBNICATE t",
    ],
)
def test_what_nothing_tells_of(sql: str) -> None:
    assert intent(sql) == Intent(OPAQUE)


def test_an_index_without_a_name_is_looked_for_at_its_table() -> None:
    assert intent("CREATE INDEX ON a.t (b)") == Intent(UNNAMED, "", "a.t")


@pytest.mark.parametrize("sql", ["UPSERT INTO t VALUES (1)", "SET a = 1", "SELECT 1", "BEGIN", ""])
def test_what_a_transaction_can_hold_needs_no_intent(sql: str) -> None:
    assert intent(sql) is None


def intent(sql: str) -> Intent | None:
    return cockroachdb_intent_of(Statement(sql, 0, 1, 1))
