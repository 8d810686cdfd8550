"""Tables: plain for pipes and files, by rich on terminals."""

from __future__ import annotations

import re

from reconciler.report.rich_table import rich_table
from reconciler.report.table import Table, plain_table

TABLE = Table(
    ("NAME", "VERSION"), [("[red]a", "7"), ("表", "1234567890")], frozenset({"VERSION"}), {"7": "green"}
)


def test_plain_is_aligned_by_what_a_terminal_shows() -> None:
    assert plain_table(TABLE) == "NAME       VERSION\n[red]a           7\n表      1234567890"


def test_plain_of_nothing_is_its_headers() -> None:
    assert plain_table(Table(("A", "B"), [])) == "A  B"


def test_plain_cuts_nothing_off() -> None:
    assert "x" * 500 in plain_table(Table(("A", "B"), [("x" * 500, "y")]))


def test_rich_takes_no_markup_from_cells_and_folds_nothing() -> None:
    shown = rich_table(Table(("NAME",), [("[bold]" + "x" * 300,)]), colours=True)
    assert "[bold]" + "x" * 300 in shown


def test_rich_leaves_colours_out_when_told() -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert coloured.search(rich_table(TABLE, colours=True))
    assert not coloured.search(rich_table(TABLE, colours=False))
