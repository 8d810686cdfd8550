"""The one call site where blocking git work leaves the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from reconciler.source.git import Processes

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Runs blocking work in a thread, one piece at a time. Who is cancelled while waiting stops the work with it."""

    def __init__(self) -> None:
        self.processes = Processes()
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` when its turn comes and return what it returns."""
        async with self._turn:
            # not a task: the end of the event loop cancels tasks, and this one must be waited for
            future = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                self.processes.stop()
                try:
                    # soon over: what it waits for is dead
                    await asyncio.wait([future])
                finally:
                    if future.done() and not future.cancelled():
                        future.exception()  # its outcome interests nobody any more
                    self.processes.resume()
                raise
