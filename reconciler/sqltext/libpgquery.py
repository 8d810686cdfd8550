"""PostgreSQL's own grammar, through libpg_query: where its statements begin and end, or why it is not SQL.

`postgast` brings the library as a wheel. Its package also loads protobuf and a parse tree we have no use for (65 ms and
9 MB), so only the module that declares the C functions is loaded, by its file.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from reconciler.errors import ReconcilerError


class GrammarError(Exception):
    """The grammar rejects the text.

    Args:
        offset: index of the character the grammar stumbled over, as far as it says; may be the length of the text.
        message: PostgreSQL's own words.
    """

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class Piece(NamedTuple):
    """Where a statement begins and ends, in characters. May hold comments at either end."""

    start: int
    end: int


def split(text: str) -> list[Piece]:
    """Return the statements that PostgreSQL 18's grammar finds in `text`, which must hold no NUL character.

    Raises:
        GrammarError: it is not SQL, or newer SQL than the grammar.
    """
    library = _library()
    encoded = text.encode()
    result = library.pg_query_split_with_parser(encoded)
    try:
        if result.error:
            error = result.error.contents
            message = (error.message or b"syntax error").decode("utf-8", "replace")
            raise GrammarError(max(error.cursorpos - 1, 0), message)
        spans = [
            (statement.stmt_location, statement.stmt_location + statement.stmt_len)
            for statement in (result.stmts[index].contents for index in range(result.n_stmts))
        ]
    finally:
        library.pg_query_free_split_result(result)
    if len(encoded) == len(text):
        return [Piece(start, end) for start, end in spans]
    return _in_characters(encoded, spans)


def _in_characters(encoded: bytes, spans: list[tuple[int, int]]) -> list[Piece]:
    """The library counts bytes. Each byte of `encoded` is looked at once."""
    pieces = []
    at_byte = at_character = 0
    for start, end in spans:
        first = at_character + len(encoded[at_byte:start].decode())
        at_byte, at_character = end, first + len(encoded[start:end].decode())
        pieces.append(Piece(first, at_character))
    return pieces


@cache
def _library() -> Any:
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("postgast")
    locations = package.submodule_search_locations if package else None
    if not locations:
        raise ReconcilerError(
            "postgast, which brings PostgreSQL's grammar, is not installed", remedy="install reconciler again"
        )
    path = Path(locations[0]) / "native.py"
    spec = importlib.util.spec_from_file_location("reconciler.sqltext._postgast_native", path)
    if spec is None or spec.loader is None:
        raise ReconcilerError(f"{path} cannot be loaded", remedy="install reconciler again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise ReconcilerError(
            f"libpg_query cannot be loaded: {error}", remedy="install postgast again"
        ) from error
    return module.lib
