"""Running one hook: what it is told, where it runs, and what its end means."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic

from reconciler.hooks.lifeline import SHELL, Lifeline
from reconciler.hooks.listener import HookListener
from reconciler.hooks.output import Output
from reconciler.model import Hook, HookOccasion, HookResult, Problem, ProblemError, Reason
from reconciler.model.duration import format_duration
from reconciler.processes import run_group
from reconciler.redaction import Secret, redact

_INHERITED = ("PATH", "HOME")
_LONGEST_VALUE = 4096


class Runner:
    """Runs the hooks of one database; a `reconciler.model.HookRunner`.

    Args:
        dsn: resolves the connection string, anew for each hook.
        listener: hears what happens.
        surroundings: the environment variables of this process, of which a hook gets only PATH and HOME.
    """

    def __init__(
        self, dsn: Callable[[], Awaitable[Secret]], listener: HookListener, surroundings: Mapping[str, str]
    ) -> None:
        self._dsn = dsn
        self._listener = listener
        self._surroundings = surroundings

    async def run(
        self, hook: Hook, occasion: HookOccasion, *, stop: Awaitable[str] | None = None
    ) -> HookResult:
        """Run one hook to its end; see `reconciler.model.HookRunner`."""
        self._listener.hook_started(hook, occasion)
        began = monotonic()
        output = Output(lambda line: self._listener.hook_output(hook, occasion, line))
        # one that nobody ever sets will do
        stopped = (
            asyncio.ensure_future(stop) if stop is not None else asyncio.get_running_loop().create_future()
        )

        def finished(problem: Problem | None) -> HookResult:
            result = HookResult(
                hook=hook,
                occasion=occasion,
                duration=monotonic() - began,
                artefact=output.artefact,
                problem=problem,
            )
            self._listener.hook_finished(result)
            return result

        try:
            problem = await self._run(hook, occasion, output, stopped)
        except ProblemError as error:
            problem = error.problem
        except asyncio.CancelledError:
            finished(_interrupted(hook, occasion, "its run was cancelled", output.last_lines))
            raise
        return finished(problem)

    async def _run(
        self, hook: Hook, occasion: HookOccasion, output: Output, stop: asyncio.Future[str]
    ) -> Problem | None:
        import shutil
        import tempfile

        dsn = await self._dsn()
        try:
            folder = Path(tempfile.mkdtemp(prefix="reconciler-hook-"))
        except OSError as error:
            return _failed(hook, occasion, f"has no folder to run in: {error}")
        try:
            status = await self._run_in(folder, hook, occasion, dsn, output, stop)
        except _NotStartedError as error:
            return _failed(hook, occasion, f"cannot be started: {error}")
        finally:
            output.end()
            # a hook may leave much behind
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
        if status == 0:
            return None
        if status is None and stop.done():
            return _interrupted(hook, occasion, stop.result(), output.last_lines)
        return _failed(hook, occasion, _ending(hook, status), output.last_lines)

    async def _run_in(
        self,
        folder: Path,
        hook: Hook,
        occasion: HookOccasion,
        dsn: Secret,
        output: Output,
        stop: asyncio.Future[str],
    ) -> int | None:
        lifeline = Lifeline(folder)
        try:
            await lifeline.begin()
        except OSError as error:
            raise _NotStartedError(
                f"{_why_not(SHELL, error)}, which sees to its end should we be killed"
            ) from None
        try:
            return await run_group(
                hook.command,
                self._environment(occasion, dsn),
                folder,
                timeout=hook.timeout,
                on_output=output.feed,
                on_start=lifeline.hold,
                stop=stop,
            )
        except OSError as error:
            raise _NotStartedError(_why_not(hook.command[0], error)) from None
        except ValueError:
            raise _NotStartedError("its command is not all text that a program can be given") from None
        finally:
            await lifeline.end()

    def _environment(self, occasion: HookOccasion, dsn: Secret) -> dict[str, str]:
        """All that a hook gets to know. No other variable of this process: those hold the secrets of other databases."""
        told = {
            "RECONCILER_HOOK": occasion.moment.value,
            "RECONCILER_ENVIRONMENT": occasion.environment,
            "RECONCILER_DATABASE": occasion.database,
            "RECONCILER_FROM_VERSION": str(occasion.from_version),
            "RECONCILER_TARGET_VERSION": str(occasion.target_version),
            "RECONCILER_REVISION": occasion.revision,
        }
        if occasion.problem is not None:
            told["RECONCILER_REASON"] = occasion.problem.reason.value
            told["RECONCILER_MESSAGE"] = redact(occasion.problem.message)[:_LONGEST_VALUE]
        inherited = {name: self._surroundings[name] for name in _INHERITED if name in self._surroundings}
        return {
            "PATH": os.defpath,
            **inherited,
            **{name: text.replace("\0", "\\0") for name, text in told.items()},
            "RECONCILER_DSN": dsn.reveal(),
        }


class _NotStartedError(Exception):
    """A hook cannot be started, and why."""


def _why_not(program: str, error: OSError) -> str:
    match error:
        case FileNotFoundError() if "/" in program:
            return f"there is no {program}, or not what its first line names"
        case FileNotFoundError():
            return f"no program {program} is on PATH"
        case PermissionError():
            return f"{program} may not be executed"
    return f"{program}: {error.strerror or error}"


def _ending(hook: Hook, status: int | None) -> str:
    if status is None:
        return f"took longer than {format_duration(hook.timeout)} and was ended"
    if status > 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"


def _interrupted(hook: Hook, occasion: HookOccasion, why: str, last_lines: tuple[str, ...]) -> Problem:
    return Problem(
        reason=Reason.INTERRUPTED,
        message=f"the hook {hook.label} ({occasion.moment}) was ended before it was done: {why}",
        remedy="nothing need be done: what it belongs to is tried again",
        detail="\n".join(last_lines),
    )


def _failed(hook: Hook, occasion: HookOccasion, how: str, last_lines: tuple[str, ...] = ()) -> Problem:
    said = f": {last_lines[-1]}" if last_lines else ""
    return Problem(
        reason=Reason.HOOK_FAILED,
        message=f"the hook {hook.label} ({occasion.moment}) {how}{said}",
        remedy="run it by hand to see why; mend it, or its entry under `hooks:`; it is tried again by itself"
        if occasion.moment.value == "before"
        else "run it by hand to see why; mend it, or its entry under `hooks:`; the migrations are not affected",
        detail="\n".join(last_lines) if len(last_lines) > 1 else "",
    )
