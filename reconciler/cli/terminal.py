"""Standard output and standard error: what is a terminal, what may be coloured, how tables and JSON are written."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

from reconciler.report.table import Table, plain_table


def on_terminal(stream: TextIO | None = None) -> bool:
    """True when `stream` (standard output by default) is shown to a person as it is written."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colours_wanted() -> bool:
    """False when NO_COLOR is set to anything (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def write(text: str) -> None:
    """Write text to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_table(table: Table) -> None:
    """Write a table: by rich on a terminal, as plain aligned lines elsewhere."""
    if not on_terminal():
        write(plain_table(table))
        return
    import shutil

    from reconciler.report.rich_table import rich_table

    write(rich_table(table, colours=colours_wanted(), columns=shutil.get_terminal_size().columns))


def write_json(value: Any) -> None:
    """Write one JSON document."""
    import json

    write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2))


def write_error(text: str) -> None:
    """Write what went wrong to standard error. The word that says how bad it is gets a colour on a terminal."""
    if on_terminal(sys.stderr) and colours_wanted():
        text = coloured(text)
    write_note(text)


def coloured(text: str) -> str:
    """`text` with the first `error:`, `refused:` or `warning:` in colour."""
    import re

    def paint(match: re.Match[str]) -> str:
        return f"\x1b[1;{'31' if match[1] == 'error' else '33'}m{match[1]}\x1b[0m:"

    return re.sub(r"\b(error|refused|warning):", paint, text, count=1)


def write_finding(text: str) -> None:
    """Write what is wrong to standard output, since it is the answer: with colours on a terminal."""
    write(coloured(text) if on_terminal() and colours_wanted() else text)


def write_note(text: str) -> None:
    """Write something beside the result to standard error, where it does no harm to who reads the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
