"""The body of `baseline` and `repair`: show what changes, ask, change it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.assembly import declaration_without_manifest
from reconciler.catalog import Catalog
from reconciler.cli.confirming import Consent, agrees, check_consent
from reconciler.cli.exits import Exit, worst
from reconciler.cli.judging import exit_of_problem
from reconciler.cli.options import OutputOptions, RepositoryOptions, SelectionOptions
from reconciler.cli.subjects import Scope, Subject, open_scope, refuse_unreadable
from reconciler.cli.terminal import on_terminal, write, write_error, write_json, write_note, write_table
from reconciler.errors import UsageError
from reconciler.model import Database, LockHolder, Problem, ProblemError, Reason, Repair, RepairKind
from reconciler.model.encoding import JsonObject, problem_as_dict
from reconciler.model.value import value
from reconciler.operations import Declaration
from reconciler.operations.repair import RepairRequest, plan_repair, repair
from reconciler.report.outcomes import waiting_line
from reconciler.report.problems import problem_text
from reconciler.report.repairs import repair_as_dict, repair_table, repair_title
from reconciler.report.table import plain_table
from reconciler.report.text import one_line


@value(kw_only=True)
class _Case:
    """One database, and what came of it."""

    subject: Subject
    database: Database
    declaration: Declaration
    request: RepairRequest
    found: Repair | None = None
    done: bool = False
    problem: Problem | None = None

    @property
    def due(self) -> bool:
        """There is something to change."""
        return self.found is not None and not self.found.settled


async def run_repair(
    verb: str,
    kind: RepairKind,
    version: int,
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Repair the chosen databases, and say what came of it.

    Args:
        verb: for lock and journal.
        kind: what is done.
        version: of the migration; 0 where none is meant.
        consent: the person's reason and whether they want to be asked.
        repository: which repository.
        selection: which databases.
        output_as: how to answer.
    """
    check_consent(consent)
    if kind is RepairKind.CLAIM and selection.dsn is not None:
        raise UsageError(
            "a database is handed over to an environment of a repository, and --dsn names none",
            remedy="run it in the repository, and name the environment by --environment",
        )
    # what is not in force needs no file; all else is written from files
    migrating = kind is not RepairKind.MARK_ROLLED_BACK
    async with open_scope(repository, selection, writing=True, migrating=migrating) as scope:
        refuse_unreadable(scope)
        cases = [await _look(scope, subject, kind, version) for subject in scope.subjects]
        if not output_as.json or not consent.yes:
            for index, case in enumerate(cases):
                _show(case, output_as, first=not index)
        declined = False
        if any(case.due for case in cases):
            declined = not consent.yes and not await agrees(_question(cases))
            if not declined:
                cases = [await _repair(scope, verb, case, consent, output_as) for case in cases]
    if output_as.json:
        write_json({"databases": [_as_dict(case) for case in cases]})
    elif declined:
        write("nothing was changed")
    problems = worst(exit_of_problem(case.problem) for case in cases if case.problem is not None)
    return worst([problems, Exit.OUT_OF_SYNC]) if declined else problems


async def _look(scope: Scope, subject: Subject, kind: RepairKind, version: int) -> _Case:
    declaration = subject.declaration
    if declaration is None:
        declaration = declaration_without_manifest(Catalog(), None, subject.timeouts)
    case = _Case(
        subject=subject,
        database=scope.workspace.open(subject.environment, subject.target, subject.timeouts),
        declaration=declaration,
        request=RepairRequest(kind=kind, version=version, declared_by=subject.manifest),
    )
    try:
        return replace(case, found=await plan_repair(case.database, case.request, declaration))
    except ProblemError as error:
        return replace(case, problem=error.problem)


async def _repair(scope: Scope, verb: str, case: _Case, consent: Consent, output_as: OutputOptions) -> _Case:
    if not case.due:
        return case
    assert case.found is not None

    def waiting(holder: LockHolder) -> None:
        write_note(waiting_line(case.subject.name, holder))

    try:
        await repair(
            case.database,
            case.request,
            case.declaration,
            case.found,
            await scope.actor(verb, case.subject),
            consent.reason.strip(),
            acquire_timeout=case.subject.timeouts.acquire,
            on_waiting=waiting,
        )
    except ProblemError as error:
        if not output_as.json:
            write_error(f"{case.subject.name}: {problem_text(error.problem, label=_label(error.problem))}")
        return replace(case, problem=error.problem)
    if not output_as.json:
        write(f"{case.subject.name}: done, and recorded in its journal")
    return replace(case, done=True)


def _show(case: _Case, output_as: OutputOptions, *, first: bool) -> None:
    """What would change. Beside a JSON document it goes to standard error, where the person sees it who is asked."""
    say = write_note if output_as.json else write
    if not first:
        say("")
    if case.problem is not None:
        write_error(f"{case.subject.name}: {problem_text(case.problem, label=_label(case.problem))}")
    if case.found is None:
        return
    say(repair_title(case.subject.name, case.found))
    if not case.due:
        return
    table = repair_table(case.found, every=bool(output_as.verbose))
    if output_as.json or not on_terminal():
        say(plain_table(table))
    else:
        write_table(table)
    for note in case.found.notes:
        say(f"  note: {one_line(note)}")


def _question(cases: list[_Case]) -> str:
    names = [case.subject.name for case in cases if case.due]
    return f"Change {names[0]} so?" if len(names) == 1 else f"Change these {len(names)} databases so?"


def _label(problem: Problem) -> str:
    return "refused" if problem.reason.is_refusal and problem.reason is not Reason.LOCK_HELD else "error"


def _as_dict(case: _Case) -> JsonObject:
    return {
        "environment": case.subject.environment,
        "database": case.subject.target.name,
        "done": case.done,
        "repair": repair_as_dict(case.found) if case.found is not None else None,
        "problem": problem_as_dict(case.problem) if case.problem is not None else None,
    }
