"""Names and connection strings of embedded databases, quoted for whoever reads them."""

from __future__ import annotations

import hashlib
import shlex

from reconciler.embedded.installation import find_installation
from reconciler.errors import ReconcilerError

LONGEST_NAME = 63
"""Bytes. PostgreSQL cuts a longer name without an error, and two databases become one."""
_TAKEN = ("postgres", "template0", "template1")


def database_name(environment: str, database: str) -> str:
    """Return the name of an embedded database: two different pairs never share one.

    Args:
        environment: name of the environment.
        database: name of the database within it; the short form of a manifest names it like the environment.
    """
    name = environment if database == environment else f"{environment}.{database}"
    plain = environment == database or not ("." in environment or "." in database)
    ambiguous = environment == database and "." in environment
    if plain and not ambiguous and name not in _TAKEN and len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(f"{environment}\0{database}".encode()).hexdigest()[:8]
    kept = name.encode()[: LONGEST_NAME - len(digest) - 1].decode(errors="ignore")
    return f"{kept}-{digest}"


def conninfo(**parameters: str) -> str:
    """Return a libpq connection string of `key=value` pairs."""
    return " ".join(f"{key}={_quote(value)}" for key, value in parameters.items())


def psql_command(dsn: str) -> str:
    """Return a command line to paste into a shell that opens `dsn` in psql: the one on PATH, else the server's own."""
    from shutil import which

    program = "psql"
    if which(program) is None:
        try:
            program = shlex.quote(find_installation().program("psql"))
        except ReconcilerError:
            pass  # whoever reads the line then knows what to install
    return f"{program} {shlex.quote(dsn)}"


def _quote(value: str) -> str:
    if value and not set(value) & set(" \t\n\r\f\v'\\"):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
