"""A script as it is sent: without what is no SQL, and with the way back from the text that was sent to the script."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.model import Script, Statement

_BETWEEN = ";\n"


class Sendable(NamedTuple):
    """What the server gets of a script.

    `text` is the SQL, `copy_data` the rows of each COPY in it, in order. `starts` and `originals` say where each statement
    begins in `text` and in the script; both are empty when `text` is the script's own.
    """

    text: str
    copy_data: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    originals: tuple[int, ...] = ()

    def original(self, offset: int) -> int:
        """Return the index in the script of the character at `offset` of `text`."""
        if not self.starts:
            return offset
        index = max(bisect_right(self.starts, offset) - 1, 0)
        return self.originals[index] + offset - self.starts[index]


def sendable(script: Script, statements: Sequence[Statement]) -> Sendable:
    """Return what is sent of `script`, whose `statements` are known: the script itself, or, where it holds more than SQL,
    these alone."""
    copy_data = tuple(each.copy_data for each in statements if each.copy_data is not None)
    # the words may stand in a string: then nothing is lost but comments
    if not copy_data and "\\restrict" not in script.text and "\\unrestrict" not in script.text:
        return Sendable(script.text)
    starts = []
    position = 0
    for statement in statements:
        starts.append(position)
        position += len(statement.text) + len(_BETWEEN)
    text = _BETWEEN.join(statement.text for statement in statements)
    return Sendable(text, copy_data, tuple(starts), tuple(each.offset for each in statements))
