"""Tables as values, and as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of text.

    Args:
        headers: of the columns.
        rows: each as long as the headers.
        right: the headers of the columns that are aligned to the right: numbers.
        styles: text of a cell -> the colour it gets on a terminal.
    """

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()
    styles: Mapping[str, str] = {}


def plain_table(table: Table) -> str:
    """`table` as aligned lines of whatever width it takes: what reads it may be a program, and nothing is cut off."""
    lines = [table.headers, *table.rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    rendered = []
    for line in lines:
        cells = [
            _pad(cell, width, right=header in table.right)
            for cell, width, header in zip(line, widths, table.headers, strict=True)
        ]
        rendered.append("  ".join(cells).rstrip())
    return "\n".join(rendered)


def _pad(cell: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if right else cell + blanks


def _width(cell: str) -> int:
    """How many columns of a terminal `cell` takes."""
    if cell.isascii():
        return len(cell)
    from unicodedata import combining, east_asian_width

    return sum(2 if east_asian_width(each) in "WF" else 0 if combining(each) else 1 for each in cell)
