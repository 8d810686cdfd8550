"""Waits for something to happen in folders that may vanish and come back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

_QUIET_MS = 20
"""A burst of events is over after this much silence. The library looks once in this time, all day long: at 5 ms that
took 1 % of a processor, at 20 ms a quarter of that, and a commit is still seen within 40 ms."""
_BURST_MS = 50
"""And is reported after this long in any case."""

Identity = dict[str, tuple[int, int]]


async def ticks(folders: Callable[[], Iterable[str]], *, slowest: float) -> AsyncGenerator[None, None]:
    """Yield soon after something happened directly in one of the folders, and at the latest every `slowest` seconds.

    The slow beat makes it work where the system reports no events: network file systems, exhausted watches, folders
    that do not exist yet.

    Args:
        folders: asked again after each event, since folders come and go.
        slowest: seconds.
    """
    from watchfiles import awatch

    while True:
        watched = _identify(folders())
        try:
            if watched:
                events = awatch(
                    *watched,
                    watch_filter=None,
                    debounce=_BURST_MS,
                    step=_QUIET_MS,
                    rust_timeout=int(slowest * 1000),
                    yield_on_timeout=True,
                    recursive=False,
                    ignore_permission_denied=True,
                )
                async with aclosing(events):
                    async for _ in events:
                        yield
                        if _identify(folders()) != watched:
                            break
                continue
        except OSError:
            # a folder vanished in this moment, or the system has no watch left: the slow beat remains
            pass
        await asyncio.sleep(slowest)
        yield


def _identify(folders: Iterable[str]) -> Identity:
    """The folders that exist, by device and inode: a folder made anew under an old name must be watched anew."""
    found: Identity = {}
    for folder in folders:
        try:
            status = os.stat(folder)
        except OSError:
            continue
        found[folder] = (status.st_dev, status.st_ino)
    return found
