"""What the daemon logs of hooks, and which one runs now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.model import Hook, HookOccasion, HookResult, Reason


class HookLog:
    """A `reconciler.hooks.HookListener` of one database.

    Args:
        log: a structlog logger.
        on_change: called when a hook begins and when it has ended.
    """

    def __init__(self, log: Any, on_change: Callable[[], None]) -> None:
        self.running = ""
        """The hook that runs now, in words; empty when none does."""
        self.interrupted = ""
        """The hook that was ended before it was done, in the same words, the last time one ran."""
        self._log = log
        self._on_change = on_change

    def hook_started(self, hook: Hook, occasion: HookOccasion) -> None:
        """A hook is about to run."""
        self.running = f"{hook.label} ({occasion.moment})"
        self.interrupted = ""
        self._log.info("hook started", **_of(hook, occasion))
        self._on_change()

    def hook_output(self, hook: Hook, occasion: HookOccasion, line: str) -> None:
        """A hook has written a line."""
        self._log.info("hook output", **_of(hook, occasion), line=line)

    def hook_finished(self, result: HookResult) -> None:
        """A hook has ended. That one failed before the first step is what stands against the plan, and told as that."""
        was, self.running = self.running, ""
        about = {**_of(result.hook, result.occasion), "seconds": round(result.duration, 3)}
        if result.artefact:
            about["artefact"] = result.artefact
        if result.problem is None:
            self._log.info("hook finished", **about)
        elif result.problem.reason is Reason.INTERRUPTED:
            self.interrupted = was
            self._log.warning("hook interrupted", **about, problem=result.problem)
        else:
            self._log.warning("hook failed", **about, problem=result.problem)
        self._on_change()

    def clear(self) -> None:
        """Nothing runs any more, however it ended."""
        self.running = ""


def _of(hook: Hook, occasion: HookOccasion) -> dict[str, Any]:
    return {
        "environment": occasion.environment,
        "database": occasion.database,
        "hook": hook.label,
        "moment": occasion.moment.value,
    }
