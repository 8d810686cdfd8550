"""What `up` and `down` show of hooks while those run."""

from __future__ import annotations

import contextlib

from reconciler.cli.terminal import write_note
from reconciler.model import Hook, HookOccasion, HookResult, Reason
from reconciler.report.text import elapsed, one_line, printable


class HookNotes:
    """A `reconciler.hooks.HookListener`: notes on standard error, since standard output is for the result.

    Args:
        name: of the database.
        silent: write nothing, since one JSON document is all that is wanted.
    """

    def __init__(self, name: str, *, silent: bool) -> None:
        self._name = name
        self._silent = silent

    def hook_started(self, hook: Hook, occasion: HookOccasion) -> None:
        """A hook is about to run."""
        self._note(f"{self._name}: hook {hook.label} ({occasion.moment}) runs")

    def hook_output(self, hook: Hook, occasion: HookOccasion, line: str) -> None:
        """A hook has written a line."""
        self._note(f"{self._name}: hook {hook.label}: {line}")

    def hook_finished(self, result: HookResult) -> None:
        """A hook has ended; why one failed is told with the result of the command."""
        ended = "done"
        if result.problem is not None:
            ended = "ended" if result.problem.reason is Reason.INTERRUPTED else "failed"
        made = f", made {one_line(result.artefact)}" if result.artefact else ""
        self._note(f"{self._name}: hook {result.hook.label} {ended} after {elapsed(result.duration)}{made}")

    def _note(self, text: str) -> None:
        if not self._silent:
            # whoever read it may have gone, which must not stop a migration half-way
            with contextlib.suppress(OSError):
                write_note(printable(text))
