"""The database servers whose ways differ, by the names that readings, manifests and the command line have for them."""

from __future__ import annotations

from typing import Final

POSTGRESQL: Final = "postgresql"
COCKROACHDB: Final = "cockroachdb"
