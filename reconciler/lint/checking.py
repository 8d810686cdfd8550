"""Checking the files of a catalog against our own rules, for each server that is to run them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from reconciler.formats import Notice
from reconciler.lint.cockroachdb import SILENCEABLE_ERRORS, cockroachdb_findings
from reconciler.lint.findings import Finding, Severity, finding_at
from reconciler.model import COCKROACHDB, POSTGRESQL, Migration, Place, Problem, ProblemError, Script
from reconciler.sqltext import SYNTAX_ERROR, Analysis, analyse, statement_losses, transactional

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


def check_catalog(catalog: Migrations, engines: AbstractSet[str] = frozenset({POSTGRESQL})) -> list[Finding]:
    """Return everything our rules find in the files of `catalog`, by path and line, errors before warnings at one place.

    Args:
        catalog: the files.
        engines: the servers that are to run them, `POSTGRESQL`, `COCKROACHDB` or both. What only the other one refuses or
            frowns upon is not found.
    """
    findings = [_of_problem(INVALID_MIGRATION, problem) for problem in catalog.problems]
    findings += [Finding(note.rule, Severity.WARNING, *note[1:]) for note in catalog.notices]
    for migration in catalog.migrations:
        # what is wrong for both servers is said once
        findings += dict.fromkeys(_check(migration, engines))
    ignored = {migration.path: migration.directives.ignore for migration in catalog.migrations}
    return sorted(
        (each for each in findings if not _is_silenced(each, ignored.get(each.place.path, {}))),
        key=lambda each: (each.place.path, each.place.line, each.place.column, each.severity, each.rule),
    )


def _is_silenced(finding: Finding, ignored: Mapping[str, str]) -> bool:
    silenceable = finding.severity is Severity.WARNING or finding.rule in SILENCEABLE_ERRORS
    return silenceable and finding.rule in ignored


def _check(migration: Migration, engines: AbstractSet[str]) -> Iterator[Finding]:
    if migration.down is None and not migration.directives.irreversible:
        yield Finding(
            MISSING_DOWN,
            Severity.WARNING,
            f"migration {migration.version} cannot be taken back: it has no down section",
            "write one under `-- DOWN MIGRATION`, or say `-- reconciler: irreversible` above the up section",
            Place(migration.path, 1),
        )
    needed = not migration.directives.no_transaction
    for engine in sorted(engines):
        for script in (migration.up, migration.down):
            if script is None:
                continue
            try:
                analysis = analyse(script, strict=True, engine=engine)
            except ProblemError as error:
                yield _of_problem(
                    SYNTAX if error.problem.sqlstate == SYNTAX_ERROR else INVALID_SQL, error.problem
                )
                continue
            needed = needed or _may_need_autocommit(analysis)
            yield from _of_transaction(migration, analysis)
            if script is migration.up and migration.directives.allow_destructive is None:
                yield from _losses(script, analysis)
            if engine == COCKROACHDB:
                yield from cockroachdb_findings(analysis, also_postgresql=POSTGRESQL in engines)
    if not needed:
        yield Finding(
            NEEDLESS_NO_TRANSACTION,
            Severity.WARNING,
            f"migration {migration.version} gives up its transaction, and no statement of it asks for that",
            "remove `-- reconciler: no-transaction`, so that a failure leaves nothing half done",
            Place(migration.path, 1),
        )


def _of_transaction(migration: Migration, analysis: Analysis) -> Iterator[Finding]:
    try:
        transactional(migration.directives, analysis)
    except ProblemError as error:
        mixed = any(analysis.needs_autocommit) and not migration.directives.no_transaction
        # CockroachDB refuses no mix
        rule = MIXED_TRANSACTION if mixed and analysis.engine == POSTGRESQL else TRANSACTION_CONTROL
        yield _of_problem(rule, error.problem)


def _losses(script: Script, analysis: Analysis) -> Iterator[Finding]:
    for statement in analysis.statements if analysis.data_loss else ():
        for loss in statement_losses(statement):
            yield finding_at(
                DATA_LOSS,
                Severity.WARNING,
                f"this {loss}, and no down brings the data back",
                "if it may go, say so: `-- reconciler: allow-destructive REASON` above the up section",
                script,
                statement,
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
