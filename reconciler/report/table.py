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
        elastic: the headers of the columns that may be cut where a line of a terminal is too short.
    """

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()
    styles: Mapping[str, str] = {}
    elastic: frozenset[str] = frozenset()


_GAP = 2
_NARROWEST = 12
"""Columns of a terminal that are left of a cell that is cut."""


def table_width(table: Table) -> int:
    """How many columns of a terminal the lines of `plain_table` take."""
    widths = _widths(table)
    return sum(widths) + _GAP * (len(widths) - 1)


def fitted(table: Table, columns: int) -> Table:
    """`table` with its elastic columns cut as far as it takes to fit into `columns`, the last one first."""
    excess = table_width(table) - columns
    for index in reversed(range(len(table.headers))):
        if excess <= 0 or table.headers[index] not in table.elastic:
            continue
        wide = _widths(table)[index]
        narrow = max(wide - excess, min(wide, _NARROWEST))
        rows = [(*row[:index], _cut(row[index], narrow), *row[index + 1 :]) for row in table.rows]
        table = table._replace(rows=rows)
        excess -= wide - narrow
    return table


def plain_table(table: Table) -> str:
    """`table` as aligned lines of whatever width it takes: what reads it may be a program, and nothing is cut off."""
    lines = [table.headers, *table.rows]
    widths = _widths(table)
    rendered = []
    for line in lines:
        cells = [
            _pad(cell, width, right=header in table.right)
            for cell, width, header in zip(line, widths, table.headers, strict=True)
        ]
        rendered.append((" " * _GAP).join(cells).rstrip())
    return "\n".join(rendered)


def _widths(table: Table) -> list[int]:
    return [max(map(_width, column)) for column in zip(table.headers, *table.rows, strict=True)]


def _cut(cell: str, width: int) -> str:
    if _width(cell) <= width:
        return cell
    while _width(cell) >= width:
        cell = cell[:-1]
    return cell + "…"


def _pad(cell: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if right else cell + blanks


def _width(cell: str) -> int:
    """How many columns of a terminal `cell` takes."""
    if cell.isascii():
        return len(cell)
    from unicodedata import combining, east_asian_width

    return sum(2 if east_asian_width(each) in "WF" else 0 if combining(each) else 1 for each in cell)
