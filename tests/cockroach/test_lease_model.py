"""The model of the protocol, played on the real SQL of the lease against a real PostgreSQL, as itself and as CockroachDB.

Lease, fence and journal are rows, and what is promised of a transaction is left to the server. Changes of the schema stay the
model's: it says when they arrive and when their jobs end. Time passes by moving `expires_at` into the past.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from reconciler.database.lease import MARK
from reconciler.database.queries import Literal, Queries
from reconciler.database.reading import ADVISORY_KEY
from tests.cockroach.grammar import literal
from tests.cockroach.protocol import TTL, Journal, Lease, MemoryStore, Rules, Statement
from tests.cockroach.simulator import Simulator
from tests.cockroach.test_model import World

EXAMPLES = int(os.environ.get("RECONCILER_LEASE_EXAMPLES", "12"))
"""How many stories are played in an ordinary run."""
_TICK = 1000
"""Seconds: so long that what the server takes itself counts for nothing."""
_LASTS = TTL * _TICK + _TICK // 2
"""A lease of which exactly TTL ticks have passed has not run out."""

Change = tuple[str, str]
"""A piece of a block, and what stands there instead: how a rule is broken."""


class SqlStore(MemoryStore):
    """The store of the model whose lease is the real one.

    Args:
        dsn: of a database without our tables.
        dialect: whose SQL it is.
        changes: of a block, by its name.
    """

    def __init__(self, dsn: str, dialect: str, changes: Mapping[str, Change]) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        self._queries = Queries(dialect, "public", None, literal)
        self._changes = changes
        self._now = 0
        super().__init__(Rules())
        for statement in self._queries("create_tables").split(";\n"):
            self._send(statement)
        self._send(
            "CREATE TABLE IF NOT EXISTS model (id INT PRIMARY KEY, journal TEXT NOT NULL, effects TEXT NOT NULL)"
        )
        self._send("DELETE FROM model; DELETE FROM public.schema_migrations_lock")
        self._send("INSERT INTO model VALUES (1, '{}', '[]')")

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()

    @property
    def now(self) -> int:
        """The tick. Time passes for the server when it is set."""
        return self._now

    @now.setter
    def now(self, tick: int) -> None:
        if tick > self._now:
            seconds = (tick - self._now) * _TICK
            self._send(
                f"UPDATE public.schema_migrations_lock SET expires_at = expires_at - INTERVAL '{seconds} seconds'"
            )
            self.row = self._read_lease(tick)
        self._now = tick

    def finish(self, number: int, *, well: bool) -> None:
        super().finish(number, well=well)
        self._send(f"UPDATE model SET effects = {literal(_effects_text(self.effects))}")

    def acquire(self, owner: str) -> int | None:
        ours: dict[str, Literal] = {
            "owner": _uuid(owner),
            "holder": owner,
            "environment": "dev",
            "database_name": "orders",
            "repository": "example.org/team/schema",
            "seconds": _LASTS,
            "taking_over": False,
            "mark": MARK,
            "key_high": ADVISORY_KEY >> 32,
            "key_low": ADVISORY_KEY & 0xFFFFFFFF,
        }
        rows = self._send(self._block("take_lease", **ours))
        self.row = self._read_lease(self.now)
        return self._highest(int(rows[0][0])) if rows else None

    def lease(self) -> Lease:
        self.row = self._read_lease(self.now)
        return self.row

    def renew(self, owner: str, fence: int) -> bool:
        renewed = self._block("renew_lease", owner=_uuid(owner), fence=fence, seconds=_LASTS)
        rows = self._send(renewed)
        self.row = self._read_lease(self.now)
        return bool(rows)

    def release(self, owner: str, fence: int) -> bool:
        self._send(self._block("release_lock_row", owner=_uuid(owner), fence=fence))
        before, self.row = self.row, self._read_lease(self.now)
        return before != self.row

    def journal(self) -> Journal:
        ((written,),) = self._send("SELECT journal FROM model WHERE id = 1")
        self.written = _journal(written)
        return self.written

    def change_data(self, owner: str, fence: int, statement: Statement, *, last: bool) -> bool:
        if statement in self.written.done:
            return self._write(owner, fence)
        effects = Counter(self.effects)
        effects[statement] += 1
        self._effects_with_it = effects
        return self.record(owner, fence, statement, last=last)

    _effects_with_it: Counter[Statement] | None = None

    def _write(self, owner: str, fence: int, **changes: Any) -> bool:
        """In one transaction, the fence last, as every write of ours."""
        written = Journal(**{**vars(self.written), **changes})
        effects, self._effects_with_it = self._effects_with_it, None
        effect = f", effects = {literal(_effects_text(effects))}" if effects is not None else ""
        # what announces is fenced strictly, as it is before what no rollback undoes
        name = "fence" if changes.get("done") else "strict_fence_of_lease"
        try:
            self._send(
                f"BEGIN; UPDATE model SET journal = {literal(_text(written))}{effect} WHERE id = 1; "
                + self._block(name, owner=_uuid(owner), fence=fence)
                + "; COMMIT"
            )
        except psycopg.errors.DivisionByZero:
            self._send("ROLLBACK")
            return False
        assert fence == self.highest_fence, f"{owner} wrote with the fence {fence}, which is gone"
        ((text, effects_text),) = self._send("SELECT journal, effects FROM model WHERE id = 1")
        self.written = _journal(text)
        self.effects = Counter(_statement(each) for each in json.loads(effects_text))
        return True

    def _highest(self, fence: int) -> int:
        assert fence > self.highest_fence, f"the fence {fence} was given before"
        self.highest_fence = fence
        return fence

    def _read_lease(self, tick: int) -> Lease:
        rows = self._send(
            "SELECT coalesce(holder, ''), fence, coalesce(extract(epoch FROM expires_at - now()), 0)::FLOAT8 "
            "FROM public.schema_migrations_lock WHERE id = 1"
        )
        if not rows:
            return Lease()
        owner, fence, left = rows[0]
        return Lease(owner, fence, tick + int(left // _TICK) if owner else 0)

    def _block(self, name: str, **literals: Literal) -> str:
        text = self._queries(name, **literals)
        if name in self._changes:
            before, after = self._changes[name]
            for parameter, value in literals.items():
                before = before.replace(
                    f":{parameter}", literal(value) if isinstance(value, str) else str(value)
                )
            assert before in text, name
            text = text.replace(before, after)
        return text

    def _send(self, text: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor().execute(text.encode())
        rows: list[tuple[Any, ...]] = []
        more: bool | None = True
        while more:
            if cursor.description is not None:
                rows = cursor.fetchall()
            more = cursor.nextset()
        return rows


def _uuid(owner: str) -> str:
    return f"00000000-0000-0000-0000-{int(owner.removeprefix('owner ')):012d}"


def _statement(parts: list[Any]) -> Statement:
    version, index, kind = parts
    return Statement(version, index, kind)


def _text(journal: Journal) -> str:
    return json.dumps(
        {
            "announced": sorted([each.version, each.index, each.kind] for each in journal.announced),
            "done": sorted([each.version, each.index, each.kind] for each in journal.done),
            "versions": sorted(journal.versions),
            "doubtful": journal.doubtful,
        }
    )


def _journal(text: str) -> Journal:
    found = json.loads(text)
    return Journal(
        frozenset(_statement(each) for each in found.get("announced", ())),
        frozenset(_statement(each) for each in found.get("done", ())),
        frozenset(found.get("versions", ())),
        found.get("doubtful", False),
    )


def _effects_text(effects: Counter[Statement]) -> str:
    return json.dumps([[each.version, each.index, each.kind] for each in effects.elements()])


class RealWorld(World):
    """The model's world, with real rows."""

    make: ClassVar[Callable[[], SqlStore]]

    def __init__(self) -> None:
        super().__init__()
        self.real = type(self).make()
        self.store = self.real

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.real.close()


@pytest.fixture(params=["postgresql", "cockroachdb"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Whose SQL it is, and where."""
    if request.param == "cockroachdb":
        simulator: Simulator = request.getfixturevalue("simulator")
        yield "cockroachdb", simulator.dsn
    else:
        yield "postgresql", request.getfixturevalue("fresh_database")


def play(place: tuple[str, str], *, examples: int, changes: Mapping[str, Change] | None = None) -> None:
    """Play so many stories, the same each time."""
    dialect, dsn = place
    make = staticmethod(lambda: SqlStore(dsn, dialect, changes or {}))
    world = type("PlayedRealWorld", (RealWorld,), {"make": make})
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_protocol_holds_with_the_real_lease(place: tuple[str, str]) -> None:
    play(place, examples=EXAMPLES)


@pytest.mark.parametrize(
    ("block", "before", "after"),
    [
        ("take_lease", "held.owner IS NULL OR", "true OR"),
        ("take_lease", "fence = held.fence + 1", "fence = held.fence"),
        pytest.param("fence", "owner = :owner AND fence = :fence", "true", marks=pytest.mark.slow),
        pytest.param(
            "strict_fence_of_lease", "owner = :owner AND fence = :fence", "true", marks=pytest.mark.slow
        ),
    ],
)
def test_without_a_part_of_the_sql_it_does_not(
    fresh_database: str, block: str, before: str, after: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        play(("postgresql", fresh_database), examples=200, changes={block: (before, after)})
    capsys.readouterr()
