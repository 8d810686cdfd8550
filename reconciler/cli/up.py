"""`reconciler up`: to the declared version, upwards."""

from __future__ import annotations

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    ALLOW_HOOKS,
    SHOW_QUERIES,
    VERSION,
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)


@click.command(
    "up",
    epilog=example(
        "reconciler up -e dev",
        "reconciler up -e production --dry-run",
        "reconciler up --dsn env:DSN --migrations db/migrations",
    ),
)
@click.option("--version", type=VERSION, metavar="N", help="To this version instead of the declared one.")
@click.option("--dry-run", is_flag=True, help="Print the statements as they would be sent, and send none.")
@ALLOW_HOOKS
@SHOW_QUERIES
@database_options(working_tree=True, migrations=True)
def command(
    version: int | None,
    dry_run: bool,
    allow_hooks: bool,
    show_queries: bool,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Apply migrations: to the declared version, or with a DSN alone, all there are.

    Where a manifest declares another version than --version, that is refused, since a running daemon would undo it;
    unless the environment is suspended. Never takes anything back: that is what down is for. A migration that failed for
    good before is run again, since a person asks for it.
    """
    from reconciler.cli.migration_verb import run_migration
    from reconciler.cli.running import run_to_end
    from reconciler.model import Direction

    return run_to_end(
        run_migration(
            Direction.UP,
            version,
            repository,
            selection,
            output_as,
            dry_run=dry_run,
            allow_hooks=allow_hooks,
            show_queries=show_queries,
        )
    )
