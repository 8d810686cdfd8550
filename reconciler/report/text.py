"""Small pieces of text: counts, instants, durations, and characters that must not reach a terminal as they are."""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNKNOWN = "-"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with every control character but tab and line feed spelled out.

    File names, SQL and a server's messages come from elsewhere; none of them gets to move the cursor or rename the window.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`text` on a single line, fit for a terminal."""
    return printable(" ".join(text.split()))


def indented(text: str, indent: str) -> str:
    """Every line of `text` behind `indent`."""
    return "\n".join(indent + line if line else line for line in text.split("\n"))


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 step`, `2 steps`, `no steps`."""
    noun = singular if number == 1 else plural or singular + "s"
    return f"{number or 'no'} {noun}"


def version_text(version: int | None) -> str:
    """A version, or a dash."""
    return UNKNOWN if version is None else str(version)


def instant(value: datetime | None) -> str:
    """`2026-01-02 03:04:05Z`; one without a time zone is UTC, as our tables store it."""
    if value is None:
        return UNKNOWN
    utc = value if value.tzinfo is None else value.astimezone(UTC)
    return f"{utc:%Y-%m-%d %H:%M:%S}Z"


def since(value: datetime | None, now: datetime) -> str:
    """An instant and how long ago that is: `2026-01-02 03:04:05Z (3 min ago)`."""
    return UNKNOWN if value is None else f"{instant(value)} ({age(value, now)})"


def age(value: datetime | None, now: datetime) -> str:
    """How long ago an instant is: `3 min ago`."""
    if value is None:
        return UNKNOWN
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return _ago((now - aware).total_seconds())


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"


def elapsed(seconds: float) -> str:
    """How long something took: `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
