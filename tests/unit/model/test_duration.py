from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.duration import LONGEST_DURATION, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86_400.0),
        ("1m500ms", 60.5),
        ("90m", 5400.0),
        ("007s", 7.0),
    ],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "0"])
def test_a_bare_number_is_told_to_have_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match=f"has no unit: write {text}s"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1s",
        "+1s",
        "1.5s",
        "1 s",
        " 1s",
        "1s ",
        "1s\n",
        "30m1h",
        "1s1s",
        "1us",
        "1S",
        "1e3s",
        "٣s",
        "∞",
        "1_0s",
    ],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write whole numbers"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["25d", "2147483648ms", "9999999999s"])
def test_refuses_what_the_server_cannot_hold(text: str) -> None:
    with pytest.raises(ValueError, match="is too long: at most 24d20h31m23s647ms"):
        parse_duration(text)


def test_a_huge_text_fails_fast() -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration("1" * 1_000_000 + "x")


@given(st.integers(min_value=0, max_value=round(LONGEST_DURATION * 1000)))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


def test_writes_lengths_that_no_timeout_can_have() -> None:
    assert format_duration(0) == "0s"
    assert format_duration(40 * 86_400 + 0.0004) == "40d"


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_refuses_what_is_no_length_of_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="no length of time"):
        format_duration(seconds)
