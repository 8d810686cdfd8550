"""Named SQL blocks, read from one `.sql` file a dialect and filled with escaped literals."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\n(?P<body>.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")

_MOST = "postgresql"

Literal = str | int | float | bool | None


@cache
def read_blocks(dialect: str) -> dict[str, str]:
    """The named blocks of `<dialect>.sql`, without their comments; what it does not say in words of its own, in PostgreSQL's."""
    shared = read_blocks(_MOST) if dialect != _MOST else {}
    text = Path(__file__).with_name(f"{dialect}.sql").read_text(encoding="utf-8")
    own = {block["name"]: _COMMENT.sub("", block["body"]).strip() for block in _BLOCK.finditer(text)}
    return {**shared, **own}


class Queries:
    """The blocks of one dialect, for the tables in one schema.

    Args:
        dialect: the name of the `.sql` file.
        history_schema: where our tables live, unquoted.
        role: for the `set_role` block, unquoted; None when the login role stays.
        escape: makes a quoted literal of a text, by the rules of the open connection.
    """

    def __init__(
        self, dialect: str, history_schema: str, role: str | None, escape: Callable[[str], str]
    ) -> None:
        schema = quote_identifier(history_schema)
        self._names = {
            "schema": schema,
            "history": f"{schema}.schema_migrations",
            "journal": f"{schema}.schema_migrations_journal",
            "lock": f"{schema}.schema_migrations_lock",
            "role": quote_identifier(role) if role else "NONE",
            "schema_name": escape(history_schema),
        }
        self._blocks = read_blocks(dialect)
        self._escape = escape
        self._parts: dict[str, list[str]] = {}

    def __call__(self, name: str, /, **literals: Literal) -> str:
        """The SQL of block `name`, each `:parameter` replaced by its literal.

        Raises:
            KeyError: there is no such block, or a parameter was not given.
        """
        parts = self._parts.get(name)
        if parts is None:
            text = self._blocks[name].replace("{trusted}", self._blocks.get("trusted", ""))
            for placeholder, table in self._names.items():
                text = text.replace("{" + placeholder + "}", table)
            parts = self._parts[name] = _PARAMETER.split(text)
        if len(parts) == 1:
            return parts[0]
        filled = [
            part if index % 2 == 0 else self._literal(literals[part]) for index, part in enumerate(parts)
        ]
        return "".join(filled)

    def stored_downs(self, versions: list[int]) -> str:
        """The block `read_stored_downs` for these versions."""
        return self("read_stored_downs").replace(
            "{versions}", ", ".join(str(int(version)) for version in versions)
        )

    def attempts(self, *rows: str) -> str:
        """The block `insert_attempts` for these rows of the journal, each made from a block of its own."""
        return self("insert_attempts").replace("{rows}", ",\n".join(rows))

    def _literal(self, value: Literal) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return str(value)
        return self._escape(value)


def quote_identifier(name: str) -> str:
    """`name` as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'
