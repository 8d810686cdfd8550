"""A migration: one numbered change with an up and, normally, a down script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from reconciler.model.value import value


class Direction(StrEnum):
    """Which way a step moves the schema."""

    UP = "up"
    DOWN = "down"


class ScriptSource(StrEnum):
    """Where the text of a step's script was taken from."""

    CHECKOUT = "checkout"
    """The file at the revision being applied."""
    STORED = "stored"
    """The text kept in the database when the migration was applied."""


@value
class Script:
    """The SQL of one direction and where it stands.

    Args:
        text: the SQL between the section's marker line and the next section or the file's end, line ends normalised.
        path: the file it came from; a stored script keeps the path it was applied from.
        first_line: the line of that file at which `text` begins, counted from 1.
    """

    text: str
    path: str
    first_line: int


@value
class Statement:
    """One SQL statement of a script.

    Args:
        text: the statement without its final `;` and without surrounding blanks and comments.
        offset: index of `text` in the script's text, in characters.
        line: the line of the *file* at which the statement begins, counted from 1.
        column: the column of that line, counted from 1, in characters.
        copy_data: the rows that follow a `COPY ... FROM STDIN`, each with its line end, without the line `\\.` that ends
            them; None for any other statement.
        copy_offset: index of `copy_data` in the script's text; None for any other statement.
    """

    text: str
    offset: int
    line: int
    column: int
    copy_data: str | None = None
    copy_offset: int | None = None


@value(kw_only=True)
class Directives:
    """What `-- reconciler:` lines ask for.

    Args:
        no_transaction: run statement by statement, outside a transaction.
        irreversible: has no down on purpose.
        lock_timeout: seconds, or None for the manifest's.
        statement_timeout: seconds (0 = none), or None for the manifest's.
        allow_destructive: the reason given, or None. Silences lint, never policy.
        ignore: lint rule -> reason.
    """

    no_transaction: bool = False
    irreversible: bool = False
    lock_timeout: float | None = None
    statement_timeout: float | None = None
    allow_destructive: str | None = None
    ignore: Mapping[str, str] = field(default_factory=dict)


@value(kw_only=True)
class Migration:
    """One parsed migration file.

    Args:
        version: 1 to 2^63-1.
        name: the file name without number and ending: `add_multitenancy`.
        path: from the repository's root.
        checksum: SHA-256 hex of the file, line ends normalised.
        up: the script of the UP section.
        down: the script of the DOWN section, or None.
        down_checksum: SHA-256 hex of `down.text`, or None.
        directives: what its `-- reconciler:` lines ask for.
        description: of its header, or empty.
        author: of its header, or empty.
    """

    version: int
    name: str
    path: str
    checksum: str
    up: Script
    down: Script | None
    down_checksum: str | None
    directives: Directives
    description: str = ""
    author: str = ""

    @property
    def file_name(self) -> str:
        """The last part of `path`."""
        return self.path.rpartition("/")[2]
