"""What `up` and `down` show while they run."""

from __future__ import annotations

import contextlib
import sys

from reconciler.cli.terminal import on_terminal
from reconciler.model import LockHolder, Observation, Plan, Problem, Step, StepResult
from reconciler.report.outcomes import running_line, step_line
from reconciler.report.text import instant, one_line, printable

_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """A line for each step that is in force, and on a terminal one more that tells what runs now.

    Nothing that goes wrong with the output may stop a migration half-way: whoever read it may have gone.

    Args:
        silent: write nothing, since one JSON document follows.
    """

    def __init__(self, *, silent: bool) -> None:
        self.plan: Plan | None = None
        self._silent = silent
        self._transient = not silent and on_terminal()
        self._name = ""

    def begin(self, name: str) -> None:
        """What follows is about the database `name`."""
        self._name = name
        self.plan = None

    def end(self) -> None:
        """Nothing runs any more."""
        self._now("")

    def planned(self, observation: Observation, plan: Plan) -> None:
        """A plan was made."""
        self.plan = plan

    def waiting(self, holder: LockHolder) -> None:
        """Somebody else holds the lock."""
        since = f" since {instant(holder.since)}" if holder.since is not None else ""
        self._note(f"{self._name}: waiting for the lock, held by {one_line(holder.owner)}{since}")

    def locked(self, seconds: float) -> None:
        """The lock is ours."""

    def started(self, step: Step) -> None:
        """A step is about to run."""
        self._now(f"{self._name}: running {running_line(step)} …")

    def finished(self, step: Step, result: StepResult) -> None:
        """A step is in force."""
        self._line(step_line(self._name, step, result))

    def failed(self, step: Step, problem: Problem) -> None:
        """A step failed; the summary tells why."""
        self._now("")

    def _line(self, text: str) -> None:
        if not self._silent:
            self._write((_CLEAR_LINE if self._transient else "") + printable(text) + "\n")

    def _now(self, text: str) -> None:
        if self._transient:
            self._write(_CLEAR_LINE + printable(text))

    def _note(self, text: str) -> None:
        if self._transient:
            self._now(text)
        elif not self._silent:
            with contextlib.suppress(OSError):
                sys.stderr.write(text + "\n")
                sys.stderr.flush()

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            self._silent, self._transient = True, False
