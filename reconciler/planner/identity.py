"""Whether a file is that of the migration which a row says was applied: two branches can give one number to two."""

from __future__ import annotations

from reconciler.model import HistoryRow, Migration
from reconciler.planner.memory import token_checksum_of


def same_name(name: str, migration: Migration) -> bool:
    """True when a row's name is the file's, in any of the forms that it is kept in; the column holds 255 characters."""
    file_name = migration.file_name
    return name in (migration.name, migration.name[:255], file_name, file_name.removesuffix(".sql"))


def is_another_migration(row: HistoryRow, migration: Migration) -> bool:
    """True when both the name and the SQL of `migration` differ from what `row` says was applied.

    A file that was only renamed, or only rewritten, is still the same migration; so is one of which the row does not know the
    SQL.
    """
    return (
        row.token_checksum is not None
        and not same_name(row.name, migration)
        and token_checksum_of(migration.up.text) != row.token_checksum
    )
