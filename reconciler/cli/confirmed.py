"""What is done to databases only by a person's word: look, show, ask, act, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from reconciler.cli.confirming import Consent, agrees, check_consent
from reconciler.cli.exits import Exit, worst
from reconciler.cli.judging import exit_of_problem
from reconciler.cli.options import OutputOptions, RepositoryOptions, SelectionOptions
from reconciler.cli.subjects import Scope, Subject, open_scope, refuse_unreadable
from reconciler.cli.terminal import on_terminal, write, write_error, write_json, write_note, write_table
from reconciler.model import Database, Problem, ProblemError
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value
from reconciler.report.problems import problem_of_command, problem_text
from reconciler.report.table import Table, plain_table

Found = TypeVar("Found")
"""What looking at a database finds, and the person is asked about."""


class Picture(NamedTuple):
    """What a person is shown of one database.

    Args:
        title: one line.
        table: what would change; None when nothing would.
        notes: what to know besides, a line each.
    """

    title: str
    table: Table | None = None
    notes: Sequence[str] = ()


class ConfirmedChange(Protocol[Found]):
    """One way to change a database by a person's word."""

    async def look(self, subject: Subject, database: Database) -> Found:
        """Find out what there is to change.

        Raises:
            ProblemError: it cannot be done, or the database cannot be reached.
        """
        ...

    def due(self, found: Found) -> bool:
        """There is something to change."""
        ...

    def picture(self, subject: Subject, found: Found) -> Picture:
        """What the person is shown; with a table when it is due."""
        ...

    def question(self, names: Sequence[str]) -> str:
        """What is asked, one line, given the names of the databases that would change."""
        ...

    async def act(self, scope: Scope, subject: Subject, database: Database, found: Found) -> str:
        """Change the database if it is still as it was found; the line that says so.

        Raises:
            ProblemError: it was not changed.
        """
        ...

    def label(self, problem: Problem) -> str:
        """What a problem is here: `error` or `refused`."""
        ...

    def as_dict(self, found: Found | None, *, done: bool) -> JsonObject:
        """What was found and whether it was changed, for the JSON document."""
        ...


@value(kw_only=True)
class _Case(Generic[Found]):
    """One database, and what came of it."""

    subject: Subject
    database: Database
    found: Found | None = None
    done: bool = False
    problem: Problem | None = None


async def run_confirmed(
    change: ConfirmedChange[Found],
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
    *,
    migrating: bool = False,
) -> Exit:
    """Change the chosen databases when a person says so, and say what came of it.

    Args:
        change: what is done.
        consent: the person's reason and whether they want to be asked.
        repository: which repository.
        selection: which databases.
        output_as: how to answer.
        migrating: it needs to know the migrations, also with a DSN.
    """
    check_consent(consent)
    async with open_scope(repository, selection, writing=True, migrating=migrating) as scope:
        refuse_unreadable(scope)
        cases = [await _look(change, scope, subject) for subject in scope.subjects]
        if not output_as.json or not consent.yes:
            for index, case in enumerate(cases):
                _show(change, case, output_as, first=not index)
        due = [case.subject.name for case in cases if _due(change, case)]
        declined = bool(due) and not consent.yes and not await agrees(change.question(due))
        if due and not declined:
            cases = [await _act(change, scope, case, output_as) for case in cases]
    if output_as.json:
        write_json({"databases": [_as_dict(change, case) for case in cases]})
    elif declined:
        write("nothing was changed")
    problems = worst(exit_of_problem(case.problem) for case in cases if case.problem is not None)
    return worst([problems, Exit.OUT_OF_SYNC]) if declined else problems


async def _look(change: ConfirmedChange[Found], scope: Scope, subject: Subject) -> _Case[Found]:
    database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
    case: _Case[Found] = _Case(subject=subject, database=database)
    try:
        return replace(case, found=await change.look(subject, database))
    except ProblemError as error:
        return replace(case, problem=error.problem)


def _due(change: ConfirmedChange[Found], case: _Case[Found]) -> bool:
    return case.found is not None and change.due(case.found)


def _show(
    change: ConfirmedChange[Found], case: _Case[Found], output_as: OutputOptions, *, first: bool
) -> None:
    """What would change. Beside a JSON document it goes to standard error, where the person sees it who is asked."""
    say = write_note if output_as.json else write
    if not first:
        say("")
    if case.problem is not None:
        _complain(change, case, case.problem)
    if case.found is None:
        return
    picture = change.picture(case.subject, case.found)
    say(picture.title)
    if picture.table is None:
        return
    if output_as.json or not on_terminal():
        say(plain_table(picture.table))
    else:
        write_table(picture.table)
    for note in picture.notes:
        say(f"  note: {note}")


async def _act(
    change: ConfirmedChange[Found], scope: Scope, case: _Case[Found], output_as: OutputOptions
) -> _Case[Found]:
    if case.found is None or not change.due(case.found):
        return case
    try:
        done = await change.act(scope, case.subject, case.database, case.found)
    except ProblemError as error:
        if not output_as.json:
            _complain(change, case, error.problem)
        return replace(case, problem=error.problem)
    if not output_as.json:
        write(f"{case.subject.name}: {done}")
    return replace(case, done=True)


def _complain(change: ConfirmedChange[Found], case: _Case[Found], problem: Problem) -> None:
    write_error(f"{case.subject.name}: {problem_text(problem, label=change.label(problem))}")


def _as_dict(change: ConfirmedChange[Found], case: _Case[Found]) -> JsonObject:
    return {
        "environment": case.subject.environment,
        "database": case.subject.target.name,
        **change.as_dict(case.found, done=case.done),
        "problem": problem_of_command(case.problem) if case.problem is not None else None,
    }
