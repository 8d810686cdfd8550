"""Findings about migration files, and our own rules. What SQL does to a busy table is another linter's business.

An error is what a plan would refuse, or a server reject. A warning is what a person should have a look at, and can be
silenced in the file: `-- reconciler: ignore RULE REASON`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

from reconciler.formats import Notice
from reconciler.model import Migration, Place, Problem, ProblemError, Script
from reconciler.sqltext import SYNTAX_ERROR, Analysis, analyse, excerpt, statement_losses, transactional

INVALID_MIGRATION = "invalid-migration"
SYNTAX = "syntax-error"
INVALID_SQL = "invalid-sql"
TRANSACTION_CONTROL = "transaction-control"
MIXED_TRANSACTION = "mixed-transaction"
MISSING_DOWN = "missing-down"
DATA_LOSS = "data-loss"
NEEDLESS_NO_TRANSACTION = "needless-no-transaction"

_MAY_NEED_AUTOCOMMIT = ("CALL", "CLUSTER", "DO", "REINDEX")
"""Statements whose words do not tell whether they need to stand alone: only the database knows."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


class Finding(NamedTuple):
    """One thing found. `rule` is public and kebab-case; `excerpt` is the source line and a caret, or empty."""

    rule: str
    severity: Severity
    message: str
    remedy: str
    place: Place
    excerpt: str = ""


class Migrations(Protocol):
    """What is checked: the part of a catalog that matters here."""

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """The files that could be read."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with those that could not."""
        ...

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the reader of the files remarked."""
        ...


def check_catalog(catalog: Migrations) -> list[Finding]:
    """Return everything our rules find in the files of `catalog`, by path and line, errors before warnings at one place."""
    findings = [_of_problem(INVALID_MIGRATION, problem) for problem in catalog.problems]
    ignored = {migration.path: migration.directives.ignore for migration in catalog.migrations}
    warnings = [Finding(note.rule, Severity.WARNING, *note[1:]) for note in catalog.notices]
    for migration in catalog.migrations:
        for finding in _check(migration):
            (findings if finding.severity is Severity.ERROR else warnings).append(finding)
    findings += [warning for warning in warnings if warning.rule not in ignored.get(warning.place.path, {})]
    return sorted(
        findings,
        key=lambda each: (each.place.path, each.place.line, each.place.column, each.severity, each.rule),
    )


def _check(migration: Migration) -> Iterator[Finding]:
    if migration.down is None and not migration.directives.irreversible:
        yield Finding(
            MISSING_DOWN,
            Severity.WARNING,
            f"migration {migration.version} cannot be taken back: it has no down section",
            "write one under `-- DOWN MIGRATION`, or say `-- reconciler: irreversible` above the up section",
            Place(migration.path, 1),
        )
    analyses = []
    for script in (migration.up, migration.down):
        if script is None:
            continue
        try:
            analysis = analyse(script, strict=True)
        except ProblemError as error:
            yield _of_problem(
                SYNTAX if error.problem.sqlstate == SYNTAX_ERROR else INVALID_SQL, error.problem
            )
            continue
        analyses.append(analysis)
        try:
            transactional(migration.directives, analysis)
        except ProblemError as error:
            mixed = any(analysis.needs_autocommit) and not migration.directives.no_transaction
            yield _of_problem(MIXED_TRANSACTION if mixed else TRANSACTION_CONTROL, error.problem)
        if script is migration.up and migration.directives.allow_destructive is None:
            yield from _losses(script, analysis)
    if migration.directives.no_transaction and not any(
        _may_need_autocommit(analysis) for analysis in analyses
    ):
        yield Finding(
            NEEDLESS_NO_TRANSACTION,
            Severity.WARNING,
            f"migration {migration.version} gives up its transaction, and no statement of it asks for that",
            "remove `-- reconciler: no-transaction`, so that a failure leaves nothing half done",
            Place(migration.path, 1),
        )


def _losses(script: Script, analysis: Analysis) -> Iterator[Finding]:
    for statement in analysis.statements if analysis.data_loss else ():
        for loss in statement_losses(statement):
            yield Finding(
                DATA_LOSS,
                Severity.WARNING,
                f"this {loss}, and no down brings the data back",
                "if it may go, say so: `-- reconciler: allow-destructive REASON` above the up section",
                Place(script.path, statement.line, statement.column),
                excerpt(script, statement.offset),
            )


def _may_need_autocommit(analysis: Analysis) -> bool:
    return (
        any(analysis.needs_autocommit)
        or analysis.transaction_control is not None
        or any(_first_word(statement.text) in _MAY_NEED_AUTOCOMMIT for statement in analysis.statements)
    )


def _first_word(text: str) -> str:
    return text.split(None, 1)[0].upper()


def _of_problem(rule: str, problem: Problem) -> Finding:
    place = problem.place or Place("", 1)
    return Finding(rule, Severity.ERROR, problem.message, problem.remedy, place, problem.excerpt)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The errors among `findings`."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]
