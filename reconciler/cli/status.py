"""`reconciler status`: where every database stands."""

from __future__ import annotations

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)
from reconciler.model.encoding import JsonObject


@click.command(
    "status",
    epilog=example(
        "reconciler status",
        "reconciler status -e production -d orders --output json",
        "reconciler status --dsn env:DSN",
        "reconciler status --server http://127.0.0.1:9840",
    ),
)
@database_options(working_tree=True, migrations=True, server=True)
def command(repository: RepositoryOptions, selection: SelectionOptions, output_as: OutputOptions) -> Exit:
    """Show where every database stands: state, declared and current version, what is pending, the last error.

    Without --environment: all of them; suspended ones are listed and not connected to. With --dsn: what that database says
    of itself, and with --migrations too, how far it is behind those files.
    """
    from datetime import UTC, datetime

    from reconciler.cli.judging import exit_of_status
    from reconciler.cli.running import run_to_end
    from reconciler.cli.terminal import on_terminal, write_finding, write_json, write_table

    if selection.server is not None:
        from reconciler.cli.server import read_server

        found = read_server(selection)
    else:
        found = run_to_end(_read(repository, selection))
    environments = found["environments"]
    if output_as.json:
        write_json(found)
    else:
        from reconciler.report.problems import problem_text
        from reconciler.report.status import status_details, status_table

        write_table(status_table(environments, datetime.now(UTC), ages=on_terminal()))
        by_daemon = selection.server is not None
        for text in _source_problems(found):
            write_finding(f"\n{problem_text(text, lasting=by_daemon)}")
        for detail in status_details(environments, warnings=output_as.verbose > 0, lasting=by_daemon):
            write_finding(f"\n{detail}")
    exits = exit_of_status(environments)
    return Exit.ERROR if _source_problems(found) else exits


def _source_problems(found: JsonObject) -> list[JsonObject]:
    source = found.get("source") or {}
    return [each for each in (source.get("problem"), *(found.get("problems") or ())) if each]


async def _read(repository: RepositoryOptions, selection: SelectionOptions) -> JsonObject:
    from reconciler.cli.reading import read_environments
    from reconciler.cli.subjects import open_scope
    from reconciler.model import SourceStatus
    from reconciler.model.encoding import environment_as_dict, source_as_dict

    async with open_scope(repository, selection) as scope:
        environments = await read_environments(scope)
        source = None
        if scope.revision is not None:
            git = scope.workspace.source
            source = source_as_dict(
                SourceStatus(repository=git.place, branch=git.branch, revision=scope.revision)
            )
    return {"source": source, "environments": [environment_as_dict(each) for each in environments]}
