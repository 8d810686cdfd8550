"""`reconciler plan`: what it takes, without doing it."""

from __future__ import annotations

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    VERSION,
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)


@click.command(
    "plan",
    epilog=example(
        "reconciler plan -e production",
        "reconciler plan -e production --version 41",
        "reconciler plan --working-tree",
    ),
)
@click.option(
    "--version",
    type=VERSION,
    metavar="N",
    help="What it would take to get to N instead of the declared version.",
)
@database_options(working_tree=True, migrations=True)
def command(
    version: int | None, repository: RepositoryOptions, selection: SelectionOptions, output_as: OutputOptions
) -> Exit:
    """Show the steps that bring databases to the declared version, and whatever stands against them.

    Reads only. This is what the daemon would do: what failed for good before is refused until something changes. Exit code
    0 when there is nothing to do, 3 when there is, or when it is refused.
    """
    from reconciler.cli.running import run_to_end

    return run_to_end(_plan(version, repository, selection, output_as))


async def _plan(
    version: int | None, repository: RepositoryOptions, selection: SelectionOptions, output_as: OutputOptions
) -> Exit:
    from reconciler.cli.answers import plans_as_dict, write_broken, write_plans
    from reconciler.cli.migrating import Result, asked_for, broken_environments, exit_of_results, look
    from reconciler.cli.subjects import open_scope
    from reconciler.cli.terminal import write_json
    from reconciler.model import Problem

    async with open_scope(repository, selection, migrating=True) as scope:
        results: list[Result] = []
        for subject in scope.subjects:
            wanted = asked_for(subject, version, changes=False)
            if not isinstance(wanted, Problem):
                results.append(await look(scope, subject, wanted))
            elif selection.environment is not None:
                results.append(Result(subject=subject, problem=wanted))
        broken = broken_environments(scope)
    if output_as.json:
        write_json(plans_as_dict(results, broken, statements=output_as.verbose > 0))
    else:
        write_plans(results, script=False)
        write_broken(broken)
    return Exit.ERROR if broken else exit_of_results(results)
