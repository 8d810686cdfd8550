"""Reading, in one snapshot, everything that is promised about a database."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from reconciler.database.reading import ADVISORY_KEY

_SHAPE = """
SELECT 'relation' AS kind, c.relname::text AS name, c.relkind::text AS detail, '' AS state FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema\\_migrations%'
UNION ALL
SELECT 'column', c.relname::text, a.attname::text, t.typname::text FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema\\_migrations%' AND c.relkind = 'r'
  AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'index', c.relname::text, i.indisunique::text, (i.indisvalid AND i.indisready AND i.indislive)::text FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema\\_migrations%'
UNION ALL
SELECT 'constraint', c.conname::text, c.contype::text, c.convalidated::text FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid
WHERE c.connamespace = 'public'::regnamespace AND r.relname NOT LIKE 'schema\\_migrations%'
UNION ALL
SELECT 'function', proname::text, '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'label', t.typname::text, e.enumlabel::text, '' FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
UNION ALL
SELECT 'balance', version::text, value::text, '' FROM faults.balance WHERE value <> 0
UNION ALL
SELECT 'rows', batch::text, count(*)::text, md5(string_agg(id || word, ',' ORDER BY id)) FROM faults.loaded GROUP BY batch
"""
# catalogues are read as tables, so by the snapshot; functions such as to_regclass look at what is newest


@dataclass(frozen=True)
class Look:
    """What a database says of itself at one moment.

    Args:
        rows: of the history: version, status, direction.
        shape: every object, column, label, streamed row and net count of what the migrations made.
        events: the journal, oldest first.
        fence: of the lock's row, 0 when there is none.
        owner: of the lock's row.
        locked: somebody holds the advisory lock.
        clients: how many connections of ours there are.
        runs: how often each counted statement took effect.
    """

    shape: frozenset[tuple[str, ...]]
    runs: Counter[tuple[int, str, int]]
    rows: tuple[tuple[int, str, str], ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    fence: int = 0
    owner: str | None = None
    locked: bool = False
    clients: int = 0
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def in_doubt(self) -> bool:
        """A step outside a transaction is under way, or was cut off."""
        return any(status != "success" for _, status, _ in self.rows)

    @property
    def applied(self) -> list[int]:
        """The versions that count as applied."""
        return sorted(version for version, status, _ in self.rows if status == "success")

    def successes(self) -> Counter[tuple[int, str]]:
        """How many attempts the journal says came into force, by version and direction."""
        return Counter(
            (event["version"], event["direction"])
            for event in self.events
            if event["event"] == "finished" and event["outcome"] == "success"
        )


def look(dsn: str) -> Look:
    """Read a database, past all code of ours."""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        shape = frozenset(tuple(row.values()) for row in connection.execute(_SHAPE))
        counts = connection.execute(
            "SELECT version, direction, statement, count(*) AS times FROM faults.runs GROUP BY 1, 2, 3"
        )
        runs = Counter({(row["version"], row["direction"], row["statement"]): row["times"] for row in counts})
        advisory = connection.execute(
            "SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [ADVISORY_KEY >> 32, ADVISORY_KEY & 0xFFFFFFFF],
        ).fetchone()
        clients = connection.execute(
            "SELECT count(*) AS here FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler'"
        ).fetchone()
        assert advisory is not None
        assert clients is not None
        ours = connection.execute(
            "SELECT count(*) AS here FROM pg_class WHERE relname = 'schema_migrations_lock'"
        ).fetchone()
        if ours is None or not ours["here"]:
            return Look(shape, runs, locked=bool(advisory["held"]), clients=clients["here"])
        history = connection.execute("SELECT * FROM public.schema_migrations ORDER BY version").fetchall()
        events = connection.execute(
            "SELECT * FROM public.schema_migrations_journal ORDER BY recorded_at, event = 'started', id"
        ).fetchall()
        lock = connection.execute(
            "SELECT fence, owner::text FROM public.schema_migrations_lock"
        ).fetchone() or {"fence": 0, "owner": None}
    return Look(
        shape=shape,
        runs=runs,
        rows=tuple((row["version"], row["status"], row["direction"]) for row in history),
        events=tuple(events),
        fence=lock["fence"],
        owner=lock["owner"],
        locked=bool(advisory["held"]),
        clients=clients["here"],
        history=tuple(history),
    )
