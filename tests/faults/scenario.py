"""Migrations to be interrupted: each statement that must not run twice counts itself, and between all stand gates.

A gate is a statement that waits while the harness holds it shut, so that a process can be killed just there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.applying import migration

GATE_CLASS = 4711
"""First key of the advisory locks that gates wait for; the second is the number of the gate."""

FURNITURE = """
CREATE SCHEMA faults;
CREATE TABLE faults.runs (version int NOT NULL, direction text NOT NULL, statement int NOT NULL);
CREATE TABLE faults.balance (version int PRIMARY KEY, value int NOT NULL);
CREATE TABLE faults.loaded (batch int NOT NULL, id int NOT NULL, word text);
INSERT INTO faults.balance SELECT number, 0 FROM generate_series(1, 100) number;
CREATE FUNCTION faults.gate(number int) RETURNS void LANGUAGE sql
    AS 'SELECT pg_catalog.pg_advisory_xact_lock_shared(4711, number)';
CREATE FUNCTION faults.ran(version int, direction text, statement int) RETURNS void LANGUAGE sql
    AS 'INSERT INTO faults.runs VALUES (version, direction, statement)';
"""
"""What the harness puts into an empty database."""

_END_OF_ROWS = "\\."
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b")


@dataclass(frozen=True)
class Gate:
    """A place between two statements.

    Args:
        number: by which its lock is known.
        version: the migration.
        direction: `up` or `down`.
        before_concurrently: the statement that follows is one that builds or drops an index concurrently.
    """

    number: int
    version: int
    direction: str
    before_concurrently: bool


@dataclass(frozen=True)
class Scenario:
    """A folder of migrations.

    Args:
        name: how it is called.
        files: by name.
        target: the highest version.
        gates: in the order they are met going up to `target`, then those on the way down to 0.
    """

    name: str
    files: dict[str, str]
    target: int
    gates: tuple[Gate, ...]

    def gates_of(self, direction: str) -> list[Gate]:
        """The gates that are met going up or down, in that order."""
        return [gate for gate in self.gates if gate.direction == direction]


@dataclass(frozen=True)
class _Migration:
    ups: Sequence[str]
    downs: Sequence[str]
    directive: str = ""


def _section(version: int, direction: str, statements: Sequence[str]) -> tuple[str, list[Gate]]:
    lines: list[str] = []
    gates: list[Gate] = []
    base = version * 1000 + (500 if direction == "down" else 0)
    for index, statement in enumerate(statements):
        gates.append(Gate(base + index, version, direction, _CONCURRENTLY.search(statement) is not None))
        lines += [
            f"SELECT faults.gate({base + index});",
            statement if statement.endswith(_END_OF_ROWS) else f"{statement};",
            f"SELECT faults.ran({version}, '{direction}', {index});",
        ]
    sign = "+" if direction == "up" else "-"
    lines.append(f"UPDATE faults.balance SET value = value {sign} 1 WHERE version = {version};")
    gates.append(Gate(base + len(statements), version, direction, False))
    lines.append(f"SELECT faults.gate({base + len(statements)});")
    return "\n".join(lines), gates


def _scenario(name: str, migrations: Sequence[_Migration]) -> Scenario:
    files: dict[str, str] = {}
    ups: list[Gate] = []
    downs: list[Gate] = []
    for version, each in enumerate(migrations, 1):
        up, up_gates = _section(version, "up", each.ups)
        down, down_gates = _section(version, "down", each.downs)
        ups += up_gates
        downs = down_gates + downs
        files[f"{version:05}_step.sql"] = migration(up, down, each.directive)
    return Scenario(name, files, len(migrations), (*ups, *downs))


_ACCOUNTS = _Migration(
    [
        "CREATE TABLE accounts (id int PRIMARY KEY, name text)",
        "INSERT INTO accounts SELECT number, 'name ' || number FROM generate_series(1, 50) number",
        "CREATE INDEX accounts_name ON accounts (name)",
    ],
    ["DROP INDEX accounts_name", "DROP TABLE accounts"],
)
_ORDERS = _Migration(
    [
        "CREATE TYPE state AS ENUM ('open', 'paid')",
        "CREATE TABLE orders (id bigserial PRIMARY KEY, account int REFERENCES accounts, state state, amount numeric)",
        "INSERT INTO orders (account, state, amount) SELECT id, 'open', 1 FROM accounts",
        """CREATE FUNCTION total(wanted int) RETURNS numeric LANGUAGE sql
           BEGIN ATOMIC SELECT sum(amount) FROM orders WHERE account = wanted; END""",
    ],
    ["DROP FUNCTION total(int)", "DROP TABLE orders", "DROP TYPE state"],
)
_ALTERED = _Migration(
    [
        "ALTER TABLE accounts ADD COLUMN balance numeric NOT NULL DEFAULT 0",
        "UPDATE accounts SET balance = balance + 10",
        "ALTER TABLE accounts ADD CONSTRAINT solvent CHECK (balance >= 0)",
    ],
    ["ALTER TABLE accounts DROP CONSTRAINT solvent", "ALTER TABLE accounts DROP COLUMN balance"],
)
_INDEXES = _Migration(
    [
        "CREATE INDEX CONCURRENTLY accounts_length ON accounts (length(name))",
        "INSERT INTO accounts (id, name) VALUES (1000, 'added outside a transaction')",
        "CREATE UNIQUE INDEX CONCURRENTLY accounts_unique ON accounts (name)",
        "CREATE TABLE notes (id int, note text)",
    ],
    [
        "DROP TABLE notes",
        "DROP INDEX CONCURRENTLY accounts_unique",
        "DELETE FROM accounts WHERE id = 1000",
        "DROP INDEX CONCURRENTLY accounts_length",
    ],
    "no-transaction",
)


def _copy(batch: int, count: int, first: int = 0) -> str:
    """A COPY with its rows; nothing in the table keeps a row from being there twice."""
    rows = "".join(
        f"{batch}\t{number}\tword {number}; é $$ {'-' * 60}\n" for number in range(first, first + count)
    )
    return f"COPY faults.loaded (batch, id, word) FROM stdin;\n{rows}{_END_OF_ROWS}"


_LOADED = _Migration(
    [
        "CREATE TABLE accounts (id int, word text)",
        _copy(1, 4000),
        "INSERT INTO accounts SELECT id, word FROM faults.loaded",
        _copy(1, 500, 4000),
    ],
    ["DELETE FROM faults.loaded WHERE batch = 1", "DROP TABLE accounts"],
)
_LOADED_BY_STATEMENTS = _Migration(
    [
        _copy(2, 3000),
        "CREATE INDEX CONCURRENTLY loaded_word ON accounts (word)",
        "DELETE FROM faults.loaded WHERE batch = 1 AND id < 2000",
        _copy(3, 1500),
    ],
    [
        "DELETE FROM faults.loaded WHERE batch = 3",
        _copy(1, 2000),
        "DROP INDEX CONCURRENTLY loaded_word",
        "DELETE FROM faults.loaded WHERE batch = 2",
    ],
    "no-transaction",
)


def _small(number: int) -> _Migration:
    return _Migration([f"CREATE TABLE small{number} (id int)"], [f"DROP TABLE small{number}"])


TRANSACTIONAL = _scenario("transactional", [_ACCOUNTS, _ORDERS, _ALTERED, _small(4)])
STATEMENTS = _scenario("statements", [_ACCOUNTS, _INDEXES, _ALTERED])
MANY = _scenario("many", [_small(number) for number in range(1, 26)])
"""Long enough for commits that do not wait for the server's log."""
ROWS = _scenario("rows", [_LOADED, _LOADED_BY_STATEMENTS, _small(3)])
"""With rows that are streamed, inside a transaction and outside."""

ROWS_BYTES = {
    direction: sum(
        len(part.encode())
        for text in ROWS.files.values()
        for part in re.findall(
            r"FROM stdin;\n(.*?)\\\.",
            text.partition("-- DOWN MIGRATION")[0 if direction == "up" else 2],
            re.DOTALL,
        )
    )
    for direction in ("up", "down")
}
"""How many bytes of rows a way has."""

SCENARIOS = {scenario.name: scenario for scenario in (TRANSACTIONAL, STATEMENTS, MANY, ROWS)}
