"""Which databases a command acts on: those that the repository declares, or the one that a DSN names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from reconciler.assembly import (
    Declared,
    Environment,
    Workspace,
    actor,
    declaration,
    declaration_without_manifest,
)
from reconciler.catalog import Catalog, CatalogReader
from reconciler.cli.disk import MIGRATIONS, read_folders, repository_root
from reconciler.cli.opening import open_without_repository, open_workspace, secret_reference
from reconciler.cli.options import RepositoryOptions, SelectionOptions
from reconciler.credentials import EnvironmentTarget, dsn_from_environment
from reconciler.errors import UsageError
from reconciler.manifest import DatabaseTarget, Embedded, Literal, Reference, Timeouts
from reconciler.model import Actor, Change, Problem, ProblemError, Reason, Revision
from reconciler.model.value import value
from reconciler.operations import Declaration
from reconciler.report.status import database_name


@value(kw_only=True)
class Subject:
    """One database that a command acts on.

    Args:
        environment: its name; empty for a database that only a DSN names.
        target: how to reach it.
        timeouts: in seconds.
        declaration: what it is to be; None when nothing says.
        manifest: path of the manifest; empty without one.
    """

    environment: str
    target: DatabaseTarget
    timeouts: Timeouts
    declaration: Declaration | None = None
    manifest: str = ""

    @property
    def name(self) -> str:
        """Environment and database, as people write them."""
        return database_name(self.environment, self.target.name)

    @property
    def suspended(self) -> bool:
        """Nobody is to connect to it."""
        return self.declaration is not None and self.declaration.suspended


@value(kw_only=True)
class Scope:
    """What a command acts on.

    Args:
        workspace: opens the databases.
        revision: what was read from git; None when nothing was.
        environments: those that are declared and chosen; empty with a DSN.
        subjects: the databases, in the order of the manifests.
    """

    workspace: Workspace
    revision: Revision | None = None
    environments: tuple[Environment, ...] = ()
    subjects: tuple[Subject, ...] = ()

    async def last_change(self, subject: Subject) -> Change | None:
        """The commit that last changed the manifest of `subject`."""
        if self.revision is None or not subject.manifest:
            return None
        return await self.workspace.source.last_change(self.revision, subject.manifest)

    async def actor(self, verb: str, subject: Subject) -> Actor:
        """This process, doing `verb` to `subject`."""
        claim = subject.declaration.claim if subject.declaration is not None else None
        return actor(verb, claim, self.revision, await self.last_change(subject))


@asynccontextmanager
async def open_scope(
    repository: RepositoryOptions,
    selection: SelectionOptions,
    *,
    writing: bool = False,
    migrating: bool = False,
) -> AsyncIterator[Scope]:
    """Find the databases that a command acts on.

    `--dsn` comes first. The variable DSN counts when no environment is named and no manifest exists to name one.

    Args:
        repository: which repository.
        selection: which databases.
        writing: the command writes: of several environments, one must be named.
        migrating: the command needs to know the migrations, also with a DSN.

    Raises:
        UsageError: the options make no sense, or name what does not exist.
        ProblemError: the repository cannot be read.
    """
    _check(selection)
    given = _given_target(selection)
    fallback = dsn_from_environment(os.environ) if given is None and selection.environment is None else None
    if given is not None and not (migrating or selection.migrations is not None):
        async with open_without_repository() as workspace:
            yield Scope(workspace=workspace, subjects=(_bare(given),))
        return
    if (given is not None or fallback is not None) and not _has_repository(repository):
        async with open_without_repository() as workspace:
            yield _outside(workspace, given or fallback, selection, migrating=migrating)
        return
    async with open_workspace(repository) as workspace:
        revision = await workspace.source.head()
        if given is not None:
            yield await _with_catalog(workspace, revision, given, selection)
            return
        assert workspace.declarations is not None
        declared = await workspace.declarations.read(revision, with_changes=False)
        if declared.problem is not None and fallback is not None:
            if migrating or selection.migrations is not None:
                yield await _with_catalog(workspace, revision, fallback, selection)
            else:
                yield Scope(workspace=workspace, subjects=(_bare(fallback),))
            return
        chosen = choose(declared, selection, writing=writing)
        subjects = tuple(_subjects(chosen, selection.database, workspace.source.repository))
        yield Scope(workspace=workspace, revision=revision, environments=chosen, subjects=subjects)


def choose(declared: Declared, selection: SelectionOptions, *, writing: bool) -> tuple[Environment, ...]:
    """The environments that `selection` names.

    Raises:
        UsageError: there is no such environment or database, or a writing command leaves open which.
        ProblemError: no manifest can be read at all.
    """
    if declared.problem is not None:
        problem = declared.problem
        raise ProblemError(replace(problem, remedy=f"{problem.remedy}, or name a database with --dsn"))
    environments = declared.environments
    names = ", ".join(environments)
    if selection.environment is not None:
        if selection.environment not in environments:
            raise UsageError(
                f"there is no environment {selection.environment!r} at {declared.revision.short}",
                remedy=f"name one of: {names}",
            )
        chosen: tuple[Environment, ...] = (environments[selection.environment],)
    elif writing and len(environments) > 1:
        raise UsageError(
            "it is not said which environment is meant", remedy=f"name one with --environment: {names}"
        )
    else:
        chosen = tuple(environments.values())
    if selection.database is None:
        return chosen
    return _with_database(chosen, selection.database)


def _with_database(environments: Sequence[Environment], database: str) -> tuple[Environment, ...]:
    """Those of `environments` that have the database."""
    readable = [each.manifest for each in environments if each.manifest is not None]
    having = {
        manifest.environment
        for manifest in readable
        if any(target.name == database for target in manifest.databases)
    }
    if not having:
        for environment in environments:
            if environment.manifest is None:
                raise ProblemError(environment.problems[0])
        known = sorted({target.name for manifest in readable for target in manifest.databases})
        where = f"environment {environments[0].name}" if len(environments) == 1 else "any environment"
        raise UsageError(
            f"there is no database {database!r} in {where}", remedy=f"name one of: {', '.join(known)}"
        )
    return tuple(each for each in environments if each.name in having)


def _subjects(
    environments: Sequence[Environment], database: str | None, repository: str
) -> Iterator[Subject]:
    for environment in environments:
        manifest = environment.manifest
        if manifest is None:
            continue
        for target in manifest.databases:
            if database is None or target.name == database:
                yield Subject(
                    environment=environment.name,
                    target=target,
                    timeouts=manifest.timeouts,
                    declaration=declaration(environment, target, repository),
                    manifest=manifest.path,
                )


def _check(selection: SelectionOptions) -> None:
    if selection.dsn is not None and (selection.environment is not None or selection.database is not None):
        raise UsageError(
            "--dsn names a database, and so do --environment and --database", remedy="give only one of them"
        )


def _given_target(selection: SelectionOptions) -> EnvironmentTarget | None:
    """The database of `--dsn`; the variables CA, DB_DRIVER and DB_TIMEOUT hold for it as well."""
    if selection.dsn is None:
        return None
    described = dsn_from_environment({**os.environ, "DSN": "postgresql://"})
    assert described is not None
    return replace(described, database=replace(described.database, dsn=_dsn_reference(selection.dsn)))


def _dsn_reference(text: str) -> Reference:
    from reconciler.manifest.connection import is_connection_string, passwords
    from reconciler.redaction import redact

    reference = secret_reference(text)
    if reference is not None:
        return reference
    if text == "embedded":
        return Embedded()
    if not is_connection_string(text):
        # not shown: it may be a password in the wrong place
        raise UsageError(
            "the value of --dsn is no connection string",
            remedy="write postgresql://user@host/database, key=value pairs, env:NAME, file:PATH, gcp_secret:NAME or command:PROGRAM",
        )
    for password in passwords(text):
        redact.add(password)
    return Literal(text)


def _has_repository(repository: RepositoryOptions) -> bool:
    return repository.repo is not None or repository_root(Path.cwd()) is not None


def _bare(target: EnvironmentTarget) -> Subject:
    return Subject(environment="", target=target.database, timeouts=target.timeouts)


def _outside(
    workspace: Workspace, target: EnvironmentTarget | None, selection: SelectionOptions, *, migrating: bool
) -> Scope:
    """With a DSN and without a repository: the migrations are files on disk."""
    assert target is not None
    if not migrating and selection.migrations is None:
        return Scope(workspace=workspace, subjects=(_bare(target),))
    folder = selection.migrations if selection.migrations is not None else MIGRATIONS
    catalog = CatalogReader().read(read_folders(Path.cwd(), [folder]), folder)
    return Scope(workspace=workspace, subjects=(_with(target, catalog, folder, str(Path.cwd())),))


async def _with_catalog(
    workspace: Workspace, revision: Revision, target: EnvironmentTarget, selection: SelectionOptions
) -> Scope:
    """With a DSN and a repository: the migrations are those of the revision."""
    folder = selection.migrations if selection.migrations is not None else MIGRATIONS
    snapshot = await workspace.source.read(revision, [folder])
    catalog = CatalogReader().read(snapshot, folder)
    subject = _with(target, catalog, folder, str(revision))
    return Scope(workspace=workspace, revision=revision, subjects=(subject,))


def _with(target: EnvironmentTarget, catalog: Catalog, folder: str, where: str) -> Subject:
    if not catalog.migrations and not catalog.problems:
        # an empty folder never means "take everything back"
        raise ProblemError(
            Problem(
                reason=Reason.TARGET_UNKNOWN,
                message=f"there is no migration in {folder}/ at {where}",
                remedy="name the folder of the migrations with --migrations",
            )
        )
    return replace(_bare(target), declaration=declaration_without_manifest(catalog, None, target.timeouts))


def refuse_unreadable(scope: Scope) -> None:
    """Refuse to go on when the manifest of an environment cannot be read.

    Raises:
        ProblemError: why it cannot.
    """
    for environment in scope.environments:
        if environment.manifest is None:
            raise ProblemError(environment.problems[0])


def refuse_broken(scope: Scope, selection: SelectionOptions) -> None:
    """Refuse to go on with an environment that was named and cannot be used: its manifest is broken, or it is suspended.

    Raises:
        ProblemError: naming the cause.
    """
    if selection.environment is None:
        return
    for environment in scope.environments:
        if environment.manifest is None:
            raise ProblemError(environment.problems[0])
        if environment.manifest.suspend:
            raise ProblemError(suspended(environment.name, environment.manifest.path))


def suspended(environment: str, manifest: str) -> Problem:
    """Why nothing is asked of an environment.

    Args:
        environment: its name.
        manifest: path of its manifest.
    """
    return Problem(
        reason=Reason.SUSPENDED,
        message=f"the environment {environment} is suspended: nobody connects to it",
        remedy=f"remove `suspend: true` from {manifest}, or name the database with --dsn",
    )
