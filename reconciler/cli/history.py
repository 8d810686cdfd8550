"""`reconciler history`: what was applied, and every attempt."""

from __future__ import annotations

from typing import NamedTuple

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
from reconciler.model import AppliedMigration, JournalEvent, Problem, Reason

_NEWEST = 20
_MOST = 100_000


@click.command(
    "history",
    epilog=example(
        "reconciler history -e dev",
        "reconciler history -e production -d orders --version 42 --output json",
        "reconciler history --dsn env:DSN --limit 5",
    ),
)
@click.option("--version", type=VERSION, metavar="N", help="The whole story of this migration.")
@click.option(
    "--limit",
    type=click.IntRange(1, _MOST),
    metavar="N",
    help="The newest N migrations and the newest N events  [default: 20; with --version all there are]",
)
@database_options(working_tree=False, server=True)
def command(
    version: int | None,
    limit: int | None,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Show what was applied to databases, and every attempt, oldest first: who, when, how long, at which revision, with which
    error. With --version, all that one migration has been through: attempts, retries, repairs. Reads only.
    """
    from reconciler.cli.running import run_to_end
    from reconciler.cli.terminal import write_json
    from reconciler.errors import UsageError
    from reconciler.model.encoding import applied_as_dict, event_as_dict, problem_as_dict

    if selection.server is not None:
        raise UsageError(
            "a daemon does not tell the history of its databases yet",
            remedy="ask the database itself: leave --server out, or give --dsn",
        )
    most = limit if limit is not None else _MOST if version is not None else _NEWEST
    found = run_to_end(_read(version, most, repository, selection))
    if output_as.json:
        write_json(
            {
                "databases": [
                    {
                        "environment": each.environment,
                        "database": each.database,
                        "applied": [applied_as_dict(row) for row in each.applied],
                        "applied_total": each.total,
                        "journal": [event_as_dict(event) for event in each.journal],
                        "problem": problem_as_dict(each.problem) if each.problem is not None else None,
                    }
                    for each in found
                ]
            }
        )
    else:
        for index, each in enumerate(found):
            _write(each, version, first=not index, more=bool(output_as.verbose))
    problems = [each.problem for each in found if each.problem is not None]
    if any(problem.reason is not Reason.SUSPENDED for problem in problems):
        return Exit.ERROR
    # beside others, one that rests is no failure
    return Exit.OUT_OF_SYNC if problems and len(problems) == len(found) else Exit.DONE


class _Found(NamedTuple):
    environment: str
    database: str
    applied: list[AppliedMigration]
    total: int
    journal: list[JournalEvent]
    problem: Problem | None


def _write(found: _Found, version: int | None, *, first: bool, more: bool) -> None:
    from reconciler.cli.terminal import write, write_error, write_table
    from reconciler.report.attempts import attempts_of
    from reconciler.report.histories import applied_table, attempt_notes, attempts_table, story
    from reconciler.report.problems import problem_text
    from reconciler.report.status import database_name
    from reconciler.report.text import counted

    name = database_name(found.environment, found.database)
    if found.problem is not None:
        label = "refused" if found.problem.reason is Reason.SUSPENDED else "error"
        write_error(f"{name}: {problem_text(found.problem, label=label)}")
        return
    lead = "" if first else "\n"
    if version is not None:
        row = found.applied[0] if found.applied else None
        write(f"{lead}{name}: " + "\n".join(story(version, row, found.journal, more=more)))
        return
    shown = f", the newest {len(found.applied)} shown" if len(found.applied) < found.total else ""
    write(f"{lead}{name}: {counted(found.total, 'migration')} in its history{shown}")
    if found.applied:
        write_table(applied_table(found.applied))
    if found.journal:
        attempts = attempts_of(found.journal)
        write(f"\n{name}: the newest {counted(len(attempts), 'entry', 'entries')} of its journal")
        write_table(attempts_table(attempts))
        for index, note in enumerate(attempt_notes(attempts)):
            write(note if index else f"\n{note}")


async def _read(
    version: int | None, limit: int, repository: RepositoryOptions, selection: SelectionOptions
) -> list[_Found]:
    from reconciler.cli.subjects import open_scope, refuse_broken, suspended
    from reconciler.model import ProblemError

    found = []
    async with open_scope(repository, selection) as scope:
        refuse_broken(scope, selection)
        for subject in scope.subjects:
            if subject.suspended:
                refusal = suspended(subject.environment, subject.manifest)
                found.append(_Found(subject.environment, subject.target.name, [], 0, [], refusal))
                continue
            applied: list[AppliedMigration] = []
            journal: list[JournalEvent] = []
            problem = None
            try:
                database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
                applied = await database.applied(version)
                journal = await database.journal(version, limit)
            except ProblemError as error:
                problem = error.problem
            found.append(
                _Found(
                    subject.environment, subject.target.name, applied[-limit:], len(applied), journal, problem
                )
            )
    return found
