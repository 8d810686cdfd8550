"""The sample migrations and manifests at the repository's top level, as tests read them."""

from __future__ import annotations

from pathlib import Path

from reconciler.catalog import Catalog
from tests.applying import catalog_of

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name: path.read_bytes() for path in sorted((ROOT / "migrations").glob("*.sql"))}
CATALOG: Catalog = catalog_of(FILES)
NEWEST = 4


def everything_up() -> str:
    """The up scripts of all migrations, one after the other."""
    return "".join(migration.up.text for migration in CATALOG)
