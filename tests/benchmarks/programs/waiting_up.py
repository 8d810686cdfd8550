"""`reconciler up`, but with every commit waiting for the server's log: the parts of the command, with one wrapped.

The working directory is the repository; the environment `bench` and its one database are brought to the target.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import reconciler.cli.application
from reconciler import assembly
from reconciler.model import Actor, LockHolder, StepWatcher
from reconciler.operations import apply
from reconciler.source import GitCredentials, open_source


class Waiting:
    """A database whose writer makes every step durable at once."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def writer(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        watcher: StepWatcher | None = None,
    ) -> AsyncIterator[Any]:
        """The database's own writer, wrapped."""
        async with self._database.writer(
            actor, acquire_timeout=acquire_timeout, on_waiting=on_waiting, watcher=watcher
        ) as writer:
            yield WaitingWriter(writer)


class WaitingWriter:
    """A writer that makes every step durable at once."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def run(self, step: Any, *, durable: bool, following: Any = None) -> Any:
        """Run a step, and wait for the log whatever was asked."""
        return await self._writer.run(step, durable=True, following=following)


async def main() -> None:
    """Bring the database to the target."""
    source = open_source(
        None,
        branch=None,
        working_tree=False,
        state_folder=Path(".reconciler"),
        interval=60,
        credentials=GitCredentials(),
    )
    declared = await assembly.Declarations(source).read(await source.head())
    environment = declared.environments["bench"]
    assert environment.manifest is not None, environment.problems
    target = environment.manifest.databases[0]
    declaration = assembly.declaration(environment, target, source.repository)
    connector = assembly.Connector(assembly.credentials(source.root), assembly.state_folder(source))
    database: Any = Waiting(connector.open("bench", target, environment.manifest.timeouts))
    outcome = await apply(
        database,
        declaration,
        assembly.actor("up", declaration.claim, declared.revision, environment.change),
        now=assembly.utc_now,
        acquire_timeout=10,
    )
    assert outcome.problem is None, outcome.problem
    assert outcome.plan is not None, "the database could not be read"
    assert outcome.plan.in_sync, outcome.plan.refusals
    await database.close()
    await connector.close()
    await source.close()


# the command line is part of the command
reconciler.cli.application.VERBS["up"]
asyncio.run(main())
