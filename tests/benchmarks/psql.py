"""The floor for applying: one `psql` process that runs the same SQL, a transaction and a history row for each file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.migrations import Small
from tests.benchmarks.server import BenchmarkServer

_HISTORY = """CREATE TABLE schema_migrations (
    version BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp,
    checksum VARCHAR(64) NOT NULL,
    execution_time_ms INTEGER,
    status VARCHAR(20) DEFAULT 'success',
    error_message TEXT
);
"""


class PsqlScripts:
    """Writes the scripts and knows the commands that run them.

    Args:
        server: where to run them.
        folder: a folder that does not exist.
        migrations: what to run.
    """

    def __init__(self, server: BenchmarkServer, folder: Path, migrations: Sequence[Small]) -> None:
        self._server = server
        self._folder = folder
        folder.mkdir()
        ups, lagging = [_HISTORY], [_HISTORY]
        for migration in migrations:
            (folder / f"{migration.stem}.up.sql").write_text(migration.up + "\n")
            (folder / f"{migration.stem}.down.sql").write_text(migration.down + "\n")
            insert = (
                "INSERT INTO schema_migrations (version, name, checksum, execution_time_ms) "
                f"VALUES ({migration.version}, '{migration.name}', '{'0' * 64}', 1);"
            )
            body = f"\\i {folder}/{migration.stem}.up.sql\n{insert}\nCOMMIT;\n"
            ups.append(f"BEGIN;\n{body}")
            last = migration is migrations[-1]
            lagging.append(
                f"BEGIN;\n{body}" if last else f"BEGIN;\nSET LOCAL synchronous_commit = off;\n{body}"
            )
        (folder / "up.sql").write_text("".join(ups))
        (folder / "lagging.sql").write_text("".join(lagging))
        self._migrations = list(migrations)

    def up(self, database: str, *, lagging: bool = False) -> list[str]:
        """The command that runs every up.

        Args:
            database: where.
            lagging: no commit but the last waits for the server's log.
        """
        return self._command(database, self._folder / ("lagging.sql" if lagging else "up.sql"))

    def down(self, database: str, count: int) -> list[str]:
        """The command that takes the newest `count` back."""
        script = self._folder / f"down-{count}.sql"
        parts = [
            f"BEGIN;\n\\i {self._folder}/{migration.stem}.down.sql\n"
            f"DELETE FROM schema_migrations WHERE version = {migration.version};\nCOMMIT;\n"
            for migration in self._migrations[: -count - 1 : -1]
        ]
        script.write_text("".join(parts))
        return self._command(database, script)

    def up_file(self, migration: Small) -> Path:
        """The file with the SQL of one up."""
        return self._folder / f"{migration.stem}.up.sql"

    def file(self, database: str, path: Path) -> list[str]:
        """The command that runs one file."""
        return self._command(database, path)

    def _command(self, database: str, script: Path) -> list[str]:
        return [
            self._server.program("psql"),
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--dbname={self._server.dsn(database)}",
            f"--file={script}",
        ]
