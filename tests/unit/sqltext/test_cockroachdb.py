"""Scripts for CockroachDB: split by our lexer, each statement of one kind, and what no migration may hold."""

from __future__ import annotations

import pytest

from reconciler.model import COCKROACHDB, Directives, ProblemError, Script, Statement
from reconciler.sqltext import (
    Analysis,
    LexicalError,
    StatementKind,
    analyse,
    kind_of,
    sendable,
    transactional,
)
from reconciler.sqltext.cockroachdb import refuse_byte_escapes
from reconciler.sqltext.lexer import tokens


def script(text: str) -> Script:
    return Script(text, "migrations/1_x.sql", 1)


def analysed(text: str) -> Analysis:
    return analyse(script(text), engine=COCKROACHDB)


DATA = [
    "INSERT INTO t VALUES (1)",
    "UPSERT INTO t VALUES (1)",
    "UPDATE t@t_pkey SET a = 1 WHERE b = 2",
    "DELETE FROM t WHERE a < 3 ORDER BY a LIMIT 100",
    "SELECT * FROM t@{FORCE_INDEX=i} AS OF SYSTEM TIME '-10s'",
    "SELECT * FROM [SHOW JOBS]",
    "(SELECT 1)",
    "WITH x AS (DELETE FROM t RETURNING a) SELECT count(*) FROM x",
    "VALUES (1)",
    "TABLE t",
    "SHOW TABLES",
    "EXPLAIN ANALYZE (DISTSQL) SELECT 1",
    "EXPLAIN",
    "DO $$ BEGIN UPDATE t SET a = 1; END $$",
]
SCHEMA = [
    "CREATE TABLE t (a UUID PRIMARY KEY USING HASH WITH (bucket_count = 8))",
    "CREATE INDEX ON t (a) USING HASH",
    "create or replace view v as select 1",
    "ALTER TABLE t SET LOCALITY REGIONAL BY ROW",
    "DROP INDEX t@i",
    "TRUNCATE t",
    "COMMENT ON TABLE t IS 'x'",
    "GRANT SELECT ON t TO bob",
    "REVOKE SELECT ON t FROM bob",
    "ANALYZE t",
    "REFRESH MATERIALIZED VIEW v",
    "SET CLUSTER SETTING sql.defaults.x = 'on'",
    "RESET CLUSTER SETTING sql.defaults.x",
    "CALL p()",
    "EXECUTE p",
    "BACKUP INTO 'gs://b'",
    "DO $$ BEGIN CREATE TABLE t (a INT); END $$",
    "DO $$ BEGIN COMMIT; END $$",
    "EXPLAIN ANALYZE (DEBUG) CREATE TABLE t AS SELECT 1",
    "EXPERIMENTAL CHANGEFEED FOR t",
]
SESSION = [
    "SET search_path = a, public",
    "SET LOCAL statement_timeout = '1s'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "RESET search_path",
    "PREPARE p AS SELECT 1",
    "DEALLOCATE p",
    "SELECT pg_catalog.set_config('search_path', '', false)",
]
TRANSACTION = [
    "BEGIN",
    "START TRANSACTION PRIORITY HIGH",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT cockroach_restart",
    "RELEASE SAVEPOINT cockroach_restart",
    "ROLLBACK TO SAVEPOINT cockroach_restart",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "SET TRANSACTION AS OF SYSTEM TIME '-1s'",
]
KINDS = [
    *((sql, StatementKind.DATA) for sql in DATA),
    *((sql, StatementKind.SCHEMA) for sql in SCHEMA),
    *((sql, StatementKind.SESSION) for sql in SESSION),
    *((sql, StatementKind.TRANSACTION) for sql in TRANSACTION),
]


@pytest.mark.parametrize(("sql", "kind"), KINDS)
def test_each_kind(sql: str, kind: StatementKind) -> None:
    assert kind_of(list(tokens(sql))) is kind
    analysis = analysed(f"-- why\n{sql};\n")
    assert analysis.kinds == (kind,)
    assert analysis.needs_autocommit == (kind is StatementKind.SCHEMA,)
    assert (analysis.statements[0].text, analysis.statements[0].line) == (sql, 2)


def test_splits_what_postgresqls_grammar_does_not_know() -> None:
    text = "".join(f"{sql};\n-- next\n" for sql, _ in KINDS)
    analysis = analysed(text)
    assert [statement.text for statement in analysis.statements] == [sql for sql, _ in KINDS]
    assert [text[each.offset : each.offset + len(each.text)] for each in analysis.statements] == [
        each.text for each in analysis.statements
    ]
    assert [statement.line for statement in analysis.statements] == list(range(1, 2 * len(KINDS), 2))
    assert sendable(script(text), analysis.statements).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-- nothing",
        "; ;\n/* a; b */ ;",
        "SELECT ';', \"a;b\", $$;$$, e'\\';', x'3b' -- ;\n;",
        "CREATE FUNCTION f() RETURNS INT LANGUAGE SQL BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
        "\r\n  UPSERT INTO t VALUES (1) ; \t SELECT 'ä😀'; SELECT 2",
        'SELECT 1 AS "x"\n/* nested /* ; */ */ FROM t',
    ],
)
def test_every_visible_character_is_in_a_statement_a_comment_or_between_two(text: str) -> None:
    analysis = analysed(text)
    rest = text
    for statement in reversed(analysis.statements):
        assert text[statement.offset :].startswith(statement.text)
        rest = rest[: statement.offset] + rest[statement.offset + len(statement.text) :]
    assert [each.text for each in tokens(rest) if each.text != ";"] == []


def test_session_settings_go_with_data_and_a_change_of_the_schema_with_nothing() -> None:
    plain = Directives()
    for text in ("", "UPSERT INTO t VALUES (1); SELECT 1", "SET a = 1; DELETE FROM t WHERE b", "SET a = 1"):
        assert transactional(plain, analysed(text))
        assert not transactional(Directives(no_transaction=True), analysed(text))
    for text in ("CREATE TABLE t (a INT)", "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)", "CALL p()"):
        assert not transactional(plain, analysed(text))


REFUSED = [
    *((f"SELECT 1;\n{sql}", "2:1", "controls a transaction") for sql in TRANSACTION),
    ("SELECT 1; USE other", "1:11", "cannot be part of a migration"),
    ("SET database = other", "1:1", "cannot be part of a migration"),
    ("SET SESSION database TO other", "1:1", "cannot be part of a migration"),
    ("DISCARD ALL", "1:1", "cannot be part of a migration"),
    ("CREATE TABLE a (b INT);\nCREATE TEMP TABLE t (a INT)", "2:1", "ends with the session"),
]


@pytest.mark.parametrize(("text", "place", "message"), REFUSED)
@pytest.mark.parametrize("alone", [True, False])
def test_what_no_migration_can_hold(text: str, place: str, message: str, alone: bool) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        transactional(Directives(no_transaction=alone), analysed(text))
    problem = caught.value.problem
    assert str(problem.place) == f"migrations/1_x.sql:{place}"
    assert problem.remedy
    assert problem.excerpt


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("SELECT 1;\nCOPY t FROM STDIN;\n1\n2\n\\.\nSELECT 2;", "2:1", "FROM STDIN cannot be part"),
        ("SELECT 1;\n COPY t (a) FROM STDIN CSV", "2:2", "never ended"),
        ("COPY t TO STDOUT", "1:1", "nowhere to send"),
        ("SELECT 1; SELECT b'a\\'; DROP TABLE t; --'", "1:18", "holds a backslash"),
        ("SELECT 'open", "1:8", "never closed"),
        ("SELECT (1; SELECT 2", "1:8", "never closed"),
        ("SELECT 1); SELECT 2", "1:9", "closes none"),
        ("\\dt", "1:1", "psql meta-command"),
        ("SELECT \0", "1:8", "NUL"),
    ],
)
def test_what_cannot_be_split(text: str, place: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        analysed(text)
    assert str(caught.value.problem.place) == f"migrations/1_x.sql:{place}"
    assert caught.value.problem.remedy


def test_bytes_without_backslashes_are_fine() -> None:
    for sql in ("SELECT b'abc'", "SELECT B'101'", "SELECT e'\\n'", "SELECT 'b\\'"):
        refuse_byte_escapes(list(tokens(sql)))
    with pytest.raises(LexicalError):
        refuse_byte_escapes(list(tokens("SELECT b'\\x00'")))


def test_lines_that_pg_dump_writes_for_psql_are_skipped() -> None:
    analysis = analysed("\\restrict x\nUPSERT INTO t VALUES (1);\n\\unrestrict x\n")
    assert [(each.text, each.line) for each in analysis.statements] == [("UPSERT INTO t VALUES (1)", 2)]


def test_lost_data_is_named() -> None:
    analysis = analysed(
        "DROP TABLE IF EXISTS a, b CASCADE; TRUNCATE c; ALTER TABLE d DROP e, DROP COLUMN f; "
        "DELETE FROM g@i; DELETE FROM h WHERE a = 1; DROP INDEX t@i; UPSERT INTO t VALUES (1)"
    )
    assert analysis.data_loss == (
        "drops table a",
        "drops table b",
        "truncates c",
        "drops column d.e",
        "drops column d.f",
        "deletes every row of g",
    )


def test_a_statement_alone_is_as_it_was_written() -> None:
    (statement,) = analysed("  UPSERT INTO t VALUES (1) -- last").statements
    assert statement == Statement("UPSERT INTO t VALUES (1)", 2, 1, 3)
