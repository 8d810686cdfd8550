"""What `up` and `down` show while they run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from reconciler.cli.bar import fitting_line
from reconciler.cli.terminal import on_terminal
from reconciler.model import (
    Blocker,
    LockHolder,
    Observation,
    Plan,
    Problem,
    Step,
    StepProgress,
    StepResult,
)
from reconciler.report.outcomes import running_line, step_line, waiting_line
from reconciler.report.text import one_line, printable

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
        self._blocked_by: frozenset[str] = frozenset()
        self._come: StepProgress | None = None
        """How far the step has come."""

    @property
    def silent(self) -> bool:
        """Nothing is written."""
        return self._silent

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
        self._note(waiting_line(self._name, holder))

    def locked(self, seconds: float) -> None:
        """The lock is ours."""

    def started(self, step: Step) -> None:
        """A step is about to run."""
        self._blocked_by = frozenset()
        self._come = None
        self._running(step)

    def finished(self, step: Step, result: StepResult) -> None:
        """A step is in force."""
        self._line(step_line(self._name, step, result))

    def failed(self, step: Step, problem: Problem) -> None:
        """A step failed; the summary tells why."""
        self._now("")

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """How far the step has come, on a terminal."""
        self._come = progress
        if not self._blocked_by:
            self._running(step)

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Others hold the tables: said once for the same of them, and on a terminal for as long as it lasts."""
        who = frozenset(blocker.name for blocker in blockers)
        news, self._blocked_by = who != self._blocked_by, who
        if self._transient:
            self._running(step, f"blocked by {_named(blockers)}" if blockers else "")
        elif news and blockers:
            self._note(f"{self._name}: {running_line(step)} is blocked by {_named(blockers)}")

    def waited(self, step: Step, seconds: float) -> None:
        """The step waits no longer."""
        self._blocked_by = frozenset()

    def unwatched(self, step: Step, problem: Problem) -> None:
        """How far the step has come cannot be told; that it runs is on the screen already."""

    def _running(self, step: Step, blocked: str = "") -> None:
        if not self._transient:
            return
        come, what = self._come, running_line(step)
        head, short = f"{self._name}: running {what} …", f"{self._name}: {what} …"
        if blocked:
            self._now(f"{head} {come}; {blocked}" if come is not None else f"{head} {blocked}")
        elif come is None or come.percent is None:
            self._now(f"{head} {come}" if come is not None else head)
        else:
            of = f" ({come.object})" if come.object else ""
            told = (f"{head} {come.phase}{of}", f"{head} {come.phase}", f"{short} {come.phase}", short)
            self._now(*told, percent=come.percent)

    def _line(self, text: str) -> None:
        if not self._silent:
            self._write((_CLEAR_LINE if self._transient else "") + printable(text) + "\n")

    def _now(self, *texts: str, percent: float | None = None) -> None:
        if self._transient:
            import shutil

            # asked each time: the window may have changed. Only a single line can be taken back.
            columns = shutil.get_terminal_size().columns
            told = [printable(text) for text in texts]
            line = fitting_line(told, percent, columns, encoding=sys.stdout.encoding)
            self._write(_CLEAR_LINE + line)

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


def _named(blockers: Sequence[Blocker]) -> str:
    return one_line("; ".join(str(blocker) for blocker in blockers))
