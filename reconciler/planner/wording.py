"""How migrations and numbers are spoken of in messages."""

from __future__ import annotations

from collections.abc import Iterable


def label(version: int, name: str) -> str:
    """How a migration is named in messages, whether or not its file still exists."""
    return f"migration {version} ({name})"


def listed(items: Iterable[object], *, limit: int = 5) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c, d, e and 3 more`."""
    words = [str(item) for item in items]
    if len(words) > limit:
        words = [*words[:limit], f"{len(words) - limit} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, noun: str) -> str:
    """`1 statement`, `2 statements`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
