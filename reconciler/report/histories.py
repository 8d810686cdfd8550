"""The history of a database as tables: what is applied, and every attempt."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.history import AppliedMigration, JournalEvent
from reconciler.report.table import Table
from reconciler.report.text import UNKNOWN, elapsed, instant, one_line, version_text

_STYLES = {"success": "green", "running": "cyan", "failed": "bold red", "down": "yellow"}
_LONGEST = 100
_SHORT_REVISION = 8


def applied_table(rows: Sequence[AppliedMigration]) -> Table:
    """The rows of `schema_migrations`."""
    headers = ("VERSION", "NAME", "STATUS", "APPLIED AT", "TOOK", "REVISION")
    cells = [
        (
            str(row.version),
            one_line(row.name),
            _state(row),
            instant(row.applied_at),
            UNKNOWN if row.execution_time_ms is None else elapsed(row.execution_time_ms / 1000),
            (row.git_revision or UNKNOWN)[:_SHORT_REVISION],
        )
        for row in rows
    ]
    return Table(headers, cells, frozenset({"VERSION", "TOOK"}), _STYLES, frozenset({"NAME"}))


def journal_table(events: Sequence[JournalEvent]) -> Table:
    """The events of `schema_migrations_journal`."""
    headers = ("AT", "EVENT", "VERSION", "DIRECTION", "OUTCOME", "MESSAGE")
    cells = [
        (
            instant(event.at),
            one_line(event.event),
            version_text(event.version),
            event.direction or UNKNOWN,
            one_line(event.outcome or UNKNOWN),
            _message(event),
        )
        for event in events
    ]
    return Table(headers, cells, frozenset({"VERSION"}), _STYLES, frozenset({"MESSAGE"}))


def _state(row: AppliedMigration) -> str:
    return row.status.value if row.direction.value == "up" else f"{row.status} (down)"


def _message(event: JournalEvent) -> str:
    text = one_line(": ".join(part for part in (event.reason, event.message) if part))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
