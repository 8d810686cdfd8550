"""A process in a group of its own, which is ended as a whole: nothing that it started outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

_PATIENCE = 5.0
"""Seconds that a group has between SIGTERM and SIGKILL."""
_LAST_PATIENCE = 1.0
"""Seconds to wait for what SIGKILL ends, and for the end of the output: a process that left the group may keep that open."""
_PAUSE = 0.02
_CHUNK = 1024
"""Bytes that are read at a time: what is made of them must not keep everything else of this process waiting."""


async def run_group(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    timeout: float,
    on_output: Callable[[bytes], None],
    stop: Awaitable[object],
    on_start: Callable[[int], None] = lambda group: None,
    on_error_output: Callable[[bytes], None] | None = None,
) -> int | None:
    """Run a program until it ends, and end with it whatever it left running in its process group.

    Args:
        command: the program and its arguments.
        environment: all its environment variables.
        folder: its working directory.
        timeout: seconds it may take, 0 = for ever; then its group gets SIGTERM, and SIGKILL 5 s later. So does it when this
            task is cancelled.
        on_output: called with what it writes to standard output and standard error, in one stream.
        stop: its group is ended, as when it took too long, once this is done.
        on_start: called with the number of its group once it runs.
        on_error_output: called with what it writes to standard error, which `on_output` does not get then.

    Returns:
        its exit status, negative for the signal that ended it; None when it took too long or was told to stop.

    Raises:
        OSError: it cannot be started.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        reading, writing = _pipe(ours, theirs)
        reading_errors, writing_errors = _pipe(ours, theirs) if on_error_output is not None else (-1, writing)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=writing,
            stderr=writing_errors,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        ours.pop_all()
    on_start(process.pid)
    outputs = [_Reader(reading, on_output)]
    if on_error_output is not None:
        outputs.append(_Reader(reading_errors, on_error_output))
    stopped, ended = asyncio.ensure_future(stop), asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((ended, stopped), timeout=timeout or None, return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        # also while this task is being cancelled, and once more when that is asked for again
        ending = asyncio.ensure_future(_end(process, outputs))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            _signal(process.pid, signal.SIGKILL)
            await ending
            raise
        finally:
            ended.cancel()


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe: our end, and the end for the process that is to be started."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    return reading, writing


async def _end(process: Process, outputs: Sequence[_Reader]) -> None:
    try:
        for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _LAST_PATIENCE)):
            deadline = monotonic() + patience
            alive = _signal(process.pid, number)
            while alive and monotonic() < deadline:
                await asyncio.sleep(_PAUSE)
                if process.returncode is not None:
                    _reap(process.pid)
                alive = _signal(process.pid, 0)
            if not alive:
                break
        await asyncio.wait([output.ended for output in outputs], timeout=_LAST_PATIENCE)
    finally:
        for output in outputs:
            output.close()


def _reap(group: int) -> None:
    """Take what has ended of a process group off the system's list, where it counts as being there still.

    In a container this may be the first process, which whatever lost its parent is left to. Only for a group whose first process
    has been waited for, which asyncio does.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group. False when nobody is in it any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # what is left of it has become another user, and is out of our reach
        return False
    return True


class _Reader:
    """Reads one end of a pipe as long as somebody holds the other."""

    def __init__(self, descriptor: int, on_output: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read no more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._on_output(data)
        else:
            self.close()
