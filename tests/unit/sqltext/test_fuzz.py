r"""Splitting scripts that hold more than SQL: rows of a COPY, `\restrict` lines, and all that looks like them and is not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.formats import parse_migration
from reconciler.model import COCKROACHDB, POSTGRESQL, ProblemError, Script, Statement
from reconciler.sqltext import (
    LOOKED_AT,
    OPAQUE,
    REPEATABLE,
    UNNAMED,
    analyse,
    cockroachdb_intent_of,
    libpgquery,
    sendable,
    split,
)
from reconciler.sqltext.lexer import without_comments
from tests.unit.sqltext.scripts import GAPS, NASTY, Built, scripts

FIRST_LINE = 10


def script(text: str) -> Script:
    return Script(text, "migrations/00007_x.sql", FIRST_LINE)


@settings(max_examples=150, deadline=None)
@given(scripts())
def test_a_script_is_split_into_what_it_was_made_of(built: Built) -> None:
    analysis = analyse(script(built.text), strict=True)
    expected = [(part.text, part.rows) for part in built.parts]
    assert [(each.text, each.copy_data) for each in analysis.statements] == expected
    assert tuple(each.offset for each in analysis.statements) == built.offsets
    assert tuple(each.copy_offset for each in analysis.statements) == built.row_offsets
    assert_covered(built.text, analysis.statements)
    assert_sent_whole(analysis.script, analysis.statements)
    sent = sendable(analysis.script, analysis.statements).text
    assert len(libpgquery.split(without_comments(sent))) == len(built.parts)


@settings(max_examples=40, deadline=None)
@given(scripts().filter(lambda built: not any(part.rows is not None for part in built.parts)))
def test_our_lexer_splits_for_cockroachdb_as_the_grammar_does_for_postgresql(built: Built) -> None:
    statements = analyse(script(built.text), engine=COCKROACHDB).statements
    assert [each.text for each in statements] == [part.text for part in built.parts]
    assert tuple(each.offset for each in statements) == built.offsets
    assert statements == split(script(built.text))


_WORDS = """CREATE ALTER DROP TABLE INDEX TYPE ADD COLUMN CONSTRAINT IF NOT EXISTS ( ) , . @ t "q" 'x' $$DROP$$ UNIQUE PRIMARY KEY
    RENAME TO SET SCHEMA VALUE ON OR REPLACE VIEW EXPLAIN ANALYZE DO SELECT DATABASE POLICY TRIGGER FUNCTION ZONE = RESTART"""


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["", "CREATE", "ALTER", "DROP", "ALTER TABLE", "ALTER TABLE t ADD", "ALTER TYPE t"]),
    st.lists(st.sampled_from(_WORDS.split()), min_size=1, max_size=8),
)
def test_whatever_a_change_of_the_schema_looks_like_something_is_known_to_look_at(
    start: str, rest: list[str]
) -> None:
    intent = cockroachdb_intent_of(Statement(" ".join((start, *rest)), 0, 1, 1))
    if intent is not None and intent.name:
        assert intent.kind.removeprefix("no-") in LOOKED_AT
    elif intent is not None:
        assert intent.kind in (OPAQUE, REPEATABLE, UNNAMED)


@settings(max_examples=75, deadline=None)
@given(scripts(), st.sampled_from(["\n", "\r\n", "\r\r\n"]))
def test_a_file_gives_the_same_script_whatever_its_line_ends(built: Built, line_end: str) -> None:
    # the blank line ends a last line `\.` or comment that has no end of its own
    file = f"-- UP MIGRATION\n{built.text}\n\n-- DOWN MIGRATION\n{built.text}".replace("\n", line_end)
    migration = parse_migration("migrations/00007_x.sql", file.encode())
    assert migration.up.text == f"{built.text}\n\n"
    assert migration.down is not None
    assert migration.down.text == built.text
    for each in (migration.up, migration.down):
        assert [statement.text for statement in split(each)] == [part.text for part in built.parts]


@settings(max_examples=250, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*NASTY, *GAPS, "\r", "COPY t FROM stdin;\n1\n\\.\n", "COPY t FROM stdin", "\n\\.", "SELECT 1;"]
        )
        | scripts().map(lambda built: built.text),
        max_size=8,
    ).map("".join),
    st.sampled_from([POSTGRESQL, COCKROACHDB]),
)
def test_a_mixture_is_covered_or_refused_where_it_stands(text: str, engine: str) -> None:
    try:
        statements = analyse(script(text), engine=engine).statements
    except ProblemError as error:
        refused = error.problem
    else:
        assert_covered(text, statements)
        assert_sent_whole(script(text), statements)
        return
    assert refused.place is not None
    assert refused.remedy
    lines = text.split("\n")
    assert FIRST_LINE <= refused.place.line < FIRST_LINE + len(lines)
    assert 1 <= refused.place.column <= len(lines[refused.place.line - FIRST_LINE]) + 1


def assert_covered(text: str, statements: Sequence[Statement]) -> None:
    """Statements, their rows, and what may stand between them make up all of `text`, in order, nothing twice."""
    position = 0
    for each in statements:
        assert after_nothing(text, position) == each.offset
        assert each.text
        assert text.startswith(each.text, each.offset)
        position = each.offset + len(each.text)
        if each.copy_data is not None:
            assert each.copy_offset is not None
            before = text[position : each.copy_offset]
            assert before.endswith("\n")
            # nothing but what ends the COPY
            semicolon = after_nothing(before, 0, "")
            assert before[semicolon] == ";"
            assert re.fullmatch(r"[ \t\r\f\v]*(--[^\n]*)?\n", before[semicolon + 1 :])
            assert text.startswith(each.copy_data, each.copy_offset)
            end = re.compile(r"\\\.\r*(\n|\Z)").match(text, each.copy_offset + len(each.copy_data))
            assert end is not None
            position = end.end()
        else:
            assert each.copy_offset is None
    assert after_nothing(text, position) == len(text)


def after_nothing(text: str, position: int, also: str = ";") -> int:
    r"""The first character from `position` on that is no blank, no comment, no `\restrict` line and not in `also`.

    Written apart from the lexer, which it judges.
    """
    while position < len(text):
        line_start = text.rfind("\n", 0, position) + 1
        if text[position] in " \t\n\r\f\v" + also:
            position += 1
        elif text.startswith("--", position):
            while position < len(text) and text[position] not in "\n\r":
                position += 1
        elif text.startswith("/*", position):
            depth = 1
            position += 2
            while depth:
                if text[position : position + 2] in ("/*", "*/"):
                    depth += 1 if text[position] == "/" else -1
                    position += 1
                position += 1
        elif also and re.compile(r"[ \t]*\\(un)?restrict(\s|\Z)").match(text, line_start):
            position = text.find("\n", position)
            if position < 0:
                return len(text)
        else:
            return position
    return position


def assert_sent_whole(original: Script, statements: Sequence[Statement]) -> None:
    """What is sent holds every statement, in order, and each of their characters leads back to the script's."""
    sent = sendable(original, statements)
    assert sent.copy_data == tuple(each.copy_data for each in statements if each.copy_data is not None)
    position = 0
    for number, each in enumerate(statements):
        start = sent.starts[number] if sent.starts else each.offset
        assert start >= position
        assert sent.text.startswith(each.text, start)
        for index in (0, len(each.text) // 2, len(each.text) - 1):
            assert sent.original(start + index) == each.offset + index
        position = start + len(each.text)
    if sent.starts:
        assert sent.text == ";\n".join(each.text for each in statements)
    else:
        assert sent.text == original.text or not statements
