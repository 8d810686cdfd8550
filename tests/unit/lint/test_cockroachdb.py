"""Rules for CockroachDB, and which rules hold for which server."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.catalog import CatalogReader
from reconciler.lint import Finding, check_catalog, errors
from reconciler.model import COCKROACHDB, POSTGRESQL, File, Revision, Snapshot

REVISION = Revision("a" * 40, "main", datetime(2025, 1, 15, tzinfo=UTC), "Ada <ada@example.org>")
SAMPLES = Path(__file__).parents[3] / "migrations"
BOTH = frozenset({POSTGRESQL, COCKROACHDB})
KEY, UNSUPPORTED, MIXED = "cockroachdb-sequential-key", "cockroachdb-unsupported", "cockroachdb-mixed"
ALTERS, TYPE = "cockroachdb-separate-alters", "cockroachdb-alter-type"
IF_EXISTS, CONCURRENTLY = "cockroachdb-if-exists", "cockroachdb-concurrently"


def check_files(files: Iterable[tuple[str, str]], engines: frozenset[str]) -> list[Finding]:
    read = {path: File(path, content, content.encode()) for path, content in files}
    return check_catalog(CatalogReader().read(Snapshot(REVISION, read, {}), "migrations"), engines)


def check(
    up: str, down: str = "SELECT 1;", *, head: str = "", engines: frozenset[str] = frozenset({COCKROACHDB})
) -> list[Finding]:
    """The findings in a file whose up begins in line 1, as far as `head` is empty."""
    text = f"{head}-- UP MIGRATION\n{up}\n-- DOWN MIGRATION\n{down}\n"
    return check_files([("migrations/1_x.sql", text)], engines)


def found(findings: Iterable[Finding], *, less: str = IF_EXISTS) -> list[tuple[str, str]]:
    """Rule and place of each, less those of a rule that is not what a test is about."""
    return [
        (each.rule, f"{each.place.line - 1}:{each.place.column}") for each in findings if each.rule != less
    ]


@pytest.mark.parametrize(
    ("up", "expected"),
    [
        ("CREATE TABLE t (id SERIAL PRIMARY KEY)", "1:17"),
        ("CREATE TABLE t (a TEXT PRIMARY KEY,\n  n bigserial)", "2:3"),
        ("CREATE TABLE t (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "1:17"),
        ("CREATE TABLE t (id INT DEFAULT nextval('s') PRIMARY KEY)", "1:17"),
        ("CREATE TABLE t (a TEXT, id INT8 DEFAULT unique_rowid(), PRIMARY KEY (id, a))", "1:25"),
        (
            'CREATE TABLE t (a TEXT, "Id" INT8 DEFAULT unique_rowid(), CONSTRAINT k PRIMARY KEY ("Id" DESC))',
            "1:25",
        ),
        ("CREATE TABLE t (at TIMESTAMPTZ DEFAULT now() PRIMARY KEY)", "1:17"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS n SERIAL", "1:40"),
        ("CREATE TABLE t (a TEXT)", "1:1"),
        ("CREATE TABLE t (id UUID PRIMARY KEY DEFAULT gen_random_uuid())", ""),
        ("CREATE TABLE t (id SERIAL PRIMARY KEY USING HASH WITH (bucket_count = 8))", ""),
        ("CREATE TABLE t (id SERIAL, PRIMARY KEY (id) USING HASH)", ""),
        ("CREATE TABLE t (tenant UUID, id SERIAL, PRIMARY KEY (tenant, id))", ""),
        ("CREATE TABLE t (a TEXT PRIMARY KEY, at TIMESTAMPTZ DEFAULT now(), n INT DEFAULT nextval('s'))", ""),
        ("CREATE TABLE t (LIKE u INCLUDING ALL)", ""),
        ("CREATE TABLE t AS SELECT 1", ""),
        ("CREATE TABLE t (a, b) AS SELECT 1, 2", ""),
        ("CREATE TABLE t (id UUID PRIMARY KEY, \"serial\" TEXT, x TEXT DEFAULT 'SERIAL')", ""),
    ],
)
def test_keys_that_only_grow(up: str, expected: str) -> None:
    assert found(check(up)) == ([(KEY, expected)] if expected else [])


@pytest.mark.parametrize(
    ("up", "expected"),
    [
        ("CREATE DOMAIN d AS INT", "1:1"),
        ("CREATE OR REPLACE RULE r AS ON INSERT TO t DO NOTHING", "1:1"),
        ("CREATE OR REPLACE AGGREGATE a (INT) (SFUNC = f, STYPE = INT)", "1:1"),
        ("CREATE TABLESPACE s LOCATION '/s'", "1:1"),
        ("CREATE PUBLICATION p FOR ALL TABLES", "1:1"),
        ("DROP PUBLICATION p", "1:1"),
        ("REINDEX TABLE t", "1:1"),
        ("VACUUM t", "1:1"),
        ("LOCK TABLE t IN EXCLUSIVE MODE", "1:1"),
        ("LISTEN c", "1:1"),
        ("NOTIFY c, 'x'", "1:1"),
        ("SET CONSTRAINTS ALL DEFERRED", "1:1"),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)\n  DEFERRABLE INITIALLY DEFERRED", "2:3"),
        ("CREATE TABLE t (id UUID PRIMARY KEY, a INT REFERENCES u (a) INITIALLY DEFERRED)", "1:71"),
        ("CREATE TABLE t (id UUID PRIMARY KEY, EXCLUDE USING gist (a WITH &&))", "1:38"),
        ("ALTER TABLE t ADD CONSTRAINT k EXCLUDE USING gist (a WITH &&)", "1:32"),
        ("CREATE TABLE t (id UUID PRIMARY KEY) INHERITS (u)", "1:38"),
        ("CREATE TABLE t (id UUID PRIMARY KEY) TABLESPACE s", "1:38"),
        ("CREATE INDEX i ON t (a) TABLESPACE s", "1:25"),
        ("ALTER TABLE t SET TABLESPACE s", "1:19"),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a) NOT DEFERRABLE", ""),
        ("COMMENT ON TABLE t IS 'DEFERRABLE INHERITS (x)'", ""),
        ('CREATE TABLE t (id UUID PRIMARY KEY, "exclude" INT, tablespace INT)', ""),
        ("CREATE EXTENSION IF NOT EXISTS pgcrypto", ""),
        ("DO $$ BEGIN NULL; END $$", ""),
        ("SELECT 1 FROM t FOR UPDATE SKIP LOCKED", ""),
    ],
)
def test_what_the_grammar_refuses(up: str, expected: str) -> None:
    findings = check(up)
    assert found(findings) == ([(UNSUPPORTED, expected)] if expected else [])
    assert len(errors(findings)) == bool(expected)


@pytest.mark.parametrize(
    ("up", "expected"),
    [
        ("CREATE SCHEMA s;\nINSERT INTO t VALUES (1);\nUPSERT INTO t VALUES (2);", "2:1"),
        ("UPSERT INTO t VALUES (2);\nCREATE SCHEMA s;\nCREATE SCHEMA u", "2:1"),
        ("SHOW TABLES; SET a = 1; CREATE SCHEMA s; SHOW TABLES", ""),
        ("UPSERT INTO t VALUES (1); SET a = 1; UPDATE t SET a = 2 WHERE b", ""),
    ],
)
def test_rows_and_schema_in_one_migration(up: str, expected: str) -> None:
    assert found(check(up)) == ([(MIXED, expected)] if expected else [])


@pytest.mark.parametrize(
    ("up", "expected"),
    [
        ("ALTER TABLE t ADD a INT;\nALTER TABLE T ADD COLUMN b INT;", ["2:1"]),
        ("ALTER TABLE t ADD a INT;\nALTER TABLE u ADD a INT;\nALTER TABLE t ADD b INT, ADD c INT;", ["3:1"]),
        ("ALTER TABLE t DROP a;\nALTER TABLE t DROP b;\nALTER TABLE t DROP c", ["2:1", "3:1"]),
        ("ALTER TABLE t ADD CHECK (a > 0);\nALTER TABLE t ADD CONSTRAINT k UNIQUE (a)", ["2:1"]),
        ("ALTER TABLE t ALTER a SET NOT NULL;\nALTER TABLE t ALTER COLUMN b SET NOT NULL", ["2:1"]),
        (
            "ALTER TABLE t ADD a INT, ADD b INT;\nALTER TABLE t ALTER a DROP DEFAULT;\nALTER TABLE t ALTER b DROP DEFAULT",
            ["3:1"],
        ),
        # the second needs the first
        ("ALTER TABLE t ADD a INT;\nALTER TABLE t ADD b INT AS (a + 1) STORED", []),
        ("ALTER TABLE t ADD a INT;\nALTER TABLE t ALTER a SET NOT NULL", []),
        # or what stands between them
        ("ALTER TABLE t ADD a INT;\nCREATE TYPE e AS ENUM ();\nALTER TABLE t ADD b e", []),
        ("ALTER TABLE t ADD a INT;\nALTER TABLE t DROP b", []),
        ("ALTER TABLE t RENAME TO u;\nALTER TABLE u RENAME TO v", []),
        ("ALTER TABLE t SET LOCALITY GLOBAL;\nALTER TABLE t SET (schema_locked = false)", []),
    ],
)
def test_alters_that_should_be_one(up: str, expected: list[str]) -> None:
    assert found(check(up, head="-- reconciler: ignore data-loss on purpose\n")) == [
        (ALTERS, f"{int(each[0]) + 1}{each[1:]}") for each in expected
    ]


@pytest.mark.parametrize(
    ("up", "expected"),
    [
        ("ALTER TABLE t ALTER a TYPE INT, ADD COLUMN IF NOT EXISTS b INT", "1:1"),
        ("CREATE SCHEMA IF NOT EXISTS s;\nALTER TABLE t ALTER COLUMN a SET DATA TYPE INT", "2:1"),
        ("ALTER TABLE t ALTER COLUMN a TYPE INT USING a::INT", ""),
        ('ALTER TABLE t ALTER COLUMN "type" SET DEFAULT 1, ALTER b SET NOT NULL', ""),
    ],
)
def test_changes_of_a_columns_type(up: str, expected: str) -> None:
    assert found(check(up)) == ([(TYPE, expected)] if expected else [])


@pytest.mark.parametrize(
    ("up", "here", "also_postgresql"),
    [
        ("CREATE TABLE t (id UUID PRIMARY KEY)", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("CREATE UNIQUE INDEX i ON t (a)", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("CREATE INDEX ON t (a)", "name and IF NOT EXISTS", "name and IF NOT EXISTS"),
        ("CREATE SEQUENCE s", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("CREATE VIEW v AS SELECT 1", "IF NOT EXISTS", ""),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "", ""),
        ("CREATE TYPE e AS ENUM ()", "IF NOT EXISTS", ""),
        ("ALTER TYPE e ADD VALUE 'a'", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("ALTER TABLE t ADD a INT", "IF NOT EXISTS", "IF NOT EXISTS"),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)", "IF NOT EXISTS", ""),
        ("ALTER TABLE t ADD UNIQUE (a)", "", ""),
        ("DROP INDEX i", "IF EXISTS", "IF EXISTS"),
        ("DROP FUNCTION f", "IF EXISTS", "IF EXISTS"),
        ("ALTER TABLE t DROP CONSTRAINT k", "IF EXISTS", "IF EXISTS"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS a INT, DROP CONSTRAINT IF EXISTS k", "", ""),
        ("CREATE TABLE IF NOT EXISTS t (id UUID PRIMARY KEY)", "", ""),
        ("DROP INDEX IF EXISTS t_i", "", ""),
        ("COMMENT ON TABLE t IS 'x'", "", ""),
        ("ALTER TABLE t ALTER a SET DEFAULT 1", "", ""),
        ("INSERT INTO t VALUES (1)", "", ""),
    ],
)
def test_what_cannot_be_run_again(up: str, here: str, also_postgresql: str) -> None:
    for engines, wanted in ((frozenset({COCKROACHDB}), here), (BOTH, also_postgresql)):
        findings = check(up, engines=engines)
        assert [finding.rule for finding in findings] == ([IF_EXISTS] if wanted else [])
        assert all(f"has no {wanted}" in finding.message for finding in findings)


def test_what_cannot_be_run_again_is_said_once_a_script() -> None:
    (finding,) = check(
        "CREATE SCHEMA s;\nCREATE SCHEMA IF NOT EXISTS t;\nCREATE SCHEMA u; CREATE SCHEMA v;\nCREATE SCHEMA w"
    )
    assert str(finding.place) == "migrations/1_x.sql:2:1"
    assert finding.message.endswith("it has no IF NOT EXISTS; the same goes for lines 4, 5")


def test_concurrently_has_no_effect_unless_postgresql_runs_it_too() -> None:
    up = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)"
    assert found(check(up, "DROP INDEX CONCURRENTLY IF EXISTS i")) == [
        (CONCURRENTLY, "1:14"),
        (CONCURRENTLY, "3:12"),
    ]
    assert check(up, engines=BOTH) == []


@pytest.mark.parametrize(
    ("up", "here", "both"),
    [
        ("UPSERT INTO t VALUES (1)", [], ["syntax-error"]),
        ("BEGIN; SELECT 1; COMMIT", ["transaction-control"], ["transaction-control", "transaction-control"]),
        ("SAVEPOINT s", ["transaction-control"], ["transaction-control"]),
        ("SELECT 1)", ["invalid-sql"], ["invalid-sql"]),
        ("COPY t FROM STDIN;\n1\n\\.", ["invalid-sql"], ["invalid-sql"]),
        (
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a); UPDATE t SET a = 1 WHERE b",
            [CONCURRENTLY, MIXED],
            ["mixed-transaction", MIXED],
        ),
        ("DELETE FROM t", ["data-loss"], ["data-loss"]),
    ],
)
def test_each_server_has_its_own_errors_and_what_both_refuse_is_said_once(
    up: str, here: list[str], both: list[str]
) -> None:
    assert sorted(each.rule for each in check(up)) == sorted(here)
    assert sorted(each.rule for each in check(up, engines=BOTH)) == sorted(both)


def test_postgresql_alone_is_asked_for_nothing_of_this() -> None:
    up = "CREATE TABLE t (id SERIAL PRIMARY KEY);\nALTER TABLE t ADD a INT;\nALTER TABLE t ADD b INT;\nVALUES (1)"
    assert check(up, engines=frozenset({POSTGRESQL})) == []


@pytest.mark.parametrize(
    ("rule", "up"),
    [
        (KEY, "CREATE TABLE IF NOT EXISTS t (id SERIAL PRIMARY KEY)"),
        (UNSUPPORTED, "CREATE DOMAIN d AS INT"),
        (MIXED, "CREATE SCHEMA IF NOT EXISTS s; UPSERT INTO t VALUES (1)"),
        (ALTERS, "ALTER TABLE t ADD CHECK (a); ALTER TABLE t ADD CHECK (b)"),
        (TYPE, "ALTER TABLE t ALTER a TYPE INT, ALTER b TYPE INT"),
        (IF_EXISTS, "CREATE SCHEMA s"),
        (CONCURRENTLY, "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)"),
    ],
)
def test_each_rule_can_be_silenced_in_the_file(rule: str, up: str) -> None:
    (finding,) = check(up)
    assert finding.rule == rule
    assert finding.message
    assert finding.remedy
    assert finding.excerpt
    assert check(up, head=f"-- reconciler: ignore {rule} there is a reason\n") == []


def test_no_transaction_is_needless_where_only_rows_are_changed() -> None:
    head = "-- reconciler: no-transaction\n"
    assert found(check("UPSERT INTO t VALUES (1)", head=head)) == [("needless-no-transaction", "0:1")]
    assert check("CREATE SCHEMA IF NOT EXISTS s", head=head) == []


@pytest.mark.parametrize("engines", [frozenset({COCKROACHDB}), BOTH])
def test_the_sample_migrations_have_no_findings(engines: frozenset[str]) -> None:
    files = [(f"migrations/{path.name}", path.read_text(encoding="utf-8")) for path in SAMPLES.glob("*.sql")]
    assert len(files) >= 4
    assert check_files(files, engines) == []
