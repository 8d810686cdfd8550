"""Our file format: what it holds, and what it refuses with line and column."""

from __future__ import annotations

import hashlib

import pytest

from reconciler.formats import parse, parse_migration
from reconciler.model import Directives, Migration, ProblemError, Reason, Script

PATH = "migrations/00042_add_things.sql"
SAMPLE = b"""\
-- Migration: 00042_add_things.sql
-- Description: Add things
-- Date: 2025-01-15
-- Author: Platform team

-- UP MIGRATION
CREATE TABLE things (id int);

-- DOWN MIGRATION
DROP TABLE things;
"""


def migration(content: bytes) -> Migration:
    return parse_migration(PATH, content)


def test_sample() -> None:
    down = "DROP TABLE things;\n"
    assert migration(SAMPLE) == Migration(
        version=42,
        name="add_things",
        path=PATH,
        checksum=hashlib.sha256(SAMPLE).hexdigest(),
        up=Script("CREATE TABLE things (id int);\n\n", PATH, 7),
        down=Script(down, PATH, 10),
        down_checksum=hashlib.sha256(down.encode()).hexdigest(),
        directives=Directives(),
        description="Add things",
        author="Platform team",
    )
    assert parse(PATH, SAMPLE).notices == ()


@pytest.mark.parametrize(
    "same",
    [
        SAMPLE.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + SAMPLE,
        b"\xef\xbb\xbf" + SAMPLE.replace(b"\n", b"\r\n"),
    ],
    ids=["crlf", "bom", "both"],
)
def test_line_ends_and_byte_order_marks_do_not_matter(same: bytes) -> None:
    assert migration(same) == migration(SAMPLE)


@pytest.mark.parametrize("up", ["-- up migration", "  --Up   Migration\t", "--\tUP MIGRATION"])
def test_markers_in_any_case(up: str) -> None:
    found = migration(f"{up}\nSELECT 1;\n--down migration".encode())
    assert found.up.text == "SELECT 1;\n"
    assert found.down is not None
    assert found.down.text == ""


@pytest.mark.parametrize(
    "hidden",
    [
        "'\n-- DOWN MIGRATION\n'",
        "E'\\'\n-- DOWN MIGRATION\n'",
        '"\n-- DOWN MIGRATION\n"',
        "$$\n-- DOWN MIGRATION\n$$",
        "$a$ $$\n-- DOWN MIGRATION\n$a$",
        "/* /*\n-- DOWN MIGRATION\n*/\n-- DOWN MIGRATION\n*/",
        "1 -- DOWN MIGRATION",
        "'\n-- reconciler: no-such-thing\n'",
    ],
)
def test_lines_inside_quotes_and_comments_are_no_markers(hidden: str) -> None:
    found = migration(f"-- UP MIGRATION\nSELECT {hidden};\n-- DOWN MIGRATION\nSELECT 2".encode())
    assert found.up.text == f"SELECT {hidden};\n"
    assert found.down == Script("SELECT 2", PATH, found.up.text.count("\n") + 3)


def test_a_hidden_marker_is_noticed_when_none_is_left() -> None:
    parsed = parse(PATH, b"-- UP MIGRATION\nSELECT 'it;\n-- DOWN MIGRATION\nSELECT 'is';\n-- '")
    assert parsed.migration.down is None
    assert [(notice.rule, str(notice.place)) for notice in parsed.notices] == [
        ("marker-in-quotes", f"{PATH}:3:1")
    ]


def test_markers_among_the_rows_of_a_copy_are_rows() -> None:
    rows = b"COPY t FROM stdin; -- of it\nit's\n-- UP MIGRATION\n-- DOWN MIGRATION\n"
    down = b"\\restrict k\nCOPY u FROM stdin;\n-- DOWN MIGRATION\n\\.\n"
    # the last statement of a section needs no `;`
    text = b"-- UP MIGRATION\n" + rows + b"\\.\nSELECT 1\n-- DOWN MIGRATION\n" + down
    read = parse("1_x.sql", text)
    assert read.notices == ()
    assert read.migration.up.text.encode() == rows + b"\\.\nSELECT 1\n"
    assert read.migration.down is not None
    assert read.migration.down.text.encode() == down
    assert read.migration.down.first_line == 9


def test_a_marker_that_only_rows_hold_is_noticed() -> None:
    (notice,) = parse("1_x.sql", UP + b"COPY t FROM stdin;\n-- DOWN MIGRATION\n\\.\n").notices
    assert (notice.rule, notice.place.line) == ("marker-in-quotes", 4)


def test_directives() -> None:
    found = migration(
        b"""-- reconciler: no-transaction
--reconciler:lock-timeout 10s
--  Reconciler : Statement-Timeout 1h30m
-- reconciler: ignore missing-down  the log only grows
-- reconciler: ignore other because
-- reconciler: allow-destructive nobody reads it
/* and a comment */
-- UP MIGRATION
SELECT 1"""
    )
    assert found.directives == Directives(
        no_transaction=True,
        lock_timeout=10,
        statement_timeout=5400,
        allow_destructive="nobody reads it",
        ignore={"missing-down": "the log only grows", "other": "because"},
    )
    assert found.up == Script("SELECT 1", PATH, 9)


def test_irreversible_has_no_down() -> None:
    content = b"-- reconciler: irreversible\n-- UP MIGRATION\nSELECT 1;\n"
    assert migration(content).directives.irreversible
    assert migration(content + b"-- DOWN MIGRATION\n-- none on purpose\n").down is None


def test_an_empty_down_is_a_down() -> None:
    parsed = parse(PATH, b"-- UP MIGRATION\nSELECT 1;\n-- DOWN MIGRATION\n-- nothing to take back\n")
    assert parsed.migration.down == Script("-- nothing to take back\n", PATH, 4)
    assert [(notice.rule, notice.place.line) for notice in parsed.notices] == [("empty-down", 3)]


def test_a_header_of_another_file_is_noticed() -> None:
    (notice,) = parse(PATH, SAMPLE.replace(b"00042_add", b"00041_add")).notices
    assert (notice.rule, str(notice.place)) == ("header-file-name", f"{PATH}:1:15")
    assert parse(PATH, SAMPLE.replace(b"things.sql", b"things")).notices == ()


UP = b"-- UP MIGRATION\nSELECT 1;\n"


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"", "1:1", "the file is empty"),
        (b"\xef\xbb\xbf\r\n \n", "1:1", "the file is empty"),
        (b"-- a\n\nSELECT 1;", "3:1", "has no line `-- UP MIGRATION`"),
        (b"-- only a comment\n", "1:1", "has no line `-- UP MIGRATION`"),
        (b"/*\n-- UP MIGRATION\n*/ SELECT 1", "2:1", "inside quotes, a block comment"),
        (b"-- UP MIGRATION\n\n-- nothing\n/* at all */ ;\n", "1:1", "the up section holds no statement"),
        (b"\n-- UP MIGRATION\n-- DOWN MIGRATION\nSELECT 1", "2:1", "the up section holds no statement"),
        (UP + b"\n -- up migration\nSELECT 2", "4:2", "a second line `-- UP MIGRATION`"),
        (UP + b"-- DOWN MIGRATION\n-- DOWN MIGRATION\n", "4:1", "a second line `-- DOWN MIGRATION`"),
        (b"-- DOWN MIGRATION\nSELECT 1;\n" + UP, "1:1", "comes before `-- UP MIGRATION`"),
        (b"-- a\nSELECT 0;\n" + UP, "2:1", "text above the first section"),
        (b"-- reconciler: no-transation\n" + UP, "1:16", "'no-transation' is unknown"),
        (b"-- reconciler:\n" + UP, "1:15", "directive is empty"),
        (b"-- reconciler: irreversible\n-- reconciler: irreversible\n" + UP, "2:16", "given twice"),
        (b"-- reconciler: irreversible yes\n" + UP, "1:16", "takes no argument"),
        (b"-- reconciler: lock-timeout 10\n" + UP, "1:16", "has no unit"),
        (b"-- reconciler: statement-timeout soon\n" + UP, "1:16", "'soon'"),
        (b"-- reconciler: lock-timeout\n" + UP, "1:16", "lock-timeout"),
        (b"-- reconciler: ignore missing-down\n" + UP, "1:16", "needs a rule and a reason"),
        (b"-- reconciler: ignore a b\n-- reconciler: ignore a c\n" + UP, "2:16", "ignored twice"),
        (b"-- reconciler: allow-destructive\n" + UP, "1:16", "has no reason"),
        (UP + b"-- reconciler: no-transaction\n", "3:1", "inside a section"),
        (
            b"-- reconciler: irreversible\n" + UP + b"-- DOWN MIGRATION\nSELECT 1",
            "4:1",
            "marked irreversible",
        ),
        (UP + b"\xc3\xa9 \xff", "3:3", "0xff here is not UTF-8"),
        (UP + b"SELECT '\0'", "3:9", "NUL"),
        (SAMPLE.decode().encode("utf-16"), "1:1", "UTF-16"),
        (UP + b"SELECT 'a\n", "3:8", "string that opens here is never closed"),
        (UP + b"SELECT $x$a\n", "3:8", r"dollar-quoted string that \$x\$ opens"),
        (UP + b"/* a\n", "3:1", "block comment"),
        (UP + b"COPY t FROM stdin;\nit's\n-- DOWN MIGRATION\n", "3:1", "COPY ... FROM STDIN are never ended"),
        (b"\\restrict k\n" + UP, "1:1", "text above the first section"),
        (UP + b"\\echo it's\n", "3:1", r"\\echo is a psql meta-command"),
    ],
)
def test_refused(content: bytes, place: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        migration(content)
    problem = caught.value.problem
    assert problem.reason is Reason.MIGRATION_INVALID
    assert problem.version == 42
    assert str(problem.place) == f"{PATH}:{place}"
    assert problem.remedy
    assert problem.excerpt.split("\n")[-1].strip() == "^"


@pytest.mark.parametrize(
    "line",
    [
        "-- DOWN MIGRATION:",
        "-- DOWN MIGRATION (drops everything)",
        "--- DOWN MIGRATION ---",
        "-- ===== down migration =====",
        "-- DOWN MIGRATIONS",
        "-- DOWN_MIGRATION",
        "-- DOWNMIGRATION",
        "-- MIGRATION DOWN",
        "-- DOWN",
        "-- down:",
    ],
)
def test_what_is_almost_a_marker_is_never_taken_for_a_comment(line: str) -> None:
    with pytest.raises(ProblemError, match="almost, but not quite, the marker `-- DOWN MIGRATION`"):
        migration(UP + line.encode() + b"\nDROP TABLE t;\n")


@pytest.mark.parametrize("line", ["-- +goose Down", "-- migrate:down"])
def test_other_tools_markers_are_refused(line: str) -> None:
    with pytest.raises(ProblemError, match="another migration tool's format"):
        migration(UP + line.encode() + b"\nDROP TABLE t;\n")


@pytest.mark.parametrize(
    "line", ["-- update the rows", "-- down to the last row", "-- Migration notes: none", "-- upmost"]
)
def test_ordinary_comments_stay_comments(line: str) -> None:
    assert migration(UP + line.encode() + b"\n").up.text.endswith(f"{line}\n")
