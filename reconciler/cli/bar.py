"""One line of a terminal, with a bar where it is known how far something has come.

Ours, since rich's takes 0.13 s to import, a thread, and a live display that scrolls what is printed meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NARROWEST = 10
_WIDEST = 40
"""Columns of the bar."""
_LEAST_TEXT = 8
"""Columns of text below which there is no room for a bar."""


def fitting_line(
    texts: Sequence[str], percent: float | None, columns: int, *, encoding: str = "utf-8"
) -> str:
    """The longest of `texts` that fits, with a bar and the percentage if there is one; on no account more than one line.

    Args:
        texts: the same, in fewer and fewer words.
        percent: 0 to 100; None when nobody knows.
        columns: of the terminal. The last one stays free, for some of them go to the next line when it is written to.
        encoding: of the terminal. What it does not have is spelled out, and the bar made of other letters.
    """
    room = columns - 1
    known = [text.replace("…", "...") if not _has(encoding, "…") else text for text in texts]
    known = [text.encode(encoding, "backslashreplace").decode(encoding) for text in known]
    more = "…" if _has(encoding, "…") else "..."
    if percent is None:
        return _longest(known, room, more)
    figure = f"{math.floor(percent):3d} %"
    if room < _LEAST_TEXT + _NARROWEST + len(figure) + 4:
        return (
            _longest(known, max(0, room - len(figure) - 1), more) + " " + figure if room > len(figure) else ""
        )
    blocks = _has(encoding, "█░")
    beside = len(figure) + 2 + (0 if blocks else 2)
    text = _longest(known, room - beside - _NARROWEST, more)
    width = min(_WIDEST, room - beside - cells(text))
    done = math.floor(width * percent / 100)
    bar = "█" * done + "░" * (width - done) if blocks else "[" + "#" * done + "." * (width - done) + "]"
    return f"{text} {bar} {figure}"


def cells(text: str) -> int:
    """How many columns `text` takes; never too few."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _longest(texts: Sequence[str], room: int, more: str) -> str:
    for text in texts:
        if cells(text) <= room:
            return text
    cut, left = "", room - len(more)
    for letter in texts[-1]:
        left -= cells(letter)
        if left < 0:
            break
        cut += letter
    return cut + more if room >= len(more) else ""


def _has(encoding: str, letters: str) -> bool:
    try:
        letters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
