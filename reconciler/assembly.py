"""The one place that wires source, manifests, credentials, embedded server and databases together."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.catalog import Catalog, CatalogReader
from reconciler.credentials import Credentials, SecretRules, max_connections
from reconciler.database import (
    ConnectionLimit,
    ConnectionSettings,
    PemFiles,
    PemUse,
    complete_dsn,
    open_database,
)
from reconciler.manifest import (
    DatabaseTarget,
    Embedded,
    Literal,
    Manifest,
    ManifestReader,
    Policy,
    Reference,
    Timeouts,
)
from reconciler.model import (
    Actor,
    Change,
    Claim,
    Database,
    File,
    HookRunner,
    Problem,
    ProblemError,
    Reason,
    Revision,
    Secrets,
    Snapshot,
    Source,
)
from reconciler.model.value import value
from reconciler.operations import Declaration
from reconciler.redaction import Secret

if TYPE_CHECKING:
    from reconciler.embedded import EmbeddedServer
    from reconciler.hooks import HookListener

MANIFESTS = "manifests"
"""The folder of the manifests, from the repository's root."""
STATE_FOLDER = ".reconciler"


@value(kw_only=True)
class Environment:
    """One environment as one revision declares it.

    Args:
        name: its name.
        manifest: what it says; None when it cannot be read.
        catalog: its migrations; None when the manifest cannot be read.
        problems: why the manifest cannot be read.
        change: the commit that last changed the manifest; None without one.
    """

    name: str
    manifest: Manifest | None = None
    catalog: Catalog | None = None
    problems: tuple[Problem, ...] = ()
    change: Change | None = None


@value(kw_only=True)
class Declared:
    """Everything that one revision declares.

    Args:
        revision: the commit.
        environments: by name, in the order of their names.
        problem: why no manifest could be read at all: the folder is gone or empty.
    """

    revision: Revision
    environments: Mapping[str, Environment] = field(default_factory=dict)
    problem: Problem | None = None


class Declarations:
    """Reads what revisions of a repository declare. What did not change between two revisions is not parsed again."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._manifests = ManifestReader()
        self._catalogs = CatalogReader()
        self._changes: dict[str, tuple[str, Change | None]] = {}

    async def read(self, revision: Revision, *, with_changes: bool = True) -> Declared:
        """What `revision` declares.

        Args:
            revision: the commit.
            with_changes: also find out which commit last changed each manifest, at the cost of a look into the log.

        Raises:
            ProblemError: the repository cannot be read.
        """
        snapshot = await self._source.read(revision, [MANIFESTS])
        found = self._manifests.read(snapshot, MANIFESTS)
        if not found:
            return Declared(revision=revision, problem=_no_manifests(revision))
        manifests = {name: value for name, value in found.items() if isinstance(value, Manifest)}
        folders = sorted({manifest.migrations for manifest in manifests.values()})
        migrations = await self._folders(revision, folders)
        environments: dict[str, Environment] = {}
        for name in sorted(found):
            manifest = manifests.get(name)
            if manifest is None:
                environments[name] = Environment(name=name, problems=_problems(found[name]))
                continue
            files = migrations[manifest.migrations]
            if isinstance(files, Problem):
                environments[name] = Environment(name=name, problems=(files,))
                continue
            change = (
                await self._last_change(revision, snapshot.files[manifest.path]) if with_changes else None
            )
            catalog = self._catalogs.read(files, manifest.migrations)
            environments[name] = Environment(name=name, manifest=manifest, catalog=catalog, change=change)
        return Declared(revision=revision, environments=environments)

    async def _folders(self, revision: Revision, folders: Sequence[str]) -> dict[str, Snapshot | Problem]:
        """The files of each folder, or why it cannot be read.

        All at once, since that takes a single git process; one by one when that fails, since a folder that cannot be read
        concerns only those who use it.

        Raises:
            ProblemError: none of them can be read.
        """
        if not folders:
            return {}
        try:
            return dict.fromkeys(folders, await self._source.read(revision, folders))
        except ProblemError:
            if len(folders) == 1:
                raise
        found: dict[str, Snapshot | Problem] = {}
        for folder in folders:
            try:
                found[folder] = await self._source.read(revision, [folder])
            except ProblemError as error:
                found[folder] = error.problem
        if not any(isinstance(files, Snapshot) for files in found.values()):
            raise ProblemError(next(files for files in found.values() if isinstance(files, Problem)))
        return found

    async def _last_change(self, revision: Revision, file: File) -> Change | None:
        """The commit that last changed a manifest. The log is asked only when the content is another than the last time."""
        blob, change = self._changes.get(file.path, ("", None))
        if blob != file.blob:
            change = await self._source.last_change(revision, file.path)
            self._changes[file.path] = (file.blob, change)
        return change

    def catalog(self, snapshot: Snapshot, folder: str) -> Catalog:
        """The migrations of one folder of a snapshot."""
        return self._catalogs.read(snapshot, folder)


class Connector:
    """Opens the databases that manifests name.

    Args:
        secrets: resolves their references.
        state_folder: where the embedded server keeps its data.
        on_embedded: told of each embedded database when it is first used: environment, database, and a command line that
            opens it in psql.
        root: the folder of a local repository, in which the relative paths of its manifests begin.
        max_connections: to each database at once, from this process; None for any number.
    """

    def __init__(
        self,
        secrets: Secrets,
        state_folder: Path,
        on_embedded: Callable[[str, str, str], None] | None = None,
        *,
        root: Path | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._secrets = secrets
        self._state_folder = state_folder
        self._on_embedded = on_embedded
        self._announced: set[str] = set()
        self._embedded: EmbeddedServer | None = None
        self._root = root
        self._max_connections = max_connections
        self._pem_files = PemFiles()

    def open(
        self, environment: str, target: DatabaseTarget, timeouts: Timeouts, *, show_queries: bool = False
    ) -> Database:
        """A database that connects at its first use. Its secret is resolved anew for every connection."""

        limit = ConnectionLimit(self._max_connections) if self._max_connections is not None else None

        async def settings() -> ConnectionSettings:
            return replace(
                await self._settings(environment, target, timeouts), limit=limit, show_queries=show_queries
            )

        return open_database(settings)

    def hooks(
        self, environment: str, target: DatabaseTarget, timeouts: Timeouts, listener: HookListener
    ) -> HookRunner:
        """Runs the hooks of a database: to be asked for only by who consented to run what git says.

        Args:
            environment: the environment's name.
            target: the database.
            timeouts: of its manifest.
            listener: hears what the hooks do.
        """
        from reconciler.hooks import Runner

        async def dsn() -> Secret:
            return complete_dsn(await self._settings(environment, target, timeouts))

        return Runner(dsn, listener, os.environ)

    async def close(self) -> None:
        """Stop the embedded server if nobody else uses it, and remove what was written for the driver."""
        if self._embedded is not None:
            await self._embedded.stop()
        self._pem_files.close()
        await self._secrets.close()

    async def secret_warnings(self, target: DatabaseTarget) -> tuple[Problem, ...]:
        """Which secrets of a database may be older than the newest, since who keeps them cannot be reached."""
        references = (target.dsn, target.ca, target.client_certificate, target.client_key)
        found = [await self._secrets.stale(each) for each in references]
        return tuple(problem for problem in found if problem is not None)

    async def _settings(
        self, environment: str, target: DatabaseTarget, timeouts: Timeouts
    ) -> ConnectionSettings:
        """How to connect, every secret resolved anew."""

        async def pem(key: str, reference: Reference | None) -> str | None:
            if reference is None:
                return None
            given = (await self._secrets.resolve(reference, environment)).reveal()
            base = self._root if isinstance(reference, Literal) else None
            return self._pem_files.path(PemUse(environment, target.name, key), given, base)

        return ConnectionSettings(
            dsn=await self._dsn(environment, target),
            connect_timeout=timeouts.connect,
            role=target.role,
            history_schema=target.history_schema,
            engine=target.engine.value,
            lock=target.lock.value,
            root_certificate=await pem("ca", target.ca),
            client_certificate=await pem("client_certificate", target.client_certificate),
            client_key=await pem("client_key", target.client_key),
        )

    async def _dsn(self, environment: str, target: DatabaseTarget) -> Secret:
        if not isinstance(target.dsn, Embedded):
            return await self._secrets.resolve(target.dsn, environment)
        from reconciler.embedded import EmbeddedServer, database_name, psql_command

        if self._embedded is None:
            self._embedded = EmbeddedServer(self._state_folder)
        name = database_name(environment, target.name)
        dsn = await self._embedded.dsn(name)
        if self._on_embedded is not None and name not in self._announced:
            self._announced.add(name)
            self._on_embedded(environment, target.name, psql_command(dsn))
        return Secret(dsn)


class Workspace:
    """What a one-off command works with: a repository or none, what that declares, and databases as they are needed.

    Args:
        source: the repository; None for a command that reads none.
        folder: where relative paths begin and the embedded server keeps its state when there is no local repository.
        rules: which references a manifest may use.
    """

    def __init__(self, source: Source | None, folder: Path, rules: SecretRules | None = None) -> None:
        self._source = source
        self._databases: list[Database] = []
        self.declarations = Declarations(source) if source is not None else None
        root = source.root if source is not None else folder
        state = state_folder(source) if source is not None else folder / STATE_FOLDER
        self._connector = Connector(
            credentials(root, rules), state, root=root, max_connections=max_connections(os.environ)
        )

    @property
    def source(self) -> Source:
        """The repository.

        Raises:
            ProblemError: there is none.
        """
        if self._source is None:
            raise ProblemError(
                Problem(
                    reason=Reason.FETCH_FAILED,
                    message="this command needs a git repository",
                    remedy="run it in one, or name one with --repo",
                )
            )
        return self._source

    def open(
        self, environment: str, target: DatabaseTarget, timeouts: Timeouts, *, show_queries: bool = False
    ) -> Database:
        """A database that connects at its first use and is closed with the workspace; see `Connector.open`."""
        database = self._connector.open(environment, target, timeouts, show_queries=show_queries)
        self._databases.append(database)
        return database

    def hooks(
        self, environment: str, target: DatabaseTarget, timeouts: Timeouts, listener: HookListener
    ) -> HookRunner:
        """Runs the hooks of a database; see `Connector.hooks`."""
        return self._connector.hooks(environment, target, timeouts, listener)

    async def close(self) -> None:
        """Close whatever was opened."""
        for database in self._databases:
            await database.close()
        await self._connector.close()
        if self._source is not None:
            await self._source.close()


def declaration(environment: Environment, target: DatabaseTarget, repository: str) -> Declaration:
    """What `environment` declares for one of its databases.

    Raises:
        ProblemError: its manifest could not be read.
    """
    if environment.manifest is None or environment.catalog is None:
        raise ProblemError(environment.problems[0])
    manifest = environment.manifest
    return Declaration(
        target=manifest.target_version,
        catalog=environment.catalog,
        policy=manifest.policy,
        timeouts=manifest.timeouts,
        policy_digest=manifest.policy_digest,
        claim=Claim(environment.name, target.name, repository),
        suspended=manifest.suspend,
        hooks=manifest.hooks,
    )


def declaration_without_manifest(catalog: Catalog, target: int | None, timeouts: Timeouts) -> Declaration:
    """What a one-off command with only a DSN asks for: `target`, or all there is."""
    return Declaration(
        target=target if target is not None else max(catalog.versions, default=0),
        catalog=catalog,
        policy=replace(Policy(), max_down_steps=2**63 - 1),
        timeouts=timeouts,
        policy_digest="",
        claim=None,
        retry=True,
    )


def actor(verb: str, claim: Claim | None, revision: Revision | None, change: Change | None) -> Actor:
    """This process, doing `verb`."""
    return Actor(
        claim=claim,
        verb=verb,
        git_revision=revision.commit if revision else "",
        git_author=change.author if change else (revision.author if revision else ""),
        host=socket.gethostname(),
        pid=os.getpid(),
        user=_login_name(),
    )


def credentials(root: Path | None, rules: SecretRules | None = None) -> Credentials:
    """Resolves references from this process's environment, relative paths from `root`, as far as `rules` allow."""
    return Credentials(os.environ, root, rules=rules)


def state_folder(source: Source) -> Path:
    """Where the state of this repository lives: `.reconciler/` in its root, for a URL the XDG state folder."""
    return source.root / STATE_FOLDER if source.root is not None else user_state_folder()


def user_state_folder() -> Path:
    """Where the state of remote repositories lives: the XDG state folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "reconciler"


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # a container's user id may have no name
        return str(os.getuid())


def _problems(found: object) -> tuple[Problem, ...]:
    assert isinstance(found, tuple)
    return found


def no_such_environment(missing: Sequence[str], known: Sequence[str]) -> Problem:
    """Environments that somebody asked for are not declared.

    Args:
        missing: their names.
        known: those that are declared.
    """
    named = ", ".join(sorted(missing))
    there_are = f"there are {', '.join(sorted(known))}" if known else "there are none"
    return Problem(
        reason=Reason.MANIFEST_NOT_FOUND,
        message=f"no manifest declares {named}, which this daemon was told to follow; {there_are}",
        remedy=f"correct --environment, or commit {MANIFESTS}/{sorted(missing)[0]}.yaml",
    )


def _no_manifests(revision: Revision) -> Problem:
    return Problem(
        reason=Reason.MANIFEST_NOT_FOUND,
        message=f"there is no manifest in {MANIFESTS}/ at {revision}",
        remedy=f"put one file per environment there, {MANIFESTS}/production.yaml say; environments known before are kept as they are",
    )
