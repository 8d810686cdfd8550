"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of queueing in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeadlockError(AssertionError):
    """Every task waits for something that no timer will ever bring about."""


class _JumpingSelector(selectors.SelectSelector):
    """Reports to `jump` how long the loop would have slept, and does not sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError("every task waits and no timer is set")
        self.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Counts its wake-ups: how often it would have slept and been woken."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wake_ups = 0
        selector = _JumpingSelector()
        selector.jump = self._jump
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def _jump(self, seconds: float) -> None:
        if seconds > 0:
            self.now += seconds
            self.wake_ups += 1


def run_in_virtual_time(main: Callable[[VirtualTimeLoop], Coroutine[Any, Any, Result]]) -> Result:
    """Run `main` to its end on a loop of its own."""
    loop = VirtualTimeLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


async def settle(passes: int = 10) -> None:
    """Let every task that can go on do so, without letting time pass."""
    for _ in range(passes):
        await asyncio.sleep(0)


async def within(seconds: float, awaitable: Awaitable[Result]) -> Result:
    """Wait for `awaitable`, at most `seconds` of virtual time."""
    async with asyncio.timeout(seconds):
        return await awaitable
