"""Applying migrations given as a dict of files to a real database, by the same operations as daemon and command line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.catalog import Catalog, CatalogReader
from reconciler.database import ConnectionSettings, open_database
from reconciler.manifest import Policy, Timeouts
from reconciler.model import Actor, Claim, Database, File, Revision, Snapshot
from reconciler.operations import Declaration, Listener, Outcome, apply
from reconciler.redaction import Secret

CLAIM = Claim("dev", "orders", "example.org/team/schema")
REVISION = Revision("a" * 40, "main", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Ann <ann@example.org>")


def catalog_of(files: Mapping[str, str | bytes]) -> Catalog:
    """The catalog of files given by name, `1_create_a.sql` say."""
    found = {}
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        path = f"migrations/{name}"
        found[path] = File(path, hashlib.sha1(raw, usedforsecurity=False).hexdigest(), raw)
    return CatalogReader().read(Snapshot(REVISION, found, {}), "migrations")


def migration(up: str, down: str | None = "", directive: str = "") -> str:
    """The text of a migration file. `down` None leaves the section out."""
    head = f"-- reconciler: {directive}\n" if directive else ""
    tail = f"-- DOWN MIGRATION\n{down or 'SELECT 1;'}\n" if down is not None else ""
    return f"{head}-- UP MIGRATION\n{up}\n{tail}"


def table(name: str) -> str:
    """A migration that makes a table and drops it again."""
    return migration(f"CREATE TABLE {name} (id int);", f"DROP TABLE {name};")


def actor(claim: Claim | None = CLAIM) -> Actor:
    """Who the tests act as."""
    return Actor(
        claim=claim,
        verb="run",
        git_revision=REVISION.commit,
        git_author=REVISION.author,
        host="test",
        pid=1,
        user="tester",
    )


def database_at(dsn: str, **settings: object) -> Database:
    """A database that is not connected yet."""
    base = ConnectionSettings(dsn=Secret(dsn), connect_timeout=10)

    async def connection_settings() -> ConnectionSettings:
        return replace(base, **settings)  # type: ignore[arg-type]  # names are checked by the dataclass

    return open_database(connection_settings)


def declare(
    files: Mapping[str, str | bytes] | Catalog,
    target: int,
    *,
    policy: Policy | None = None,
    timeouts: Timeouts | None = None,
    claim: Claim | None = CLAIM,
    retry: bool = False,
    policy_digest: str = "policy",
) -> Declaration:
    """A declaration for tests."""
    return Declaration(
        target=target,
        catalog=files if isinstance(files, Catalog) else catalog_of(files),
        policy=policy or Policy(max_down_steps=1000),
        timeouts=timeouts or Timeouts(),
        policy_digest=policy_digest,
        claim=claim,
        retry=retry,
    )


async def bring(
    database: Database,
    declaration: Declaration,
    *,
    listener: Listener | None = None,
    superseded: Callable[[], bool] = lambda: False,
    acquire_timeout: float = 5.0,
    now: datetime | None = None,
    as_actor: Actor | None = None,
) -> Outcome:
    """Bring `database` to what is declared."""
    return await apply(
        database,
        declaration,
        as_actor or actor(declaration.claim),
        now=lambda: now or datetime.now(UTC),
        acquire_timeout=acquire_timeout,
        listener=listener,
        superseded=superseded,
    )
