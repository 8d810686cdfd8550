"""Running a verb's coroutine to its end, and ending it properly when a person or a supervisor asks for that."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Terminated(BaseException):
    """SIGTERM: everything was rolled back and let go of."""


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`. Ctrl-C and SIGTERM cancel it: its transaction rolls back, its lock is released, connections close.

    Raises:
        KeyboardInterrupt: it was cancelled by Ctrl-C.
        Terminated: it was cancelled by SIGTERM.
    """
    return asyncio.run(_until_told_to_stop(work))


async def _until_told_to_stop(work: Coroutine[Any, Any, Result]) -> Result:
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        task.cancel()

    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            raise Terminated from None
        raise
