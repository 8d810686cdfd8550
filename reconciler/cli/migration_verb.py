"""The body of `up` and `down`."""

from __future__ import annotations

from reconciler.cli.answers import plans_as_dict, results_as_dict, write_broken, write_plans, write_results
from reconciler.cli.exits import Exit
from reconciler.cli.migrating import broken_environments, exit_of_results, migrate
from reconciler.cli.options import OutputOptions, RepositoryOptions, SelectionOptions
from reconciler.cli.progress import Progress
from reconciler.cli.subjects import open_scope
from reconciler.cli.terminal import write_json
from reconciler.model import Direction


async def run_migration(
    direction: Direction,
    version: int | None,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
    *,
    dry_run: bool,
    allow_hooks: bool,
    show_queries: bool,
) -> Exit:
    """Bring the chosen databases up or down, and say what came of it.

    Args:
        direction: the verb.
        version: where to; None for what is declared.
        repository: which repository.
        selection: which databases.
        output_as: how to answer.
        dry_run: print what would be sent, and send nothing.
        allow_hooks: run the hooks of manifests.
        show_queries: show the text of queries that are in the way.
    """
    async with open_scope(repository, selection, writing=True, migrating=True) as scope:
        broken = broken_environments(scope)
        progress = Progress(silent=output_as.json)
        results = await migrate(
            scope,
            direction,
            version,
            progress,
            dry_run=dry_run,
            allow_hooks=allow_hooks,
            show_queries=show_queries,
        )
    if output_as.json and dry_run:
        write_json(plans_as_dict(results, broken, statements=True))
    elif output_as.json:
        write_json(results_as_dict(results, broken))
    elif dry_run:
        write_plans(results, script=True)
        write_broken(broken)
    else:
        write_results(results)
        write_broken(broken)
    return Exit.ERROR if broken else exit_of_results(results)
