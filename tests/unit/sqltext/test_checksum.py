"""An edit of comments is told from an edit of SQL."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Script
from reconciler.sqltext import digest, normalise_line_ends, split, statements_digest, token_checksum


def test_digest_is_over_normalised_line_ends() -> None:
    assert digest("a\r\nb\n") == hashlib.sha256(b"a\nb\n").hexdigest()
    assert digest("a\rb") != digest("a\nb")
    assert digest("\ud800")


@given(st.text(st.sampled_from("a\r\n")))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise_line_ends(text)
    assert normalise_line_ends(once) == once


@pytest.mark.parametrize(
    "same",
    [
        "SELECT a+b,'x y' -- other\n;",
        "SELECT  a + b , 'x y' ;",
        "/* note */ SELECT a\r\n\t+ b, 'x y';\n\n",
    ],
)
def test_comments_and_blanks_do_not_matter(same: str) -> None:
    assert token_checksum(same) == token_checksum("SELECT a + b, 'x y';")


@pytest.mark.parametrize(
    "other",
    [
        *("select a + b, 'x y';", "SELECT a + b, 'x  y';", "SELECT a + b, 'x y'", "SELECT a - b, 'x y';"),
        *("SELECT a +- b, 'x y';", "SELECT a + - b, 'x y';", "SELECT ab, 'x y';", "SELECT a + b, $$x y$$;"),
    ],
)
def test_everything_else_does(other: str) -> None:
    assert token_checksum(other) != token_checksum("SELECT a + b, 'x y';")
    assert token_checksum("a +- b") != token_checksum("a + - b")


ROWS = "COPY t FROM stdin;\n1\ta -- b\n\\.\nSELECT 1;"


@pytest.mark.parametrize("same", ["\\restrict x\n" + ROWS, ROWS.replace("SELECT", "\n/* it's */ SELECT")])
def test_lines_for_psql_and_comments_around_rows_do_not_matter(same: str) -> None:
    assert token_checksum(same) == token_checksum(ROWS)


@pytest.mark.parametrize(
    "other", [ROWS.replace("b\n", "c\n"), ROWS.replace("\t", " "), ROWS.replace("\\.", "\n\\.")]
)
def test_every_character_of_rows_does(other: str) -> None:
    assert token_checksum(other) != token_checksum(ROWS)


def test_rows_are_part_of_what_was_done() -> None:
    done = [split(Script(text, "x.sql", 1)) for text in (ROWS, ROWS.replace("b\n", "c\n"))]
    assert statements_digest(done[0], 1) != statements_digest(done[1], 1)
    assert statements_digest(done[0], 2) != statements_digest(done[1], 2)
    commented = split(Script(ROWS.replace("COPY", "COPY /* x */"), "x.sql", 1))
    assert statements_digest(commented, 2) == statements_digest(done[0], 2)


def test_text_without_tokens_has_a_checksum_too() -> None:
    assert token_checksum("select 'a -- b") != token_checksum("select 'a -- c")
