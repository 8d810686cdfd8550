"""The PostgreSQL that the reconciler runs itself, for `dsn: embedded`.

`EmbeddedServer` is shared between processes; `cluster` runs one data folder, as the account that `account` chooses,
with the programs that `installation` finds, in the places that `runtime` makes. Programs are run directly: no driver, and
nothing of the wheel's own Python code.
"""

from reconciler.embedded.naming import database_name, psql_command
from reconciler.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "database_name", "psql_command"]
