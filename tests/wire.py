"""What stands between a client and a PostgreSQL server needs: an event loop on a thread, and messages off a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            # those whose clients are gone end by themselves, and their sockets with them
            _, unfinished = await asyncio.wait(tasks, timeout=1)
            tasks = list(unfinished)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_message(reader: asyncio.StreamReader, *, untyped: bool = False) -> bytes:
    """One message of the protocol, whole. Only the first of a client has no type; clients here ask for no encryption."""
    head = await reader.readexactly(4 if untyped else 5)
    return head + await reader.readexactly(int.from_bytes(head[-4:], "big") - 4)
