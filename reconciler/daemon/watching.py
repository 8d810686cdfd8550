"""What the daemon keeps and logs of a running step that a second connection watches."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from reconciler.model import Blocker, Problem, StepProgress

_PROGRESS_PAUSE = 10.0
"""Seconds between two log messages that tell how far one phase has come."""


class WatchedStep:
    """How far the running step has come and who is in its way; logs what is news of that.

    Args:
        log: a structlog logger.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._names: dict[str, Any] = {}
        self.progress: StepProgress | None = None
        self.blockers: tuple[Blocker, ...] = ()
        self._logged_phase = ""
        self._logged_at = 0.0
        self._logged_blockers: frozenset[tuple[int, str]] = frozenset()

    def begin(self, names: dict[str, Any]) -> None:
        """Another step runs.

        Args:
            names: what every message about it says.
        """
        self._names = names
        self.progress = None
        self.blockers = ()
        self._logged_phase = ""
        self._logged_blockers = frozenset()

    def progressed(self, progress: StepProgress | None) -> None:
        """It has come further. A message for each phase, and for a long one every ten seconds."""
        self.progress = progress
        if progress is None:
            return
        if progress.phase == self._logged_phase and monotonic() - self._logged_at < _PROGRESS_PAUSE:
            return
        self._logged_phase, self._logged_at = progress.phase, monotonic()
        self._log.info(
            "step progress",
            **self._names,
            phase=progress.phase,
            percent=progress.percent,
            object=progress.object or None,
        )

    def blocked(self, blockers: Sequence[Blocker]) -> None:
        """Others hold what it waits for. A message for each set of them, however often the same are seen."""
        self.blockers = tuple(blockers)
        who = frozenset((blocker.pid, blocker.prepared) for blocker in blockers)
        if who and who != self._logged_blockers:
            self._logged_blockers = who
            self._log.warning(
                "step blocked", **self._names, blocked_by=[str(blocker) for blocker in blockers]
            )

    def waited(self, seconds: float) -> None:
        """It waits no longer."""
        self.blockers = ()
        if self._logged_blockers:
            self._logged_blockers = frozenset()
            self._log.info("step no longer blocked", **self._names, waited_seconds=round(seconds, 3))

    def unwatched(self, problem: Problem) -> None:
        """Nobody could look. The step does not suffer from that, so it is no warning."""
        self._log.info("step not watched", **self._names, problem=problem)
