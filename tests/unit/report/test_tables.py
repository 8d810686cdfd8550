"""Tables: plain for pipes and files, by rich on terminals."""

from __future__ import annotations

import re

from reconciler.report.rich_table import rich_table
from reconciler.report.table import Table, fitted, plain_table, table_width

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


def test_elastic_columns_give_way_to_a_narrow_terminal() -> None:
    table = Table(("A", "B", "C"), [("x" * 40, "y" * 40, "z" * 40)], elastic=frozenset({"A", "C"}))
    assert fitted(table, 200) == table
    cut = fitted(table, 100)
    assert table_width(cut) == 100
    assert cut.rows == [("x" * 40, "y" * 40, "z" * 15 + "…")]
    assert table_width(fitted(table, 10)) == 12 + 40 + 12 + 4
    assert fitted(Table(("A",), [("表" * 20,)], elastic=frozenset({"A"})), 21).rows == [("表" * 10 + "…",)]


def test_rich_takes_no_more_columns_than_the_terminal_has() -> None:
    table = Table(("NAME", "AT"), [("x" * 90, "y" * 20)], elastic=frozenset({"NAME"}))
    escape = re.compile(r"\x1b\[[0-9;]*m")
    lines = escape.sub("", rich_table(table, colours=True, columns=80)).splitlines()
    assert max(map(len, lines)) == 80
    assert "─" in lines[1]
    rigid = escape.sub("", rich_table(table._replace(elastic=frozenset()), colours=True, columns=80))
    assert "─" not in rigid
