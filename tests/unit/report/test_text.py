"""Counts, instants, durations and characters that must not reach a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.report.text import counted, elapsed, instant, one_line, printable, since

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.text())
def test_printable_leaves_no_control_character_but_tab_and_line_feed(text: str) -> None:
    shown = printable(text)
    assert not any(ord(each) < 32 and each not in "\t\n" for each in shown)
    assert not any(127 <= ord(each) < 160 for each in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "\x9b1m", "\u202egnp", "\x07"])
def test_escape_sequences_are_spelled_out(text: str) -> None:
    assert "\\" in printable(text)


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def test_instants_are_utc() -> None:
    assert instant(NOW) == "2026-01-02 03:04:05Z"
    assert instant(NOW.replace(tzinfo=None)) == "2026-01-02 03:04:05Z"
    assert instant(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02 03:04:05Z"
    assert instant(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "ago"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_since_says_how_long_ago(seconds: float, ago: str) -> None:
    assert since(NOW, NOW + timedelta(seconds=seconds)) == f"2026-01-02 03:04:05Z ({ago})"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.012, "12 ms"),
        (3.42, "3.4 s"),
        (59.96, "60.0 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_elapsed(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


def test_counted() -> None:
    assert [counted(number, "step") for number in (0, 1, 2)] == ["no steps", "1 step", "2 steps"]
    assert counted(2, "entry", "entries") == "2 entries"
