"""Following the repository: what changes there is read, judged and handed on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from reconciler import backoff
from reconciler.assembly import Declarations, Declared, utc_now
from reconciler.daemon.board import Board
from reconciler.model import ErrorClass, Problem, ProblemError, Reason, Revision, Source

if TYPE_CHECKING:
    from reconciler.metrics import Metrics


class Follower:
    """Reads each new revision of a repository and hands on what it declares.

    Args:
        source: the repository.
        adopt: given what a revision declares; not called for one without any manifest.
        board: where the state of the repository is put.
        metrics: what is counted.
        log: a structlog logger.
        interval: the longest pause, in seconds, between two looks at a repository that cannot be read.
        resync: seconds until a folder is read again that could not be read.
    """

    def __init__(
        self,
        source: Source,
        adopt: Callable[[Declared], Awaitable[None]],
        *,
        board: Board,
        metrics: Metrics,
        log: Any,
        interval: float,
        resync: float,
    ) -> None:
        self._source = source
        self._declarations = Declarations(source)
        self._adopt = adopt
        self._board = board
        self._metrics = metrics
        self._log = log
        self._interval = interval
        self._resync = resync
        self._seen: Revision | None = None
        self._incomplete = False
        """A folder of the revision could not be read for a reason that may pass."""

    async def run(self) -> None:
        """Look at the repository whenever it may have changed, and more often while it cannot be read."""
        beats = aiter(self._source.changes())
        beat: asyncio.Task[None] | None = None
        failures = 0
        try:
            while True:
                failures = 0 if await self._refresh_safely() else failures + 1
                patience = self._resync if self._incomplete else None
                if failures:
                    patience = min(backoff.delay(failures, random.random()), self._interval)
                if beat is None or beat.done():
                    beat = asyncio.create_task(_next(beats))
                await asyncio.wait([beat], timeout=patience)
                if beat.done():
                    beat.result()
        finally:
            if beat is not None:
                beat.cancel()

    async def _refresh_safely(self) -> bool:
        """No commit, whatever it holds, ends the daemon: every environment of every other revision depends on it."""
        try:
            return await self._refresh()
        except Exception as error:  # noqa: BLE001 - a mistake of ours: said loudly, and tried again
            self._log.error("internal error", exc_info=error)
            problem = Problem(
                reason=Reason.INTERNAL_ERROR,
                message=f"the newest revision cannot be taken over: {type(error).__name__}",
                remedy="the log has the details; please report them. Every environment stays as it is meanwhile",
            )
            self._board.source = replace(self._board.source, problem=problem)
            return False

    async def _refresh(self) -> bool:
        """Read the newest revision and hand out what it declares. Returns False when the repository could not be read."""
        began = monotonic()
        repository = self._source.place
        try:
            revision = await self._source.head()
            if revision == self._seen and not self._incomplete:
                self._source_is_fine(revision, None)
                self._metrics.git_fetch(repository, "success", monotonic() - began)
                return True
            declared = await self._declarations.read(revision)
        except ProblemError as error:
            self._metrics.git_fetch(repository, "failed", monotonic() - began)
            self._source_problem(error.problem)
            return False
        self._metrics.git_fetch(repository, "success", monotonic() - began)
        if declared.problem is None:
            await self._adopt(declared)
        self._seen = revision
        self._incomplete = any(
            problem.reason.error_class is ErrorClass.TEMPORARY
            for environment in declared.environments.values()
            for problem in environment.problems
        )
        self._source_is_fine(revision, declared.problem)
        return True

    def _source_is_fine(self, revision: Revision, problem: Problem | None) -> None:
        before = self._board.source
        kept = (
            before.problem
            if problem is None and revision == before.revision and _stalls(before.problem)
            else problem
        )
        self._board.source = replace(before, revision=revision, last_success_at=utc_now(), problem=kept)
        if before.problem is not None and kept is None:
            self._log.info("repository readable again", revision=str(revision))
        if kept is not None and kept != before.problem:
            self._log.error("stalled", problem=kept)

    def _source_problem(self, problem: Problem) -> None:
        before = self._board.source.problem
        self._board.source = replace(self._board.source, problem=problem)
        if before is None or before.reason is not problem.reason:
            self._log.error("repository not readable", problem=problem)


def _stalls(problem: Problem | None) -> bool:
    return problem is not None and problem.reason is Reason.MANIFEST_NOT_FOUND


async def _next(beats: AsyncIterator[None]) -> None:
    await anext(beats)
