"""Small ways to say what a test is about: files, rows and databases, with everything else as usual."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from reconciler.catalog import Catalog
from reconciler.formats import parse
from reconciler.manifest import Policy, Timeouts
from reconciler.model import (
    AttemptKey,
    Claim,
    Direction,
    HistoryRow,
    LastFailure,
    Migration,
    Observation,
    Plan,
    Problem,
    Reason,
    RowStatus,
    ServerIdentity,
    StoredDown,
)
from reconciler.planner import PlanRequest, plan
from reconciler.sqltext import digest, split, statements_digest, token_checksum

CLAIM = Claim("production", "orders", "git.example.org/shop/schema")
NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def file(
    version: int,
    name: str = "",
    *,
    up: str = "",
    down: str | None = "",
    directives: Sequence[str] = (),
    header: str = "",
) -> Migration:
    """A parsed migration file. An empty `up` or `down` stands for some harmless SQL; `down=None` for no such section."""
    name = name or f"step_{version}"
    lines = [f"-- Description: {header}", *(f"-- reconciler: {directive}" for directive in directives)]
    lines += ["", "-- UP MIGRATION", up or f"CREATE TABLE t{version} (id INT);"]
    if down is not None:
        lines += ["", "-- DOWN MIGRATION", down or f"DROP TABLE t{version};"]
    return parse(f"migrations/{version:05d}_{name}.sql", ("\n".join(lines) + "\n").encode()).migration


def files(*versions: int) -> list[Migration]:
    """Usual files of these versions."""
    return [file(version) for version in versions]


def row(migration: Migration, **changes: Any) -> HistoryRow:
    """The row that says that `migration` was applied, with some columns changed."""
    applied = HistoryRow(
        version=migration.version,
        name=migration.name,
        status=RowStatus.SUCCESS,
        direction=Direction.UP,
        checksum=migration.checksum,
        token_checksum=token_checksum(migration.up.text),
        down_checksum=migration.down_checksum,
        has_down=migration.down is not None,
        transactional=True,
        irreversible=migration.directives.irreversible,
        statements_done=0,
        statements_total=0,
        statements_digest=None,
        git_revision=COMMIT,
    )
    return applied._replace(**changes)


def rows(migrations: Iterable[Migration]) -> list[HistoryRow]:
    """The rows of applied migrations."""
    return [row(migration) for migration in migrations]


def earlier_tool_row(version: int, **changes: Any) -> HistoryRow:
    """A row of the earlier tool, which knew seven columns."""
    return row(
        file(version),
        **{
            "checksum": "of another kind",
            "token_checksum": None,
            "down_checksum": None,
            "has_down": False,
            "git_revision": None,
            **changes,
        },
    )


def stopped(
    migration: Migration,
    done: int,
    *,
    direction: Direction = Direction.UP,
    status: RowStatus = RowStatus.FAILED,
) -> HistoryRow:
    """The row of an attempt outside a transaction that did `done` statements."""
    script = migration.up if direction is Direction.UP else migration.down
    assert script is not None
    statements = split(script)
    return row(
        migration,
        status=status,
        direction=direction,
        transactional=False,
        statements_done=done,
        statements_total=len(statements),
        statements_digest=statements_digest(statements, done),
    )


def stored(migration: Migration, **changes: Any) -> StoredDown:
    """What the database keeps of `migration`'s down."""
    assert migration.down is not None
    values: dict[str, Any] = {
        "text": migration.down.text,
        "path": migration.path,
        "first_line": migration.down.first_line,
        "checksum": digest(migration.down.text),
        "no_transaction": migration.directives.no_transaction,
        "lock_timeout": migration.directives.lock_timeout,
        "statement_timeout": migration.directives.statement_timeout,
    }
    return StoredDown(**{**values, **changes})


def database(history: Iterable[HistoryRow] = (), **changes: Any) -> Observation:
    """A reading of a database with this history."""
    values: dict[str, Any] = {
        "rows": tuple(sorted(history, key=lambda each: each.version)),
        "claim": CLAIM,
        "holder": None,
        "last_failure": None,
        "foreign_history": None,
        "initialised": True,
        "adoptable": False,
        "identity": ServerIdentity("7000000000000000001", 16384),
        "engine": "postgresql",
        "server_version": "18.1",
        "read_only": False,
    }
    return Observation(**{**values, **changes})


def failure(key: AttemptKey, **changes: Any) -> LastFailure:
    """The newest attempt, failed for good."""
    values: dict[str, Any] = {
        "key": key,
        "reason": Reason.STATEMENT_FAILED,
        "message": 'relation "customer" does not exist',
        "remedy": "correct the name",
        "path": "migrations/00001_step_1.sql",
        "line": 5,
        "column": 13,
        "excerpt": "ALTER TABLE customer ADD x INT;\n            ^",
        "sqlstate": "42P01",
        "statement_index": 1,
        "failed_at": NOW,
    }
    return LastFailure(**{**values, **changes})


def request(
    migrations: Iterable[Migration] | Catalog,
    history: Iterable[HistoryRow] | Observation,
    target: int,
    *,
    problems: Iterable[Problem] = (),
    stored_downs: Mapping[int, StoredDown] | None = None,
    claim: Claim | None = CLAIM,
    retry: bool = False,
    suspended: bool = False,
    timeouts: Timeouts | None = None,
    policy_digest: str = "policy",
    objects: Mapping[str, str] | None = MappingProxyType({}),
    **policy: Any,
) -> PlanRequest:
    """A request; what is not named is a policy."""
    return PlanRequest(
        catalog=migrations if isinstance(migrations, Catalog) else Catalog(migrations, problems),
        observation=history if isinstance(history, Observation) else database(history),
        target=target,
        policy=Policy(**policy),
        timeouts=timeouts or Timeouts(),
        policy_digest=policy_digest,
        claim=claim,
        stored_downs=stored_downs or {},
        retry=retry,
        suspended=suspended,
        objects=objects,
    )


def planned(
    migrations: Iterable[Migration] | Catalog,
    history: Iterable[HistoryRow] | Observation,
    target: int,
    **options: Any,
) -> Plan:
    """The plan for such a request."""
    return plan(request(migrations, history, target, **options))


def route(made: Plan) -> list[str]:
    """The steps in short: `["down 3", "up 2"]`."""
    return [f"{step.direction} {step.version}" for step in made.steps]


def refusal(made: Plan) -> Problem:
    """The only refusal of a plan. Every refusal must tell what is wrong and what to do."""
    assert len(made.refusals) == 1, [str(problem) for problem in made.refusals]
    assert made.refusals[0].message
    assert made.refusals[0].remedy
    return made.refusals[0]


def warning(made: Plan) -> Problem:
    """The only warning of a plan that may run."""
    assert not made.refusals, [str(problem) for problem in made.refusals]
    assert len(made.warnings) == 1, [str(problem) for problem in made.warnings]
    return made.warnings[0]
