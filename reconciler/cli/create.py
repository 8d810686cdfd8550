"""`reconciler create`: a new migration file with the next number."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import OutputOptions, example, output_options


@click.command(
    "create",
    epilog=example(
        "reconciler create add_invoices",
        'reconciler create "index orders by customer" --no-transaction',
    ),
)
@click.argument("name", nargs=-1, required=True)
@click.option(
    "--timestamp", is_flag=True, help="Number the file by the time, 20250115103000, instead of counting."
)
@click.option("--no-transaction", is_flag=True, help="For statements that cannot run in a transaction.")
@click.option("--repo", type=click.Path(path_type=Path), metavar="PATH", help="A folder of the repository.")
@click.option(
    "--migrations",
    metavar="FOLDER",
    help="Folder of the migrations; by default the one the manifests name, else migrations.",
)
@output_options()
def command(
    name: tuple[str, ...],
    timestamp: bool,
    no_transaction: bool,
    repo: Path | None,
    migrations: str | None,
    output_as: OutputOptions,
) -> Exit:
    """Write a new, empty migration file with the next free number, and print its path.

    Words of NAME are joined by underscores. No file is ever overwritten.
    """
    from datetime import UTC, datetime

    from reconciler.cli.disk import migrations_folder, repository_root
    from reconciler.cli.new_migration import write_migration
    from reconciler.cli.terminal import write, write_json

    start = repo if repo is not None else Path.cwd()
    top = repository_root(start)
    root = top or start
    folder = root / (migrations if migrations is not None else migrations_folder(root))
    if top is not None:
        _refuse_outside(folder, top)
    created = write_migration(
        folder, " ".join(name), timestamp=timestamp, no_transaction=no_transaction, now=datetime.now(UTC)
    )
    shown = _relative(created.path)
    if output_as.json:
        write_json({"path": shown, "version": created.version, "name": created.name})
    else:
        write(shown)
    return Exit.DONE


def _refuse_outside(folder: Path, top: Path) -> None:
    """What is not in the repository is in no commit, so nobody would ever apply it. Symbolic links count as what they name."""
    from reconciler.errors import UsageError

    found = folder.resolve()
    if not found.is_relative_to(top.resolve()):
        raise UsageError(
            f"the folder {found} is outside the repository {top}",
            remedy="name a folder of the repository with --migrations",
        )


def _relative(path: Path) -> str:
    """The path as one would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
