"""The small migrations that everybody applies, in everybody's own format."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Small(NamedTuple):
    """One migration: its version, name, and the SQL up and down."""

    version: int
    name: str
    up: str
    down: str

    @property
    def stem(self) -> str:
        """Version and name as they begin a file's name."""
        return f"{self.version:05}_{self.name}"


def in_turn(count: int) -> list[Small]:
    """A table of six columns, an index on it, a column added to it, and so on: one statement each."""
    kinds = (_table, _index, _column)
    return [kinds[number % 3](number + 1, number // 3) for number in range(count)]


def all_three(count: int) -> list[Small]:
    """In each migration a table, an index on it, and a column added to an earlier table."""
    found = []
    for number in range(count):
        parts = [_table(0, number), _index(0, number)]
        if number:
            parts.append(_column(0, number - 1))
        up = "\n".join(part.up for part in parts)
        down = "\n".join(part.down for part in reversed(parts))
        found.append(Small(number + 1, f"add_orders_{number}", up, down))
    return found


Shape = Callable[[int], list[Small]]


def _table(version: int, number: int) -> Small:
    up = (
        f"CREATE TABLE orders_{number} (\n"
        "    id bigint PRIMARY KEY,\n"
        "    customer_id bigint NOT NULL,\n"
        "    reference text NOT NULL,\n"
        "    amount numeric(12, 2) NOT NULL DEFAULT 0,\n"
        "    state varchar(20) NOT NULL DEFAULT 'open',\n"
        "    created_at timestamptz NOT NULL DEFAULT now()\n"
        ");"
    )
    return Small(version, f"create_orders_{number}", up, f"DROP TABLE orders_{number};")


def _index(version: int, number: int) -> Small:
    name = f"orders_{number}_customer"
    up = f"CREATE INDEX {name} ON orders_{number} (customer_id, created_at);"
    return Small(version, f"index_orders_{number}", up, f"DROP INDEX {name};")


def _column(version: int, number: int) -> Small:
    up = f"ALTER TABLE orders_{number} ADD COLUMN note text;"
    return Small(version, f"note_on_orders_{number}", up, f"ALTER TABLE orders_{number} DROP COLUMN note;")


# formats


def native(migration: Small) -> tuple[str, str]:
    """File name and content for reconciler."""
    return (
        f"{migration.stem}.sql",
        f"-- Migration: {migration.stem}.sql\n-- Description: {migration.name}\n\n"
        f"-- UP MIGRATION\n{migration.up}\n\n-- DOWN MIGRATION\n{migration.down}\n",
    )


def dbmate(migration: Small) -> tuple[str, str]:
    """File name and content for dbmate."""
    return (
        f"{migration.stem}.sql",
        f"-- migrate:up\n{migration.up}\n\n-- migrate:down\n{migration.down}\n",
    )


def node_pg_migrate(migration: Small) -> tuple[str, str]:
    """File name and content for node-pg-migrate."""
    return (
        f"{1_700_000_000_000 + migration.version}_{migration.name}.sql",
        f"-- Up Migration\n{migration.up}\n\n-- Down Migration\n{migration.down}\n",
    )


def alembic(migration: Small) -> tuple[str, str]:
    """File name and content for alembic."""
    before = f'"{migration.version - 1:05}"' if migration.version > 1 else "None"
    return (
        f"{migration.stem}.py",
        f'"""{migration.name}"""\nfrom alembic import op\n\nrevision = "{migration.version:05}"\n'
        f"down_revision = {before}\n\n\ndef upgrade():\n    op.execute({migration.up!r})\n\n\n"
        f"def downgrade():\n    op.execute({migration.down!r})\n",
    )
