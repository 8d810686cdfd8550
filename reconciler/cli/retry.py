"""`reconciler retry`: another attempt at what failed for good."""

from __future__ import annotations

from dataclasses import replace

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)
from reconciler.model import LastFailure, Problem
from reconciler.model.value import value


@click.command(
    "retry",
    epilog=example("reconciler retry -e production", "reconciler retry -e production -d orders"),
)
@database_options(working_tree=False)
def command(repository: RepositoryOptions, selection: SelectionOptions, output_as: OutputOptions) -> Exit:
    """Ask for another attempt at migrations that failed for good, without changing them.

    A failed migration is not run again before it, or its manifest, changes. This writes into the database's journal that a
    person wants it tried as it is; a running daemon sees that within seconds, and so does the next up. It runs nothing itself.
    """
    from reconciler.cli.exits import worst
    from reconciler.cli.judging import exit_of_problem
    from reconciler.cli.running import run_to_end
    from reconciler.cli.terminal import write, write_error, write_json
    from reconciler.model.encoding import problem_as_dict
    from reconciler.report.problems import problem_of_command, problem_text
    from reconciler.report.status import database_name

    asked = run_to_end(_retry(repository, selection))
    if output_as.json:
        write_json(
            {
                "databases": [
                    {
                        "environment": each.environment,
                        "database": each.database,
                        "requested": each.failure is not None and each.problem is None,
                        "failure": problem_as_dict(each.failure.problem)
                        if each.failure is not None
                        else None,
                        "problem": problem_of_command(each.problem) if each.problem is not None else None,
                    }
                    for each in asked
                ]
            }
        )
    else:
        for each in asked:
            name = database_name(each.environment, each.database)
            if each.problem is not None:
                write_error(f"{name}: {problem_text(each.problem)}")
            else:
                write(f"{name}: {_told(each.failure)}")
    return worst(exit_of_problem(each.problem) for each in asked if each.problem is not None)


@value(kw_only=True)
class _Asked:
    environment: str
    database: str
    failure: LastFailure | None = None
    problem: Problem | None = None


def _told(failure: LastFailure | None) -> str:
    if failure is None:
        return "nothing failed for good; there is nothing to try again"
    from reconciler.report.text import instant

    key = failure.key
    return (
        f"asked for another attempt at {key.direction} {key.version}, which failed at {instant(failure.failed_at)} "
        f"({failure.reason}); a running daemon makes it within seconds, or run `reconciler up`"
    )


async def _retry(repository: RepositoryOptions, selection: SelectionOptions) -> list[_Asked]:
    from reconciler.cli.subjects import open_scope, refuse_broken
    from reconciler.model import ProblemError

    asked = []
    async with open_scope(repository, selection, writing=True) as scope:
        for environment in scope.environments:
            # a writing command has one environment, named or not
            refuse_broken(scope, replace(selection, environment=environment.name))
        for subject in scope.subjects:
            failure = None
            problem = None
            try:
                database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
                failure = (await database.observe()).last_failure
                if failure is not None:
                    await database.request_retry(await scope.actor("retry", subject))
            except ProblemError as error:
                problem = error.problem
            asked.append(
                _Asked(
                    environment=subject.environment,
                    database=subject.target.name,
                    failure=failure,
                    problem=problem,
                )
            )
    return asked
