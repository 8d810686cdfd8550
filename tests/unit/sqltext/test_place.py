"""Offsets become lines, columns and pictures."""

from __future__ import annotations

import pytest

from reconciler.model import Script
from reconciler.sqltext import excerpt, locate


@pytest.mark.parametrize(
    ("offset", "place"),
    [(0, "5:1"), (2, "5:3"), (3, "6:1"), (5, "6:3"), (6, "7:1"), (99, "7:1"), (-1, "5:1")],
)
def test_locate(offset: int, place: str) -> None:
    assert str(locate(Script("ab\ncd\n", "f.sql", 5), offset)) == f"f.sql:{place}"


@pytest.mark.parametrize(
    ("line", "index", "expected"),
    [
        ("select x", 7, "select x\n       ^"),
        ("\tselect\tx", 8, "\tselect\tx\n\t      \t^"),
        ("'日本' x", 5, "'日本' x\n       ^"),
        ("e\u0301 x", 3, "e\u0301 x\n  ^"),
        ("a\x1b[31m x", 7, "a\ufffd[31m x\n       ^"),
        ("", 0, "\n^"),
        (
            "ALTER ROLE r PASSWORD 'hunter2' x",
            32,
            "ALTER ROLE r PASSWORD ********* x\n                                ^",
        ),
    ],
)
def test_excerpt(line: str, index: int, expected: str) -> None:
    script = Script(f"before\n{line}\nafter", "f.sql", 1)
    assert excerpt(script, 7 + index) == expected


@pytest.mark.parametrize("index", [0, 60, 5000, 9998])
def test_long_lines_are_cut_around_the_caret(index: int) -> None:
    line = "".join(chr(ord("a") + position % 26) for position in range(10_000))
    shown, caret = excerpt(Script(line, "f.sql", 1), index).split("\n")
    assert len(shown) < 110
    assert shown[len(caret) - 1] == line[index]
