r"""What stands in a script and is no SQL: the rows behind a `COPY ... FROM STDIN`, and lines that pg_dump writes for psql.

Rows go to the server by another way than statements, and `\restrict` lines not at all. Both are cut out before anybody looks
for statements, and whatever is found in the rest is brought back to where it stands in the script.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from reconciler.sqltext.lexer import CLIENT_LINE, LexicalError, line_comments, tokens
from reconciler.sqltext.splitter import FROM_CLIENT, StatementReader, copy_partner

_CLIENT_LINE_START = re.compile(r"(?:\A|\n)[ \t]*\\")


class Rows(NamedTuple):
    r"""The rows of one COPY: `start` and `end` of their lines, without the line `\.`, and where its statement begins."""

    statement: int
    start: int
    end: int


class ServerText(NamedTuple):
    """The part of a script that is SQL.

    `text` is that part; `rows` are what was cut out behind each COPY, by offsets of the script; `cuts` are the indexes of
    `text` at which something was cut out, and `removed` how many characters were cut out up to each.
    """

    text: str
    rows: tuple[Rows, ...] = ()
    cuts: tuple[int, ...] = ()
    removed: tuple[int, ...] = (0,)

    def original(self, offset: int) -> int:
        """Return the index in the script of the character at `offset` of `text`."""
        return offset + self.removed[bisect_right(self.cuts, offset)]


def server_text(script: str) -> ServerText:
    r"""Cut out of `script` what is no SQL.

    Raises:
        LexicalError: rows that are never ended or do not begin on a line of their own, a psql meta-command, a `\restrict`
            inside a statement; and, where there is reason to look closely, whatever `tokens` refuses.
    """
    if not _may_hold_more_than_sql(script):
        return ServerText(script)
    rows: list[Rows] = []
    kept: list[str] = []
    cuts: list[int] = []
    removed = [0]
    position = 0
    for part in _walk(script, None):
        if isinstance(part, _Cut):
            kept.append(script[position : part.start])
            position = part.end
            cuts.append(part.start - removed[-1])
            removed.append(removed[-1] + part.end - part.start)
            if part.rows is not None:
                rows.append(part.rows)
    kept.append(script[position:])
    return ServerText("".join(kept), tuple(rows), tuple(cuts), tuple(removed))


def outer_comments(text: str, ends_script: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each `--` comment of a file that stands outside quotes, block comments and rows of a COPY.

    Args:
        text: the file.
        ends_script: told start and end of a comment, says whether another script begins there: no statement goes on.

    Raises:
        LexicalError: see `line_comments` and `server_text`.
    """
    if not _may_hold_more_than_sql(text):
        yield from line_comments(text)
        return
    for part in _walk(text, ends_script):
        if not isinstance(part, _Cut):
            yield part


class _Cut(NamedTuple):
    """What is not for the server's eyes, from `start` to `end`."""

    start: int
    end: int
    rows: Rows | None


def _may_hold_more_than_sql(text: str) -> bool:
    """False for most texts, at little cost: the answer for the others takes reading every token."""
    if "\\" in text and _CLIENT_LINE_START.search(text):
        return True
    lowered = text.lower()
    # the grammar takes either word for both directions
    return "stdin" in lowered or "stdout" in lowered


def _walk(text: str, ends_script: Callable[[int, int], bool] | None) -> Iterator[_Cut | tuple[int, int]]:
    """Yield what is to be cut out of `text` and, when comments can end a script, every `--` comment."""
    reader = StatementReader()
    position = 0
    while True:
        seen = position
        for token in tokens(text, position):
            if ends_script is not None:
                for comment in _comments(text, seen, token.start):
                    if ends_script(*comment):
                        reader = StatementReader()
                    yield comment
                seen = token.end
            if token.kind == CLIENT_LINE:
                if reader.current:
                    raise LexicalError(
                        token.start,
                        f"{token.text.split()[0]} stands inside a statement",
                        "move the line between two statements, or remove it",
                    )
                yield _Cut(token.start, token.end, None)
                continue
            statement = reader.feed(token)
            if statement is not None and copy_partner(statement) == FROM_CLIENT:
                cut = _rows(text, statement[0].start, token.end)
                yield cut
                position = cut.end
                break
        else:
            break
    if ends_script is not None:
        yield from _comments(text, seen, len(text))
        return
    last = reader.finish()
    if last is not None and copy_partner(last) == FROM_CLIENT:
        raise _never_ended(last[0].start)


def _comments(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The `--` comments between two tokens."""
    if text.find("--", start, end) >= 0:
        for first, last in line_comments(text[start:end]):
            yield start + first, start + last


def _rows(text: str, statement: int, end: int) -> _Cut:
    r"""The rows of the COPY that begins at `statement` and whose `;` ends at `end`: from the next line to a line `\.`."""
    line_end = text.find("\n", end)
    behind = text[end : line_end if line_end >= 0 else len(text)]
    if behind.strip() and not behind.lstrip().startswith("--"):
        raise LexicalError(
            end + len(behind) - len(behind.lstrip()),
            "something stands behind the `;` of a COPY ... FROM STDIN, whose rows begin on the next line",
            "move it behind the line `\\.` that ends the rows",
        )
    if line_end < 0:
        raise _never_ended(statement)
    found = line_end
    while (found := text.find("\n\\.", found)) >= 0:
        after = found + 3
        while text.startswith("\r", after):
            after += 1
        if after == len(text) or text[after] == "\n":
            start = line_end + 1
            return _Cut(start, min(after + 1, len(text)), Rows(statement, start, found + 1))
        found += 1
    raise _never_ended(statement)


def _never_ended(statement: int) -> LexicalError:
    return LexicalError(
        statement,
        "the rows of this COPY ... FROM STDIN are never ended",
        "end the statement with `;`, write the rows below it, and a line `\\.` below them",
    )
