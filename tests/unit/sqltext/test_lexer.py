"""The lexical rules, against a table and against PostgreSQL's own scanner."""

from __future__ import annotations

import contextlib
import importlib
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.sqltext.lexer import (
    QUOTED_NAME,
    STRING,
    WORD,
    LexicalError,
    first_token,
    line_comments,
    token_texts,
    tokens,
    without_comments,
)

FRAGMENTS = [
    *("'", "''", "E'", "e'", "U&'", "b'", "x'", "n'", "\\'", "\\\\", '"', '""', 'U&"'),
    *("$$", "$a$", "$é$", "a$$", "1$$", "a$b$", "--x\n", "-- it's\n", "--", "/*", "*/", "/", "*", "-", "+"),
    *(
        ";",
        "(",
        ")",
        ":",
        "::",
        ".",
        ",",
        "begin",
        "end",
        " ",
        "\n",
        "\t",
        "\r",
        "é",
        "\u00a0",
        "e",
        "E",
        "_",
        "1.5",
    ),
]
text_of_fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)


def texts(sql: str) -> list[str]:
    return [token.text for token in tokens(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        (" -- only this", []),
        ("select 'it''s'", ["select", "'it''s'"]),
        (r"select E'it\'s;' ;", ["select", r"E'it\'s;'", ";"]),
        (r"select 'it\' ;", ["select", r"'it\'", ";"]),
        (r"name'x\'", ["name", r"'x\'"]),
        ("U&'d\\0061t' U&\"d\" B'01' X'1F'", ["U&'d\\0061t'", 'U&"d"', "B'01'", "X'1F'"]),
        ('"a;""b"', ['"a;""b"']),
        ("$$;$$ $tag$;$$;$tag$ $é$;$é$", ["$$;$$", "$tag$;$$;$tag$", "$é$;$é$"]),
        ("a$b$;c$b$", ["a$b$", ";", "c$b$"]),
        ("1$$a;$$", ["1", "$$a;$$"]),
        ("$1 $2", ["$1", "$2"]),
        ("a/* ; /* ; */ ; */b", ["a", "b"]),
        ("a -- ;\r;b", ["a", ";", "b"]),
        ("a<>-1--b\n+-c", ["a", "<>-", "1", "+-", "c"]),
        ("a+/*x*/b", ["a", "+", "b"]),
        ("select E'a'\n  -- it's\n '\\';'", ["select", "E'a'\n  -- it's\n '\\';'"]),
        ("a::int[]", ["a", ":", ":", "int", "[", "]"]),
        ("{ }", ["{", "}"]),
    ],
)
def test_tokens(sql: str, expected: list[str]) -> None:
    assert texts(sql) == expected


def test_kinds() -> None:
    assert [token.kind for token in tokens("a \"b\" 'c' $$d$$")] == [WORD, QUOTED_NAME, STRING, STRING]


@pytest.mark.parametrize(
    ("sql", "offset", "message"),
    [
        ("select 'abc", 7, "string"),
        ("select E'abc\\'", 7, "string"),
        ('select "abc', 7, "quoted identifier"),
        ("select $a$ $$ ", 7, r"\$a\$"),
        ("a /* /* */", 2, "block comment"),
        ("select 1 \\gset", 9, r"\\gset is a psql meta-command"),
        ("a \\restrict abc\n", 2, r"\\restrict"),
    ],
)
def test_refusals_name_the_place(sql: str, offset: int, message: str) -> None:
    with pytest.raises(LexicalError, match=message) as caught:
        list(tokens(sql))
    assert caught.value.offset == offset
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("-- a\nselect '-- b' -- c", ["-- a", "-- c"]),
        ("$$ -- a $$ -- b", ["-- b"]),
        ("E'\\' -- a' -- b", ["-- b"]),
        ("'\\' -- a", ["-- a"]),
        ("a$$ -- a\n$$ -- b\n$$", ["-- a"]),
        ('"-- a""" -- b', ["-- b"]),
        ("/* -- a /* */ -- b */ -- c", ["-- c"]),
    ],
)
def test_line_comments_stand_outside_of_quotes(sql: str, expected: list[str]) -> None:
    assert [sql[start:end] for start, end in line_comments(sql)] == expected


@pytest.mark.parametrize("sql", ["'a", "E'a\\'", '"a', "$$a", "/* /* */"])
def test_line_comments_refuse_what_is_never_closed(sql: str) -> None:
    with pytest.raises(LexicalError, match="never closed"):
        list(line_comments(sql))


def test_first_token_skips_blanks_comments_and_semicolons() -> None:
    sql = " ;; -- a\n/* b */ ; select"
    assert first_token(sql, 0, len(sql)) == sql.index("select")
    assert first_token(sql, 0, 5) == 5


def test_comments_become_blanks_and_offsets_stay() -> None:
    sql = "a -- it's\n/* é */ E'x' -- it's\n '\\'' $$ -- stays $$"
    assert without_comments(sql) == "a        \n        E'x'        \n '\\'' $$ -- stays $$"


@pytest.mark.parametrize(
    "hostile", ["a" + "$" * 200_000, "1" + "$" * 200_001, "'e" * 100_000, "e'" * 100_000, "/*" * 100_000]
)
def test_hostile_text_takes_linear_time(hostile: str) -> None:
    # quadratic, these would take minutes and meet the test's time limit
    for read in (tokens, line_comments):
        with contextlib.suppress(LexicalError):
            for _ in read(hostile):
                pass


@settings(max_examples=400, deadline=None)
@given(text_of_fragments)
def test_the_fast_way_gives_the_same_texts(sql: str) -> None:
    try:
        expected = [token.text for token in tokens(sql)]
    except LexicalError:
        with pytest.raises(LexicalError):
            token_texts(sql)
    else:
        assert token_texts(sql) == expected


@settings(max_examples=400, deadline=None)
@given(text_of_fragments)
def test_strings_and_identifiers_are_where_postgresql_finds_them(sql: str) -> None:
    # by name: the package's type stubs have syntax errors
    postgast = importlib.import_module("postgast")
    pg_query_pb2 = postgast.pg_query_pb2
    try:
        scanned = postgast.scan(sql).tokens
    except postgast.PgQueryError:
        return
    if re.search(r"'\s*(--.*)?[\r\n]", sql):
        # the scanner makes one of strings that go on in the next line, and none of those with a comment between them
        return
    try:
        ours = list(tokens(sql))
    except LexicalError as error:
        assume("meta-command" not in error.message)
        raise
    encoded = sql.encode()
    strings = (pg_query_pb2.SCONST, pg_query_pb2.USCONST, pg_query_pb2.BCONST, pg_query_pb2.XCONST)
    names = (pg_query_pb2.IDENT, pg_query_pb2.UIDENT)
    kinds = {STRING: strings, QUOTED_NAME: names}
    for kind, theirs in kinds.items():
        expected = [
            (len(encoded[: token.start].decode()), len(encoded[: token.end].decode()))
            for token in scanned
            if token.token in theirs and (kind == STRING or encoded[token.start : token.end].endswith(b'"'))
        ]
        assert [(token.start, token.end) for token in ours if token.kind == kind] == expected


@settings(max_examples=400, deadline=None)
@given(text_of_fragments)
def test_both_readers_see_the_same_quotes(sql: str) -> None:
    try:
        found = list(tokens(sql))
    except LexicalError as error:
        if "meta-command" not in error.message:
            with pytest.raises(LexicalError):
                list(line_comments(sql))
        return
    comments = list(line_comments(sql))
    for start, end in comments:
        assert not any(
            token.start < end and start < token.end
            for token in found
            if "\n" not in token.text and "\r" not in token.text
        )
    for token in found:
        if token.kind == STRING and "--" in token.text and token.text[0] not in "eE":
            assert not any(token.start < start < token.end for start, _ in comments)
