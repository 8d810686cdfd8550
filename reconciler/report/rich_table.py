"""Tables on a terminal, in colours."""

from __future__ import annotations

import io

import rich.box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reconciler.report.table import Table, fitted, table_width

_WIDEST = 10_000
"""Columns. A table that cannot be cut takes the width it needs: broken lines are easier to read than folded cells."""


def rich_table(table: Table, *, colours: bool, columns: int = _WIDEST) -> str:
    """`table` as text with escape sequences.

    Args:
        table: the table. Its cells are shown as they are: no markup is looked for in them.
        colours: False leaves out colours and keeps weight.
        columns: of the terminal. Elastic columns are cut to fit; where that is not enough, lines are longer.
    """
    table = fitted(table, columns)
    # the rule is as wide as the longest line, and would break with it
    box = rich.box.SIMPLE_HEAD if table_width(table) <= columns else None
    # with a box, one of the two blanks between columns is the box's
    padding = (0, 1 if box else 2, 0, 0)
    rendered = RichTable(box=box, show_edge=False, pad_edge=False, padding=padding, header_style="bold")
    for header in table.headers:
        rendered.add_column(header, justify="right" if header in table.right else "left", no_wrap=True)
    for row in table.rows:
        rendered.add_row(*(Text(cell, style=table.styles.get(cell, "")) for cell in row))
    output = io.StringIO()
    console = Console(
        file=output,
        width=_WIDEST,
        force_terminal=True,
        no_color=not colours,
        highlight=False,
        legacy_windows=False,
    )
    console.print(rendered)
    return "\n".join(line.rstrip() for line in output.getvalue().strip("\n").split("\n"))
