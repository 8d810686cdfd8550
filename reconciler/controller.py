"""A keyed, level-triggered work queue. It knows nothing of what the keys stand for.

An event only marks a key; it carries no data, and a key that is marked twice is handled once. What is promised for every
mark: a handling of that key begins after it, unless the key is forgotten first or the controller stopped. One handling a
key at a time, a bounded number over all keys, longest overdue first, and no wake-up while nothing is due.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time as system_time
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_JITTER = 0.1
_DELAY_OF_LAST_RESORT = 60.0
"""Seconds until a key is handled again whose handler and `on_error` both raised."""


def jittered(interval: float, random: Random) -> float:
    """`interval` seconds, 10 % more or less, so that many keys and many daemons do not fall into step."""
    return interval * random.uniform(1 - _JITTER, 1 + _JITTER)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Controller(Generic[Key]):
    """Calls `handle` for each key that is due. All methods belong to the thread of the event loop.

    Args:
        handle: brings one key to where it should be; returns the seconds after which it wants to run again, or None to
            run only when marked. It may be called for a key that has changed in any way, or not at all.
        workers: how many keys are handled at a time, at least 1.
        on_error: told of an exception that `handle` did not deal with; returns the seconds until the next try.
        time: seconds of the clock that the event loop's timers follow.
        clock: the time of day, for `oldest`.
    """

    def __init__(
        self,
        handle: Callable[[Key], Awaitable[float | None]],
        *,
        workers: int = 8,
        on_error: Callable[[Key, Exception], float],
        time: Callable[[], float] = system_time.monotonic,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; at least 1 is needed to handle anything")
        self._handle = handle
        self._workers = workers
        self._on_error = on_error
        self._time = time
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        """Entries of `_due` by time. An entry whose time is no longer the key's in `_due` is void and skipped."""
        self._order = itertools.count()
        self._running: dict[Key, asyncio.Task[float | None]] = {}
        self._lent: set[Key] = set()
        """Keys whose handler waits for somebody else, and leaves its worker to others meanwhile."""
        self._forgotten: set[Key] = set()
        """Keys forgotten while their handler runs: its wish for another run no longer counts."""
        self._changed = asyncio.Event()
        self._stopping = False
        self._started = False

    @property
    def workers(self) -> int:
        """How many keys can be handled at a time."""
        return self._workers

    @property
    def busy(self) -> int:
        """How many keys are being handled, without those that lend their worker to others."""
        return len(self._running) - len(self._lent)

    @property
    def running(self) -> frozenset[Key]:
        """The keys that are being handled."""
        return frozenset(self._running)

    @property
    def depth(self) -> int:
        """How many keys are due and wait for a worker."""
        return len(self._waiting())

    @property
    def oldest(self) -> datetime | None:
        """Since when the longest overdue key waits for a worker; None when no key does."""
        earliest = min(self._waiting(), default=None)
        return None if earliest is None else self._clock() - timedelta(seconds=self._time() - earliest)

    def mark(self, key: Key, after: float = 0.0) -> None:
        """Have `key` handled in `after` seconds or, if it is due earlier already, then.

        A key that is being handled is handled once more afterwards, since its handler may have read the old state.
        """
        self._forgotten.discard(key)
        self._schedule(key, after)

    def forget(self, key: Key) -> None:
        """Drop `key` from the queue. A handler that runs for it finishes, and is not called again."""
        self._due.pop(key, None)
        if key in self._running:
            self._forgotten.add(key)

    def lend(self, key: Key) -> None:
        """The handler of `key` waits for somebody else: another key may be handled in its place until `take_back`."""
        if key in self._running and key not in self._lent:
            self._lent.add(key)
            self._changed.set()

    def take_back(self, key: Key) -> None:
        """The handler of `key` has something to do again. It does not wait for a worker: one more may be busy for a while."""
        self._lent.discard(key)

    def cancel(self, key: Key) -> None:
        """End the handling of `key`, if there is one."""
        task = self._running.get(key)
        if task is not None:
            task.cancel()

    async def run(self) -> None:
        """Handle keys until `stop()`, and return when the last handler has ended. May be called once."""
        if self._started:
            raise RuntimeError("this controller has run already")
        self._started = True
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                while self.busy < self._workers and (taken := self._take_due()) is not None:
                    (key,) = taken
                    task = group.create_task(self._attend(key))
                    self._running[key] = task
                    # a callback runs however the task ends, cancelled before its first step included
                    task.add_done_callback(partial(self._finish, key))
                await self._until_changed_or_due()

    def stop(self) -> None:
        """Begin nothing more. Handlers that run go on; see `drain`."""
        self._stopping = True
        self._changed.set()

    async def drain(self, timeout: float) -> set[Key]:
        """Stop, give running handlers `timeout` seconds to finish, and cancel those that have not.

        Returns when all have ended, cancelled ones after their own cleaning up.

        Returns:
            The keys whose handlers were cancelled.
        """
        self.stop()
        tasks = dict(self._running)
        if not tasks:
            return set()
        _, late = await asyncio.wait(tasks.values(), timeout=max(0.0, timeout))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return {key for key, task in tasks.items() if task in late}

    def _waiting(self) -> list[float]:
        now = self._time()
        return [due for key, due in self._due.items() if due <= now and key not in self._running]

    def _schedule(self, key: Key, after: float) -> None:
        due = self._time() + max(0.0, after)
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        if key not in self._running:
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.set()

    def _take_due(self) -> tuple[Key] | None:
        """Remove and return the longest overdue key, boxed since a key may be None; None when no key is due."""
        self._drop_void_entries()
        if not self._heap or self._heap[0][0] > self._time():
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        return (key,)

    def _drop_void_entries(self) -> None:
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) == due and key not in self._running:
                return
            heapq.heappop(self._heap)

    async def _until_changed_or_due(self) -> None:
        timer: asyncio.TimerHandle | None = None
        if self._heap and self.busy < self._workers:
            wait = max(0.0, self._heap[0][0] - self._time())
            timer = asyncio.get_running_loop().call_later(wait, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._changed.clear()

    async def _attend(self, key: Key) -> float | None:
        """Handle `key` once; return after how many seconds it is to run again."""
        try:
            return await self._handle(key)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # nobody cancelled us: something the handler awaited was cancelled, and this key must not be lost with it
            error = RuntimeError("something that the handler waited for was cancelled")
            error.__cause__ = cancelled
            return self._delay_after(key, error)
        except Exception as error:  # noqa: BLE001 - the queue outlives every handler, and `on_error` reports it
            return self._delay_after(key, error)

    def _finish(self, key: Key, task: asyncio.Task[float | None]) -> None:
        """File when `key` is to run again, now that nobody handles it."""
        del self._running[key]
        self._lent.discard(key)
        marked = self._due.get(key)
        if marked is not None:
            heapq.heappush(self._heap, (marked, next(self._order), key))
        ended_well = not task.cancelled() and task.exception() is None
        again = task.result() if ended_well else None
        if again is not None and key not in self._forgotten:
            self._schedule(key, again)
        self._forgotten.discard(key)
        self._changed.set()

    def _delay_after(self, key: Key, error: Exception) -> float:
        try:
            return self._on_error(key, error)
        except Exception as second:  # noqa: BLE001 - reported below; one broken report must not stop every key
            asyncio.get_running_loop().call_exception_handler(
                {
                    "message": f"reporting a failure of the handler of {key!r} failed itself",
                    "exception": second,
                }
            )
            return _DELAY_OF_LAST_RESORT
