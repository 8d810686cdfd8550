"""Whatever is marked, forgotten and finished in whatever order: no mark is lost, and no key is handled twice at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.controller import Controller
from tests.unit.controller.virtual_time import VirtualTimeLoop, settle

WORKERS = 2
KEYS = st.sampled_from(["a", "b", "c", "d"])
DELAYS = st.sampled_from([0.0, 0.0, 1.0, 5.0, 60.0])


@dataclass
class Handling:
    key: str
    begun_at: float
    sequence: int
    answer: asyncio.Future[float | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass
class Promise:
    """A mark: a handling must begin after it, and not before it is due."""

    key: str
    due: float
    sequence: int


class ControllerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.sequence = 0
        self.open: list[Handling] = []
        self.history: list[Handling] = []
        self.promises: list[Promise] = []
        self.overlap: list[str] = []
        self.controller: Controller[str] = Controller(
            self.handle, workers=WORKERS, on_error=lambda key, error: 1.0, time=self.loop.time
        )
        self.task = self.loop.create_task(self.controller.run())
        self.settle()

    async def handle(self, key: str) -> float | None:
        if any(handling.key == key for handling in self.open):
            self.overlap.append(key)
        handling = Handling(key, self.loop.time(), self.next())
        self.open.append(handling)
        self.history.append(handling)
        try:
            return await handling.answer
        finally:
            self.open.remove(handling)

    def next(self) -> int:
        self.sequence += 1
        return self.sequence

    def settle(self) -> None:
        self.loop.run_until_complete(settle())

    @rule(key=KEYS, after=DELAYS)
    def mark(self, key: str, after: float) -> None:
        self.promises.append(Promise(key, self.loop.time() + after, self.next()))
        self.controller.mark(key, after)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.controller.forget(key)
        self.promises = [promise for promise in self.promises if promise.key != key]

    @rule()
    def let_tasks_run(self) -> None:
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.open)
    @rule(choice=st.integers(0, WORKERS - 1), again=st.none() | DELAYS)
    def finish(self, choice: int, again: float | None) -> None:
        answer = self.open[choice % len(self.open)].answer
        if not answer.done():
            answer.set_result(again)

    @precondition(lambda self: self.open)
    @rule(choice=st.integers(0, WORKERS - 1))
    def fail(self, choice: int) -> None:
        answer = self.open[choice % len(self.open)].answer
        if not answer.done():
            answer.set_exception(LookupError("broken"))

    @invariant()
    def never_two_at_once_and_never_too_many(self) -> None:
        assert self.overlap == []
        assert len(self.open) <= WORKERS

    @invariant()
    def a_free_worker_leaves_nothing_due_waiting(self) -> None:
        self.settle()
        if len(self.open) < WORKERS:
            assert self.controller.depth == 0
        for promise in self.unkept():
            busy = any(handling.key == promise.key for handling in self.open)
            assert promise.due > self.loop.time() or busy or len(self.open) == WORKERS, promise

    def unkept(self) -> list[Promise]:
        """The marks that no handling has followed yet. One that began before the due time counts: earlier is asked for."""
        self.promises = [
            promise
            for promise in self.promises
            if not any(
                handling.key == promise.key and handling.sequence > promise.sequence
                for handling in self.history
            )
        ]
        return self.promises

    def teardown(self) -> None:
        try:
            for _ in range(100):
                self.settle()
                if not self.open and not self.unkept():
                    break
                for handling in list(self.open):
                    if not handling.answer.done():
                        handling.answer.set_result(None)
                self.loop.run_until_complete(asyncio.sleep(60))
            assert self.unkept() == []
            assert self.overlap == []
        finally:
            self.loop.run_until_complete(self.controller.drain(0))
            self.loop.run_until_complete(self.task)
            self.loop.close()


TestController = ControllerMachine.TestCase
TestController.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
