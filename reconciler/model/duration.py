"""Durations as people write them in manifests, directives and options: `500ms`, `30s`, `5m`, `1h30m`, `0s`."""

from __future__ import annotations

import re

LONGEST_DURATION = 2_147_483.647
"""Seconds, almost 25 days: what PostgreSQL's timeouts can hold (31 bits of milliseconds)."""

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,10}}){unit})?" for unit in _UNITS))
_BARE_NUMBER = re.compile(r"[0-9]{1,10}")


def parse_duration(text: str) -> float:
    """Read a duration: whole numbers, each with a unit of `d`, `h`, `m`, `s` or `ms`, the larger units first.

    Args:
        text: for example `1h30m`. A number without a unit is refused: nobody remembers whether it meant seconds.

    Returns:
        Seconds.

    Raises:
        ValueError: `text` is no duration, or longer than `LONGEST_DURATION`; the message is a clause that says what
            was expected and may be shown as it is.
    """
    if _BARE_NUMBER.fullmatch(text):
        raise ValueError(f"has no unit: write {text}s for seconds, or {text}ms for milliseconds")
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError(
            "is no duration: write whole numbers with the units d, h, m, s or ms, such as 30s, 5m, 1h30m or 500ms"
        )
    milliseconds = sum(int(match[unit] or 0) * length for unit, length in _UNITS.items())
    if milliseconds > LONGEST_DURATION * 1000:
        raise ValueError(f"is too long: at most {format_duration(LONGEST_DURATION)} is possible")
    return milliseconds / 1000


def format_duration(seconds: float) -> str:
    """Write `seconds` the way `parse_duration` reads it, to the millisecond: `1h30m`, `0s`.

    Raises:
        ValueError: `seconds` is negative or not finite.
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds} is no length of time")
    rest = round(seconds * 1000)
    parts: list[str] = []
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
