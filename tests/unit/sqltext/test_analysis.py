"""Splitting: nothing is cut that belongs together, and nothing is ever dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import Directives, ProblemError, Reason, Script
from reconciler.sqltext import Analysis, analyse, split, transactional
from reconciler.sqltext import libpgquery as grammar
from reconciler.sqltext.clientside import ServerText, server_text
from reconciler.sqltext.description import describe
from reconciler.sqltext.lexer import tokens
from reconciler.sqltext.splitter import statements as lexical_statements


def script(text: str, first_line: int = 1) -> Script:
    return Script(text, "migrations/00007_x.sql", first_line)


def pieces(text: str) -> list[str]:
    return [statement.text for statement in split(script(text))]


FUNCTION_IN_QUOTES = (
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RAISE 'a;'; RETURN $$1;$$; END $f$"
)
ATOMIC = (
    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
)
ATOMIC_PROCEDURE = "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); DELETE FROM t; END"
ATOMIC_WITH_NAMES = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end AS case FROM t; END"
RULE = "CREATE RULE r AS ON INSERT TO t DO (INSERT INTO u VALUES (1); DELETE FROM v)"


WHOLE = [
    FUNCTION_IN_QUOTES,
    ATOMIC,
    ATOMIC_PROCEDURE,
    ATOMIC_WITH_NAMES,
    RULE,
    "SELECT E'a\\';b'",
    "SELECT 'a'\n\t'b;'",
    "SELECT 'a' -- it's\n 'b;'",
    "SELECT E'a' -- it's\n '\\';b'",
    'SELECT 1 AS "a;""b"',
    "SELECT /* ; /* ; */ ; */ 1 -- ;\n + 1",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT a$b$ FROM t",
    "COPY t FROM '/tmp/stdin'",
    "SELECT 'é', 'ü;', '日本'",
    "SELECT stdin FROM copy",
]


@pytest.mark.parametrize("whole", WHOLE)
def test_one_statement_stays_whole(whole: str) -> None:
    text = f"SELECT 0; {whole} ; -- é\n SELECT 9"
    assert pieces(text) == ["SELECT 0", whole, "SELECT 9"]
    assert [statement.text for statement in analyse(script(text), strict=True).statements][1] == whole


@pytest.mark.parametrize("text", ["", ";", " ;; -- nothing\n/* ; */;"])
def test_no_statement(text: str) -> None:
    assert pieces(text) == []


def test_places_are_those_of_the_file() -> None:
    found = split(script("\n-- é\n  SELECT 'é'; SELECT 2;\n\tSELECT\n3", first_line=10))
    assert [(each.text, each.line, each.column) for each in found] == [
        ("SELECT 'é'", 12, 3),
        ("SELECT 2", 12, 15),
        ("SELECT\n3", 13, 2),
    ]
    assert [each.offset for each in found] == [8, 20, 31]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("SELECT 1;\nSELECT (1;", "11:8", "parenthesis is never closed"),
        ("SELECT 1);", "10:9", "closes none"),
        ("SELECT 1;\n  SELECT 'a", "11:10", "string that opens here"),
        ("/* a", "10:1", "block comment"),
        ("SELECT 1;\n\\d t\n", "11:1", r"\d is a psql meta-command"),
        (
            "SELECT 1;\nCOPY t (a) FROM stdin;\nit's\n",
            "11:1",
            "rows of this COPY ... FROM STDIN are never ended",
        ),
        ("COPY t FROM stdin;", "10:1", "never ended"),
        ("COPY t FROM stdin\n1\n\\.\n", "12:1", r"\. is a psql meta-command"),
        ("COPY t FROM stdin;\n1\n\\. \n", "10:1", "never ended"),
        ("COPY t FROM stdin; SELECT 1;\n1\n\\.\n", "10:20", "something stands behind the `;`"),
        ("COPY t FROM stdin;\n1\n\\.\n  \\copy t FROM 'x'\n", "13:3", r"\copy is a psql meta-command"),
        ("COPY t FROM stdin;\n1\n\\.\nSELECT );\n", "13:8", "closes none"),
        ("SELECT 1\n\\restrict abc\n, 2;", "11:1", r"\restrict stands inside a statement"),
        ("SELECT 1; \\unrestrict abc", "10:11", r"\unrestrict is a psql meta-command"),
        ("\\restricted abc\n", "10:1", r"\restricted is a psql meta-command"),
        ("copy t from stdout", "10:1", "never ended"),
        ("copy (select 1) to stdout with (format csv)", "10:1", "COPY ... TO STDOUT"),
        ("SELECT '\ud800'", "10:9", "is no character"),
        ("SELECT 'a\0b'", "10:10", "NUL"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_refused_with_place_and_caret(text: str, place: str, message: str, strict: bool) -> None:
    with pytest.raises(ProblemError) as caught:
        analyse(script(text, first_line=10), strict=strict)
    problem = caught.value.problem
    assert problem.reason is Reason.MIGRATION_INVALID
    assert str(problem.place) == f"migrations/00007_x.sql:{place}"
    assert message in problem.message
    assert problem.remedy
    line, caret = problem.excerpt.split("\n")
    assert caret.strip() == "^"
    assert len(caret) <= len(line) + 1


def test_strict_refuses_what_the_grammar_does_not_know() -> None:
    text = "SELECT 'é';\nSELEC 2"
    with pytest.raises(
        ProblemError, match=r'x\.sql:2:1: syntax error at or near "SELEC" \(SQLSTATE 42601\)'
    ) as caught:
        analyse(script(text), strict=True)
    assert caught.value.problem.excerpt == "SELEC 2\n^"


def test_strict_points_at_the_last_thing_before_an_early_end() -> None:
    with pytest.raises(ProblemError) as caught:
        analyse(script("SELECT 1 +\n\n-- done\n"), strict=True)
    assert caught.value.problem.excerpt == "SELECT 1 +\n         ^"


def test_a_server_judges_newer_syntax() -> None:
    text = "SELECT 1; FROBNICATE TABLE t (a; b); SELECT 2"
    assert pieces(text) == ["SELECT 1", "FROBNICATE TABLE t (a; b)", "SELECT 2"]


def test_deep_nesting_is_no_crash() -> None:
    text = "SELECT " + "(" * 50_000 + "1" + ")" * 50_000
    assert pieces(text) == [text]


def test_the_grammar_decides_where_names_confuse_us() -> None:
    # `end` as a label without AS: our lexer takes it for the end of the body
    text = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; SELECT 2; END; SELECT 3"
    assert len(list(lexical_statements(text))) != 2
    assert pieces(text) == [text[:-10], "SELECT 3"]


SIMPLE = [
    *(
        "SELECT 1",
        "CREATE TABLE t (a int, b text DEFAULT ';')",
        "INSERT INTO t VALUES ('it''s', $$;$$), (E'\\';', U&'\\0061')",
    ),
    *(
        FUNCTION_IN_QUOTES,
        ATOMIC,
        ATOMIC_PROCEDURE,
        ATOMIC_WITH_NAMES,
        RULE,
        "CREATE INDEX CONCURRENTLY i ON t (a)",
    ),
    *(
        'ALTER TABLE "é;" DROP COLUMN "b;"',
        "COMMENT ON TABLE t IS 'ünï;'",
        "DO $é$ BEGIN END; $é$",
        "SELECT CASE a WHEN 1 THEN 2 END",
    ),
    *(
        "SELECT a[1:2], b->>'c', d::numeric(10,2), 1e5, .5, 0x1F FROM t$x",
        "BEGIN",
        "END",
        "PREPARE p AS SELECT $1",
        "VALUES (1)",
    ),
]
GAPS = [" ", "\n", "\t", "\r\n", " -- it's; é\n", "/* ; 'é /* $$ */ \" */", ";", " ; ; "]
decorated = st.lists(
    st.tuples(st.sampled_from(SIMPLE), st.lists(st.sampled_from(GAPS), max_size=3).map("".join)), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GAPS), decorated)
def test_pieces_cover_every_token_and_equal_the_grammars(lead: str, parts: list[tuple[str, str]]) -> None:
    text = lead + "".join(f"{statement}{gap};{gap}" for statement, gap in parts)
    lexical = list(lexical_statements(text))
    by_grammar = grammar.split(text)
    assert len(lexical) == len(by_grammar) == len(parts)
    for ours, theirs in zip(lexical, by_grammar, strict=True):
        assert theirs.start <= ours[0].start
        assert ours[-1].end <= theirs.end
    analysis = analyse(script(text), strict=True)
    covered = [token.text for statement in analysis.statements for token in tokens(statement.text)]
    ends = [token for tokens_of in lexical for token in tokens_of]
    assert covered == [token.text for token in ends]
    for statement in analysis.statements:
        assert text[statement.offset : statement.offset + len(statement.text)] == statement.text
        before = text[: statement.offset]
        assert statement.line == before.count("\n") + 1
        assert statement.column == statement.offset - (before.rfind("\n") + 1) + 1


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*"aeE1'\"$;()-/*\\\n \u00e9U&[]:.,=", "begin ", "atomic ", "end ", "case ", "create function "]
        ),
        max_size=40,
    ).map("".join)
)
def test_any_text_is_split_whole_or_refused(text: str) -> None:
    try:
        found = split(script(text))
    except ProblemError:
        return
    position = 0
    for statement in found:
        assert not [token for token in tokens(text[position : statement.offset]) if token.text != ";"]
        position = statement.offset + len(statement.text)
    assert not [token for token in tokens(text[position:]) if token.text != ";"]


def analysed(text: str) -> Analysis:
    return analyse(script(text))


def test_transactional_unless_asked_or_needed() -> None:
    plain = analysed("CREATE TABLE t (); CREATE INDEX ON t (a)")
    alone = analysed("CREATE INDEX CONCURRENTLY i ON t (a); DROP INDEX CONCURRENTLY j")
    assert transactional(Directives(), plain)
    assert not transactional(Directives(no_transaction=True), plain)
    assert not transactional(Directives(), alone)
    assert transactional(Directives(), analysed("-- nothing"))


def test_a_mix_is_refused_where_it_stands() -> None:
    mixed = analysed("CREATE TABLE t (a int);\nCREATE INDEX CONCURRENTLY i ON t (a)")
    assert not transactional(Directives(no_transaction=True), mixed)
    with pytest.raises(
        ProblemError, match=r"CREATE INDEX CONCURRENTLY i \.\.\. cannot run inside a transaction"
    ) as caught:
        transactional(Directives(), mixed)
    assert str(caught.value.problem.place) == "migrations/00007_x.sql:2:1"
    assert "no-transaction" in caught.value.problem.remedy


def test_transaction_control_is_refused_inside_a_transaction() -> None:
    controlled = analysed("SELECT 1; COMMIT; SELECT 2")
    assert controlled.transaction_control is not None
    assert controlled.transaction_control.column == 11
    assert not transactional(Directives(no_transaction=True), controlled)
    with pytest.raises(ProblemError, match="COMMIT controls a transaction") as caught:
        transactional(Directives(), controlled)
    assert caught.value.problem.excerpt == "SELECT 1; COMMIT; SELECT 2\n          ^"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("CREATE TABLE a ();\nCOMMIT;\nCREATE TABLE b ();\nBEGIN;", "4:1"),
        ("BEGIN; SELECT 1; COMMIT;\n  START TRANSACTION READ ONLY; SELECT 2; VACUUM", "2:3"),
        ("BEGIN;\nSAVEPOINT s; ROLLBACK TO s; COMMIT PREPARED 'x'", "1:1"),
        ("BEGIN;\nBEGIN", "1:1"),
    ],
)
def test_a_transaction_that_a_script_leaves_open_is_refused_where_it_begins(text: str, place: str) -> None:
    with pytest.raises(ProblemError, match="begins a transaction that nothing in this script ends") as caught:
        transactional(Directives(no_transaction=True), analysed(text))
    assert str(caught.value.problem.place) == f"migrations/00007_x.sql:{place}"
    assert "COMMIT" in caught.value.problem.remedy


@pytest.mark.parametrize("end", ["COMMIT", "END WORK", "ROLLBACK", "ABORT", "BEGIN; COMMIT"])
def test_a_transaction_that_a_script_ends_itself_is_its_own_affair(end: str) -> None:
    assert not transactional(
        Directives(no_transaction=True), analysed(f"BEGIN; SELECT 1; {end}; COMMIT; VACUUM")
    )


@pytest.mark.parametrize(
    ("pieces", "place"),
    [
        ([grammar.Piece(0, 8)], "1:11"),
        ([grammar.Piece(10, 18)], "1:1"),
        ([], "1:1"),
        ([grammar.Piece(0, 8), grammar.Piece(12, 18)], "1:11"),
    ],
)
def test_pieces_that_leave_out_a_token_are_refused(pieces: list[grammar.Piece], place: str) -> None:
    with pytest.raises(ProblemError, match="would belong to no statement") as caught:
        describe(script("SELECT 1; SELECT 2;"), pieces, ServerText("SELECT 1; SELECT 2;"))
    assert str(caught.value.problem.place) == f"migrations/00007_x.sql:{place}"


def test_rows_without_a_statement_are_refused() -> None:
    text = "COPY t FROM stdin;\n1\n\\.\nSELECT 2"
    sql = server_text(text)
    with pytest.raises(ProblemError, match="would belong to no statement"):
        describe(script(text), [], sql)
    with pytest.raises(ProblemError, match="no rows were found for this COPY"):
        describe(script(text), grammar.split(sql.text), sql._replace(rows=()))
    with pytest.raises(ProblemError, match="would belong to no statement") as caught:
        describe(script("SELECT 1;     "), [grammar.Piece(0, 8)], ServerText("SELECT 1;", sql.rows))
    assert str(caught.value.problem.place) == "migrations/00007_x.sql:1:15"


def test_rows_belong_to_the_copy_before_them() -> None:
    text = (
        "\\restrict k;'\nSELECT 1;\nCOPY t FROM STDIN (FORMAT csv); -- rows\n'é;\n-- UP MIGRATION\n\\.x\n\\.\n"
        "copy u from stdin;\n\\.\n\t\\unrestrict k\n SELECT 'é', E'\\n'; COPY v FROM PROGRAM 'x';COPY w FROM stdin;\n\n\\."
    )
    found = split(script(text, first_line=10))
    assert [(each.text, each.copy_data, each.line, each.column) for each in found] == [
        ("SELECT 1", None, 11, 1),
        ("COPY t FROM STDIN (FORMAT csv)", "'é;\n-- UP MIGRATION\n\\.x\n", 12, 1),
        ("copy u from stdin", "", 17, 1),
        ("SELECT 'é', E'\\n'", None, 20, 2),
        ("COPY v FROM PROGRAM 'x'", None, 20, 21),
        ("COPY w FROM stdin", "\n", 20, 45),
    ]
    for each in found:
        assert text.startswith(each.text, each.offset)
        if each.copy_data is not None and each.copy_offset is not None:
            assert text.startswith(each.copy_data + "\\.", each.copy_offset)
