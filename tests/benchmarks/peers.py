"""Other migration tools: installed into a folder of their own, outside the repository, and fed the same migrations."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import migrations as formats
from tests.benchmarks.context import Context
from tests.benchmarks.installed import environment
from tests.benchmarks.migrations import Small

_NODE_PACKAGES = ("dbmate", "node-pg-migrate", "pg")
_PYTHON_PACKAGES = ("alembic", "psycopg[binary]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another tool.

    Args:
        name: its name.
        command: the command that applies everything to the database of a name.
        folder: its working directory.
        count: the statement that tells how many migrations are applied.
        why_not: why it cannot be measured; empty when it can.
    """

    name: str
    command: Callable[[str], Sequence[str]] = lambda database: []
    folder: Path | None = None
    count: str = ""
    why_not: str = ""


def peers(context: Context, home: Path, migrations: Sequence[Small]) -> list[Peer]:
    """Install into `home` what can be installed, and write the migrations in every tool's format."""
    home.mkdir(parents=True, exist_ok=True)
    tools = {"dbmate": _dbmate, "node-pg-migrate": _node_pg_migrate, "alembic": _alembic}
    found = []
    for name, prepare in tools.items():
        try:
            found.append(prepare(context, home, migrations))
        except (OSError, subprocess.CalledProcessError) as error:
            found.append(Peer(name=name, why_not=f"not installed: {error}"))
    return found


def _dbmate(context: Context, home: Path, migrations: Sequence[Small]) -> Peer:
    program = _node(home, "dbmate")
    folder = _write(context, "dbmate", "migrations", formats.dbmate, migrations)
    return Peer(
        name="dbmate",
        command=lambda database: [
            program,
            f"--url={context.server.url(database, 'postgres', 'socket')}",
            "--migrations-dir=migrations",
            "--no-dump-schema",
            "migrate",
        ],
        folder=folder,
        count="SELECT count(*) FROM schema_migrations",
    )


def _node_pg_migrate(context: Context, home: Path, migrations: Sequence[Small]) -> Peer:
    program = _node(home, "node-pg-migrate")
    folder = _write(context, "node-pg-migrate", "migrations", formats.node_pg_migrate, migrations)
    return Peer(
        name="node-pg-migrate",
        command=lambda database: [
            "env",
            f"DATABASE_URL={context.server.url(database)}",
            program,
            "--no-single-transaction",
            "--migrations-dir=migrations",
            "up",
        ],
        folder=folder,
        count="SELECT count(*) FROM pgmigrations",
    )


def _alembic(context: Context, home: Path, migrations: Sequence[Small]) -> Peer:
    bin_folder = home / "alembic" / "bin"
    if not (bin_folder / "alembic").exists():
        _run([sys.executable, "-m", "venv", str(home / "alembic")], home)
        _run([str(bin_folder / "pip"), "install", "--quiet", *_PYTHON_PACKAGES], home)
    folder = _write(context, "alembic", "scripts/versions", formats.alembic, migrations)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = scripts\npath_separator = os\n")
    (folder / "scripts" / "env.py").write_text(
        "from alembic import context\nfrom sqlalchemy import create_engine\n\n"
        "url = context.get_x_argument(as_dictionary=True)['url']\n"
        "with create_engine(url).connect() as connection:\n"
        "    context.configure(connection=connection, transaction_per_migration=True)\n"
        "    with context.begin_transaction():\n        context.run_migrations()\n"
    )
    return Peer(
        name="alembic",
        command=lambda database: [
            str(bin_folder / "alembic"),
            "-x",
            f"url={context.server.url(database, 'postgresql+psycopg')}",
            "upgrade",
            "head",
        ],
        folder=folder,
        # it keeps the newest only
        count="SELECT version_num::int FROM alembic_version",
    )


def _node(home: Path, name: str) -> str:
    program = home / "node_modules" / ".bin" / name
    if not program.exists():
        if shutil.which("npm") is None:
            raise OSError("there is no npm")
        (home / "package.json").write_text('{"private": true}\n')
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *_NODE_PACKAGES], home)
    return str(program)


def _write(
    context: Context,
    name: str,
    below: str,
    file: Callable[[Small], tuple[str, str]],
    migrations: Sequence[Small],
) -> Path:
    folder = context.new_folder(name)
    (folder / below).mkdir(parents=True)
    for migration in migrations:
        file_name, content = file(migration)
        (folder / below / file_name).write_text(content)
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
