"""`reconciler down`: back to a lower version."""

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
    "down",
    epilog=example(
        "reconciler down -e dev --version 3",
        "reconciler down -e dev --version 3 --dry-run",
        "reconciler down --dsn env:DSN --version 0",
    ),
)
@click.option(
    "--version", type=VERSION, metavar="N", required=True, help="To this version; 0 takes back everything."
)
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
    """Take migrations back, newest first, to a lower version.

    Where a manifest declares another version, that is refused, since a running daemon would undo it; unless the
    environment is suspended. The normal way down is to lower target_version in git.
    """
    from reconciler.cli.migration_verb import run_migration
    from reconciler.cli.running import run_to_end
    from reconciler.model import Direction

    return run_to_end(
        run_migration(
            Direction.DOWN,
            version,
            repository,
            selection,
            output_as,
            dry_run=dry_run,
            allow_hooks=allow_hooks,
            show_queries=show_queries,
        )
    )
