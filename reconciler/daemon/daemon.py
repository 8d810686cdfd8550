"""The daemon: follows a repository, keeps a worker for each declared database, and ends cleanly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler import backoff
from reconciler.assembly import (
    Connector,
    Declared,
    Environment,
    actor,
    declaration,
    no_such_environment,
    utc_now,
)
from reconciler.catalog import Catalog
from reconciler.controller import Controller
from reconciler.daemon.assignment import Assignment
from reconciler.daemon.board import Board, Key
from reconciler.daemon.following import Follower
from reconciler.daemon.identities import Identities
from reconciler.daemon.options import DaemonOptions
from reconciler.daemon.passes import DatabaseWorker
from reconciler.daemon.reporting import first_status
from reconciler.daemon.rollout import EnvironmentRollout
from reconciler.daemon.surroundings import Surroundings
from reconciler.manifest import DatabaseTarget, Manifest, Timeouts
from reconciler.metrics import Metrics
from reconciler.model import EnvironmentStatus, HookRunner, Revision, Source, SourceStatus

if TYPE_CHECKING:
    from reconciler.hooks import HookListener


class Daemon:
    """One repository, followed.

    Args:
        options: see `DaemonOptions`.
        source: the repository.
        connector: opens databases.
        metrics: what is counted.
        log: a structlog logger.
    """

    def __init__(
        self, options: DaemonOptions, source: Source, connector: Connector, metrics: Metrics, log: Any
    ) -> None:
        self._options = options
        self._source = source
        self._connector = connector
        self._metrics = metrics
        self._log = log
        self._workers: dict[Key, DatabaseWorker] = {}
        self._targets: dict[Key, tuple[DatabaseTarget, Timeouts]] = {}
        self._rollouts: dict[str, EnvironmentRollout] = {}
        self._revision: Revision | None = None
        self._environments: dict[str, EnvironmentStatus] = {}
        self._adopted: dict[str, tuple[Manifest | None, Catalog | None]] = {}
        """What the rollouts are about."""
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._controller: Controller[Key] = Controller(
            self._handle, workers=options.workers, on_error=self._unexpected
        )
        self.board = Board(
            SourceStatus(repository=source.place, branch=source.branch),
            started_at=utc_now(),
            resync_interval=options.resync,
            queue=lambda: (
                self._controller.depth,
                self._controller.oldest,
                self._controller.workers,
                self._controller.busy,
            ),
        )
        self._shared = Surroundings(
            board=self.board,
            metrics=metrics,
            log=log,
            now=utc_now,
            resync=options.resync,
            identities=Identities(),
            mark=self._mark,
            may_keep=self._may_keep,
            is_ancestor=self._is_ancestor,
            lend=self._controller.lend,
            take_back=self._controller.take_back,
            stopping=self._stop.is_set,
        )
        self._follower = Follower(
            source,
            self._adopt,
            board=self.board,
            metrics=metrics,
            log=log,
            interval=options.interval,
            resync=options.resync,
        )
        metrics.declare_repository(source.place)

    def stop(self) -> None:
        """Ask the daemon to end; asking again cuts the grace of running transactions short."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> None:
        """Follow the repository until `stop()`."""
        following = asyncio.create_task(self._follower.run(), name="follow the repository")
        controlling = asyncio.create_task(self._controller.run(), name="work on databases")
        stopping = asyncio.create_task(self._stop.wait(), name="wait for a signal")
        await asyncio.wait([following, controlling, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        following.cancel()
        self._end_looking()
        self._say_stopping()
        await self._drain()
        outcomes = await asyncio.gather(following, controlling, return_exceptions=True)
        stopping.cancel()
        for worker in self._workers.values():
            await worker.database.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _say_stopping(self) -> None:
        writing = sorted(self._writing())
        if not writing:
            self._log.info("stopping")
            return
        self._log.info(
            "stopping",
            running=[_path(key) for key in writing],
            grace=f"{self._options.grace:g}s",
            hint="a second signal cuts the grace short",
        )

    def _writing(self) -> set[Key]:
        return {
            key for key in self._controller.running if key in self._workers and self._workers[key].writing
        }

    def _end_looking(self) -> None:
        """Passes that only look, or wait for a server that does not answer, have nothing to finish."""
        self._controller.stop()
        for key in self._controller.running - self._writing():
            self._controller.cancel(key)

    async def _drain(self) -> None:
        draining = asyncio.create_task(self._controller.drain(self._options.grace))
        hurrying = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([draining, hurrying], return_when=asyncio.FIRST_COMPLETED)
        interrupted: set[Key] = set()
        if not draining.done():
            self._log.info("cutting the grace short")
            interrupted = await self._controller.drain(0.0)
        hurrying.cancel()
        interrupted |= await draining
        workers = [self._workers[key] for key in sorted(interrupted) if key in self._workers]
        await asyncio.gather(*(worker.tell_interruption() for worker in workers))

    async def _adopt(self, declared: Declared) -> None:
        """Bring the workers in line with what a revision declares, and have every database looked at."""
        wanted = {
            name: environment
            for name, environment in declared.environments.items()
            if not self._options.environments or name in self._options.environments
        }
        self._check_selection(list(declared.environments))
        if declared.revision != self._revision:
            self._revision = declared.revision
            self._log.info(
                "revision",
                revision=str(declared.revision),
                author=declared.revision.author,
                environments=sorted(wanted),
            )
        statuses: dict[str, EnvironmentStatus] = {}
        keys: list[Key] = []
        for name, environment in wanted.items():
            if environment.manifest is None:
                statuses[name] = self._hold(environment)
                keys += [key for key in self._workers if key[0] == name]
                continue
            manifest = environment.manifest
            names = [target.name for target in manifest.databases]
            rollout = self._rollouts.setdefault(name, EnvironmentRollout(name, manifest.rollout, names))
            # a commit of something else starts no rollout anew
            if self._adopted.get(name) != (manifest, environment.catalog):
                rollout.redeclare(manifest.rollout, names)
            for target in manifest.databases:
                key = (name, target.name)
                keys.append(key)
                await self._assign(key, environment, target, declared.revision, rollout)
            statuses[name] = EnvironmentStatus(
                environment=name,
                target=manifest.target_version,
                suspended=manifest.suspend,
                databases=tuple(first_status((name, each), manifest.target_version) for each in names),
            )
        self._environments = statuses
        self._adopted = {
            name: (environment.manifest, environment.catalog) for name, environment in wanted.items()
        }
        self.board.declare(statuses)
        for key in set(self._workers) - set(keys):
            await self._release(key)
        for key in keys:
            self._metrics.declare(*key)
            self._controller.mark(key)

    def _check_selection(self, known: Sequence[str]) -> None:
        """Say when the daemon was told to follow an environment that does not exist (yet)."""
        missing = [name for name in self._options.environments if name not in known]
        problem = no_such_environment(missing, known) if missing else None
        if problem is not None and problem != self.board.selection:
            self._log.error("no such environment", problem=problem)
        self.board.selection = problem

    async def _assign(
        self,
        key: Key,
        environment: Environment,
        target: DatabaseTarget,
        revision: Revision,
        rollout: EnvironmentRollout,
    ) -> None:
        manifest = environment.manifest
        assert manifest is not None
        asked = replace(
            declaration(environment, target, self._source.repository), hooks_allowed=self._options.allow_hooks
        )
        assignment = Assignment(
            declaration=asked,
            actor=actor("run", asked.claim, revision, environment.change),
            revision=str(revision),
            target_since=environment.change.committed_at if environment.change else revision.committed_at,
            declared_at=monotonic(),
        )
        worker = self._workers.get(key)
        if worker is not None and self._targets[key] == (target, manifest.timeouts):
            worker.assign(assignment)
            return
        if worker is not None:
            await self._retire(key, worker)
        database = self._connector.open(
            environment.name, target, manifest.timeouts, show_queries=self._options.show_queries
        )
        self._workers[key] = DatabaseWorker(
            key,
            database,
            assignment,
            rollout,
            self._shared,
            self._hooks_of(environment.name, target, manifest),
            lambda: self._connector.secret_warnings(target),
        )
        self._targets[key] = (target, manifest.timeouts)

    def _hooks_of(
        self, environment: str, target: DatabaseTarget, manifest: Manifest
    ) -> Callable[[HookListener], HookRunner] | None:
        """Makes what runs the hooks of a database; None when the operator did not allow hooks."""
        if not self._options.allow_hooks:
            return None
        return lambda listener: self._connector.hooks(environment, target, manifest.timeouts, listener)

    def _hold(self, environment: Environment) -> EnvironmentStatus:
        """A manifest that cannot be read: its databases stay as they are."""
        for key, worker in self._workers.items():
            if key[0] == environment.name:
                worker.hold(environment.problems)
        before = self._environments.get(environment.name)
        problem = environment.problems[0]
        if before is None or before.problem != problem:
            for each in environment.problems:
                self._log.error("stalled", environment=environment.name, problem=each)
        if before is None:
            return EnvironmentStatus(
                environment=environment.name, target=None, suspended=False, problem=problem
            )
        return replace(before, problem=problem)

    async def _release(self, key: Key) -> None:
        worker = self._workers.pop(key)
        del self._targets[key]
        self._controller.forget(key)
        self._metrics.forget(*key)
        await self._retire(key, worker)
        self._log.info("released", environment=key[0], database=key[1])

    async def _retire(self, key: Key, worker: DatabaseWorker) -> None:
        """Take everything from a worker. One that is running stops at its next step boundary and is closed then."""
        worker.assign(None)
        if key not in self._controller.running:
            await worker.release()

    # the databases

    async def _handle(self, key: Key) -> float | None:
        worker = self._workers.get(key)
        if worker is None:
            return None
        try:
            return await worker.run()
        finally:
            if self._workers.get(key) is not worker:
                await worker.release()

    def _unexpected(self, key: Key, error: Exception) -> float:
        """A mistake of ours, or an error nobody thought of: said loudly, and tried again."""
        self._log.error("internal error", environment=key[0], database=key[1], exc_info=error)
        delay = backoff.delay(3, random.random())
        if key in self._workers:
            self._workers[key].broke(error, delay)
        return delay

    def _mark(self, key: Key, after: float) -> None:
        if key in self._workers:
            self._controller.mark(key, after)

    def _may_keep(self, key: Key) -> bool:
        return (
            len(self._workers) <= self._options.max_connections
            or sorted(self._workers).index(key) < self._options.max_connections
        )

    async def _is_ancestor(self, older: str, newer: str) -> bool:
        return older == newer or bool(await self._source.is_ancestor(older, newer))


def _path(key: Key) -> str:
    return "/".join(key)
