"""From an offset in a script to a line and column of its file, and to a picture of the place."""

from __future__ import annotations

import re
import unicodedata

from reconciler.model import Place, Script
from reconciler.redaction import redact

_WIDEST = 100
"""Longer source lines are shown in part: a generated INSERT of a megabyte helps nobody."""
_PASSWORD = re.compile(r"(\bPASSWORD\s*)('(?:[^']|'')*'?)", re.IGNORECASE)


def locate(script: Script, offset: int) -> Place:
    """Return the place in the script's file of the character at `offset` of its text; past the end means the end."""
    offset = min(max(offset, 0), len(script.text))
    line = script.text.count("\n", 0, offset)
    column = offset - script.text.rfind("\n", 0, offset)
    return Place(script.path, script.first_line + line, column)


def excerpt(script: Script, offset: int) -> str:
    """Return the source line that holds `offset`, a newline, and a caret under the character.

    Tabs are kept and repeated in the caret's line, so that the caret stands right at any width; characters that do
    something to a terminal are shown as `\N{REPLACEMENT CHARACTER}`; passwords are starred; long lines are cut around the caret.
    """
    offset = min(max(offset, 0), len(script.text))
    start = script.text.rfind("\n", 0, offset) + 1
    end = script.text.find("\n", offset)
    line = _starred(script.text[start : end if end >= 0 else len(script.text)])
    masked = redact(line)
    # before it is cut: the tail of a secret is not recognised as one; and no caret, since columns have moved
    return picture(line, offset - start) if masked == line else masked[:_WIDEST] + "\n"


def picture(line: str, index: int) -> str:
    """Return `line` and, under it, a caret below its character at `index`."""
    line = _starred(line)
    first = 0
    if len(line) > _WIDEST:
        first = max(0, min(index - _WIDEST // 2, len(line) - _WIDEST))
    shown = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}"
        for c in line[first : first + _WIDEST]
    )
    before = "".join("\t" if c == "\t" else " " * _width(c) for c in shown[: index - first])
    if first:
        shown, before = "…" + shown, " " + before
    if first + _WIDEST < len(line):
        shown += "…"
    return f"{shown}\n{before}^"


def _starred(line: str) -> str:
    """`line` with its passwords in stars, as many as they had characters."""
    return _PASSWORD.sub(lambda match: match[1] + "*" * len(match[2]), line)


def _width(character: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
