"""`reconciler unlock`: who holds the lock, and freeing it."""

from __future__ import annotations

from dataclasses import replace

import click

from reconciler.cli.confirming import Consent, consent_options
from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)
from reconciler.model import Database, LockState, Problem
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value


@click.command(
    "unlock",
    epilog=example(
        "reconciler unlock -e production -d orders --reason 'its machine is gone'",
        "reconciler unlock --dsn env:DSN --reason 'frozen for an hour, INC-7' --yes",
    ),
)
@consent_options
@database_options(working_tree=False)
def command(
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Show who holds the lock of a database and since when, and free it.

    The lock belongs to a session of the server, so freeing it ends that session: your role must be the holder's, a member of
    it, or a member of pg_signal_backend. What ran in it is rolled back. Needed only where a holder hangs, or its machine has
    gone without a word: a holder that ends frees the lock by itself.
    """
    from reconciler.cli.running import run_to_end

    return run_to_end(_unlock(consent, repository, selection, output_as))


@value(kw_only=True)
class _Case:
    """One database, and what came of it."""

    environment: str
    database: str
    name: str
    opened: Database
    found: LockState | None = None
    freed: bool = False
    problem: Problem | None = None

    @property
    def due(self) -> bool:
        """There is something to free."""
        return self.found is not None and (self.found.held or self.found.forgotten)


async def _unlock(
    consent: Consent, repository: RepositoryOptions, selection: SelectionOptions, output_as: OutputOptions
) -> Exit:
    from reconciler.cli.confirming import agrees, check_consent
    from reconciler.cli.exits import worst
    from reconciler.cli.judging import exit_of_problem
    from reconciler.cli.subjects import Scope, Subject, open_scope, refuse_unreadable
    from reconciler.cli.terminal import write, write_error, write_json
    from reconciler.model import ProblemError
    from reconciler.report.problems import problem_text

    check_consent(consent)

    async def look(scope: Scope, subject: Subject) -> _Case:
        case = _Case(
            environment=subject.environment,
            database=subject.target.name,
            name=subject.name,
            opened=scope.workspace.open(subject.environment, subject.target, subject.timeouts),
        )
        try:
            return replace(case, found=await case.opened.read_lock())
        except ProblemError as error:
            return replace(case, problem=error.problem)

    async def free(scope: Scope, subject: Subject, case: _Case) -> _Case:
        if case.found is None or not case.due:
            return case
        try:
            actor = await scope.actor("unlock", subject)
            await case.opened.unlock(case.found, actor, consent.reason.strip())
        except ProblemError as error:
            if not output_as.json:
                write_error(f"{case.name}: {problem_text(error.problem)}")
            return replace(case, problem=error.problem)
        if not output_as.json:
            write(f"{case.name}: the lock is freed, and that is recorded in its journal")
        return replace(case, freed=True)

    async with open_scope(repository, selection, writing=True) as scope:
        refuse_unreadable(scope)
        cases = [await look(scope, subject) for subject in scope.subjects]
        if not output_as.json or not consent.yes:
            for index, case in enumerate(cases):
                _show(case, output_as, first=not index)
        declined = False
        if any(case.due for case in cases):
            names = ", ".join(case.name for case in cases if case.due)
            declined = not consent.yes and not await agrees(f"Free the lock of {names}?")
            if not declined:
                cases = [
                    await free(scope, subject, case)
                    for subject, case in zip(scope.subjects, cases, strict=True)
                ]
    if output_as.json:
        write_json({"databases": [_as_dict(case) for case in cases]})
    elif declined:
        write("nothing was changed")
    problems = worst(exit_of_problem(case.problem) for case in cases if case.problem is not None)
    return worst([problems, Exit.OUT_OF_SYNC]) if declined else problems


def _show(case: _Case, output_as: OutputOptions, *, first: bool) -> None:
    from reconciler.assembly import utc_now
    from reconciler.cli.terminal import on_terminal, write, write_error, write_note, write_table
    from reconciler.report.problems import problem_text
    from reconciler.report.repairs import lock_note, lock_table, lock_title
    from reconciler.report.table import plain_table

    say = write_note if output_as.json else write
    if not first:
        say("")
    if case.problem is not None:
        write_error(f"{case.name}: {problem_text(case.problem)}")
    if case.found is None:
        return
    say(lock_title(case.name, case.found))
    if not case.due:
        return
    table = lock_table(case.found, utc_now())
    if output_as.json or not on_terminal():
        say(plain_table(table))
    else:
        write_table(table)
    if note := lock_note(case.found):
        say(f"  note: {note}")


def _as_dict(case: _Case) -> JsonObject:
    from reconciler.model.encoding import problem_as_dict
    from reconciler.report.repairs import lock_as_dict

    return {
        "environment": case.environment,
        "database": case.database,
        "freed": case.freed,
        "lock": lock_as_dict(case.found) if case.found is not None else None,
        "problem": problem_as_dict(case.problem) if case.problem is not None else None,
    }
