from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from reconciler.controller import Controller, jittered
from tests.unit.controller.virtual_time import VirtualTimeLoop, run_in_virtual_time, settle

MIDNIGHT = datetime(2025, 1, 15, tzinfo=UTC)


def fail_the_test(key: object, error: Exception) -> float:
    raise AssertionError(f"{key}: unexpected {error!r}") from error


class Recorder:
    """A handler that notes when each handling begins and ends, and does what the test asks."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.start = loop.time()
        self.begun: list[tuple[float, str]] = []
        self.ended: list[str] = []
        self.takes: dict[str, float] = {}
        self.returns: dict[str, list[float | None]] = {}

    async def __call__(self, key: str) -> float | None:
        self.begun.append((round(self.loop.time() - self.start, 6), key))
        await asyncio.sleep(self.takes.get(key, 0.0))
        self.ended.append(key)
        answers = self.returns.get(key, [])
        return answers.pop(0) if answers else None


@asynccontextmanager
async def running(controller: Controller[Any]) -> Any:
    task = asyncio.create_task(controller.run())
    await settle()
    try:
        yield
    finally:
        await controller.drain(3600)
        await task


def scenario(body: Callable[[Controller[str], Recorder], Awaitable[None]], *, workers: int = 8) -> Recorder:
    """Run `body` beside a controller with a recording handler, in virtual time."""

    async def main(loop: VirtualTimeLoop) -> Recorder:
        recorder = Recorder(loop)
        controller = Controller(
            recorder,
            workers=workers,
            on_error=fail_the_test,
            time=loop.time,
            clock=lambda: MIDNIGHT + timedelta(seconds=loop.time() - recorder.start),
        )
        async with running(controller):
            await body(controller, recorder)
        return recorder

    return run_in_virtual_time(main)


def test_a_marked_key_is_handled_at_once() -> None:
    async def body(controller: Controller[str], _: Recorder) -> None:
        controller.mark("a")
        await asyncio.sleep(5)

    assert scenario(body).begun == [(0, "a")]


def test_marks_of_a_waiting_key_are_one_handling() -> None:
    async def body(controller: Controller[str], _: Recorder) -> None:
        for _number in range(100):
            controller.mark("a")
        await asyncio.sleep(5)

    assert scenario(body).begun == [(0, "a")]


def test_marks_made_before_run_are_kept() -> None:
    async def main(loop: VirtualTimeLoop) -> list[tuple[float, str]]:
        recorder = Recorder(loop)
        controller = Controller(recorder, on_error=fail_the_test, time=loop.time)
        controller.mark("a")
        async with running(controller):
            await settle()
        return recorder.begun

    assert run_in_virtual_time(main) == [(0, "a")]


def test_a_key_marked_while_it_is_handled_is_handled_once_more_afterwards() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["a"] = 10
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("a")
        controller.mark("a")
        await asyncio.sleep(100)

    assert scenario(body).begun == [(0, "a"), (10, "a")]


def test_a_key_is_handled_after_the_delay_it_was_marked_with() -> None:
    async def body(controller: Controller[str], _: Recorder) -> None:
        controller.mark("a", after=30)
        await asyncio.sleep(100)

    assert scenario(body).begun == [(30, "a")]


@pytest.mark.parametrize("delays", [(30, 5), (5, 30), (5, 30, 60)])
def test_the_earlier_of_two_due_times_wins(delays: tuple[float, ...]) -> None:
    async def body(controller: Controller[str], _: Recorder) -> None:
        for delay in delays:
            controller.mark("a", after=delay)
        await asyncio.sleep(1000)

    assert scenario(body).begun == [(5, "a")]


def test_a_mark_without_delay_means_now_whatever_was_asked_before() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.returns["a"] = [180]
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("a")
        await asyncio.sleep(1000)

    assert scenario(body).begun == [(0, "a"), (1, "a")]


def test_a_handler_is_called_again_after_the_delay_it_returned() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.returns["a"] = [5, 10, 20]
        controller.mark("a")
        await asyncio.sleep(1000)

    assert scenario(body).begun == [(0, "a"), (5, "a"), (15, "a"), (35, "a")]


def test_a_delay_returned_does_not_put_off_an_earlier_mark() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["a"] = 10
        recorder.returns["a"] = [3600]
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("a", after=20)
        await asyncio.sleep(1000)

    assert scenario(body).begun == [(0, "a"), (21, "a")]


def test_negative_delays_mean_now() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.returns["a"] = [-3.0]
        controller.mark("a", after=-1)
        await asyncio.sleep(1)

    assert scenario(body).begun == [(0, "a"), (0, "a")]


def test_a_forgotten_key_is_not_handled() -> None:
    async def body(controller: Controller[str], _: Recorder) -> None:
        controller.mark("a", after=10)
        controller.forget("a")
        controller.forget("never marked")
        await asyncio.sleep(100)

    assert scenario(body).begun == []


def test_a_key_forgotten_while_it_is_handled_finishes_and_does_not_come_back() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["a"] = 10
        recorder.returns["a"] = [5]
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("a")
        controller.forget("a")
        await asyncio.sleep(1000)

    recorder = scenario(body)
    assert recorder.begun == [(0, "a")]
    assert recorder.ended == ["a"]


def test_a_key_that_returns_while_its_last_handler_still_runs_is_handled_after_it() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["a"] = 10
        controller.mark("a")
        await asyncio.sleep(1)
        controller.forget("a")
        controller.mark("a")
        await asyncio.sleep(1000)

    assert scenario(body).begun == [(0, "a"), (10, "a")]


def test_no_more_keys_at_a_time_than_workers() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        for key in "abcd":
            recorder.takes[key] = 10
            controller.mark(key)
        await asyncio.sleep(1)
        assert controller.busy == 2
        assert controller.running == {"a", "b"}
        await asyncio.sleep(1000)

    assert scenario(body, workers=2).begun == [(0, "a"), (0, "b"), (10, "c"), (10, "d")]


def test_a_slow_key_delays_no_other() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["slow"] = 3600
        controller.mark("slow")
        await asyncio.sleep(1)
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("b")
        await asyncio.sleep(1)

    assert scenario(body, workers=2).begun == [(0, "slow"), (1, "a"), (2, "b")]


def test_the_longest_overdue_key_goes_first() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["first"] = 100
        controller.mark("first")
        await settle()
        controller.mark("c", after=30)
        controller.mark("a", after=10)
        controller.mark("b", after=20)
        await asyncio.sleep(1000)

    assert scenario(body, workers=1).begun == [(0, "first"), (100, "a"), (100, "b"), (100, "c")]


def test_a_key_that_always_wants_to_run_starves_no_other() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.returns["greedy"] = [0.0] * 50
        controller.mark("greedy")
        controller.mark("a")
        controller.mark("b")
        await asyncio.sleep(1)

    assert scenario(body, workers=1).begun[:4] == [(0, "greedy"), (0, "a"), (0, "b"), (0, "greedy")]


def test_depth_and_oldest_count_what_waits_for_a_worker_and_nothing_else() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        assert (controller.depth, controller.oldest, controller.busy) == (0, None, 0)
        recorder.takes["a"] = 100
        controller.mark("a")
        await asyncio.sleep(1)
        controller.mark("a")
        controller.mark("later", after=3600)
        assert (controller.depth, controller.oldest, controller.busy) == (0, None, 1)
        controller.mark("b")
        await asyncio.sleep(2)
        controller.mark("c")
        await asyncio.sleep(3)
        assert controller.depth == 2
        assert controller.oldest == MIDNIGHT + timedelta(seconds=1)

    scenario(body, workers=1)


def test_an_idle_controller_is_never_woken() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.returns["a"] = [4000]
        controller.mark("a")
        await settle()
        before = recorder.loop.wake_ups
        await asyncio.sleep(3600)
        assert recorder.loop.wake_ups - before == 1, "the test's own sleep, and no other"

    scenario(body)


def test_a_full_controller_is_not_woken_by_what_is_due() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["slow"] = 10_000
        controller.mark("slow")
        await settle()
        for key in range(100):
            controller.mark(str(key), after=key)
        await settle()
        before = recorder.loop.wake_ups
        await asyncio.sleep(3600)
        assert recorder.loop.wake_ups - before == 1

    scenario(body, workers=1)


def test_any_hashable_is_a_key_even_none() -> None:
    async def main(loop: VirtualTimeLoop) -> list[object]:
        handled: list[object] = []

        async def handle(key: object) -> None:
            handled.append(key)

        controller: Controller[object] = Controller(handle, on_error=fail_the_test, time=loop.time)
        async with running(controller):
            for key in (None, ("production", "orders"), 0):
                controller.mark(key)
            await settle()
        return handled

    assert run_in_virtual_time(main) == [None, ("production", "orders"), 0]


class TestUnexpectedErrors:
    def outcome(
        self, handle: Callable[[str], Awaitable[float | None]], on_error: Callable[[str, Exception], float]
    ) -> list[dict[str, Any]]:
        """Mark `bad` and see it handled for 100 s; the complaints to the loop's exception handler."""

        async def main(loop: VirtualTimeLoop) -> list[dict[str, Any]]:
            complaints: list[dict[str, Any]] = []
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            controller: Controller[str] = Controller(handle, on_error=on_error, time=loop.time)
            async with running(controller):
                controller.mark("bad")
                await asyncio.sleep(100)
            return complaints

        return run_in_virtual_time(main)

    def test_are_reported_and_the_key_is_tried_again_after_the_delay_of_the_report(self) -> None:
        attempts: list[float] = []
        reports: list[tuple[str, str]] = []

        async def handle(key: str) -> float | None:
            attempts.append(asyncio.get_running_loop().time() - 1000)
            if len(attempts) < 3:
                raise LookupError("no such thing")
            return None

        def on_error(key: str, error: Exception) -> float:
            reports.append((key, repr(error)))
            return 7.0

        assert self.outcome(handle, on_error) == []
        assert reports == [("bad", "LookupError('no such thing')")] * 2
        assert attempts == [0.0, 7.0, 14.0]

    def test_of_the_report_itself_reach_the_event_loop_and_the_key_is_tried_again(self) -> None:
        attempts: list[float] = []

        async def handle(key: str) -> float | None:
            attempts.append(asyncio.get_running_loop().time() - 1000)
            raise LookupError("no such thing")

        def on_error(key: str, error: Exception) -> float:
            raise ZeroDivisionError

        complaints = self.outcome(handle, on_error)
        assert attempts == [0.0, 60.0]
        assert [type(complaint["exception"]) for complaint in complaints] == [ZeroDivisionError] * 2
        assert "'bad'" in complaints[0]["message"]

    def test_include_a_cancellation_that_was_not_ours(self) -> None:
        attempts: list[str] = []
        reports: list[Exception] = []

        async def handle(key: str) -> float | None:
            attempts.append(key)
            if len(attempts) > 1:
                return None
            raise asyncio.CancelledError

        def on_error(key: str, error: Exception) -> float:
            reports.append(error)
            return 1.0

        self.outcome(handle, on_error)
        assert attempts == ["bad", "bad"]
        assert isinstance(reports[0].__cause__, asyncio.CancelledError)


class TestStopping:
    def test_begins_nothing_new_and_lets_running_handlers_finish(self) -> None:
        async def main(loop: VirtualTimeLoop) -> tuple[Recorder, set[str], float]:
            recorder = Recorder(loop)
            recorder.takes["a"] = 10
            controller = Controller(recorder, workers=1, on_error=fail_the_test, time=loop.time)
            task = asyncio.create_task(controller.run())
            controller.mark("a")
            controller.mark("waiting")
            await asyncio.sleep(1)
            controller.stop()
            controller.mark("too late")
            cancelled = await controller.drain(25)
            await task
            return recorder, cancelled, loop.time() - recorder.start

        recorder, cancelled, seconds = run_in_virtual_time(main)
        assert recorder.begun == [(0, "a")]
        assert recorder.ended == ["a"]
        assert cancelled == set()
        assert seconds == 10

    def test_cancels_what_outlasts_the_timeout_and_waits_for_its_cleaning_up(self) -> None:
        async def main(loop: VirtualTimeLoop) -> tuple[set[str], list[str], float, int]:
            cleaned: list[str] = []

            async def handle(key: str) -> float | None:
                try:
                    await asyncio.sleep(10 if key == "quick" else 3600)
                finally:
                    await asyncio.sleep(2)
                    cleaned.append(key)
                return 1.0

            controller = Controller(handle, on_error=fail_the_test, time=loop.time)
            task = asyncio.create_task(controller.run())
            for key in ("quick", "slow", "slower"):
                controller.mark(key)
            await settle()
            start = loop.time()
            cancelled = await controller.drain(25)
            await task
            return cancelled, cleaned, loop.time() - start, controller.busy

        cancelled, cleaned, seconds, busy = run_in_virtual_time(main)
        assert cancelled == {"slow", "slower"}
        assert sorted(cleaned) == ["quick", "slow", "slower"]
        assert seconds == 27
        assert busy == 0

    def test_without_patience_cancels_at_once_and_leaves_nothing_behind(self) -> None:
        async def main(loop: VirtualTimeLoop) -> tuple[set[str], int, list[str], float]:
            recorder = Recorder(loop)
            recorder.takes["a"] = 3600
            controller = Controller(recorder, on_error=fail_the_test, time=loop.time)
            task = asyncio.create_task(controller.run())
            controller.mark("a")
            await settle()
            cancelled = await controller.drain(0)
            await task
            return cancelled, controller.busy, recorder.ended, loop.time() - recorder.start

        assert run_in_virtual_time(main) == ({"a"}, 0, [], 0.0)

    def test_before_the_start_means_not_to_start(self) -> None:
        async def main(loop: VirtualTimeLoop) -> list[tuple[float, str]]:
            recorder = Recorder(loop)
            controller = Controller(recorder, on_error=fail_the_test, time=loop.time)
            controller.mark("a")
            assert await controller.drain(5) == set()
            await controller.run()
            return recorder.begun

        assert run_in_virtual_time(main) == []

    def test_cancelling_run_cancels_the_handlers(self) -> None:
        async def main(loop: VirtualTimeLoop) -> tuple[list[str], int]:
            recorder = Recorder(loop)
            recorder.takes["a"] = 3600
            controller = Controller(recorder, on_error=fail_the_test, time=loop.time)
            task = asyncio.create_task(controller.run())
            controller.mark("a")
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return recorder.ended, controller.busy

        assert run_in_virtual_time(main) == ([], 0)

    def test_run_refuses_a_second_call(self) -> None:
        async def main(loop: VirtualTimeLoop) -> None:
            controller = Controller(Recorder(loop), on_error=fail_the_test, time=loop.time)
            controller.stop()
            await controller.run()
            with pytest.raises(RuntimeError, match="has run already"):
                await controller.run()

        run_in_virtual_time(main)


def test_without_a_worker_nothing_could_be_handled() -> None:
    async def handle(key: str) -> None:
        return None

    with pytest.raises(ValueError, match="workers is 0"):
        Controller(handle, workers=0, on_error=fail_the_test)


async def test_the_default_clock_is_that_of_a_real_event_loop() -> None:
    handled = asyncio.Event()

    async def handle(key: str) -> None:
        handled.set()

    controller: Controller[str] = Controller(handle, on_error=fail_the_test)
    async with running(controller):
        controller.mark("a", after=0.01)
        async with asyncio.timeout(30):
            await handled.wait()


def test_jitter_stays_within_a_tenth_and_is_not_constant() -> None:
    random = Random(1)
    values = [jittered(60, random) for _ in range(1000)]
    assert 54 <= min(values) < 55
    assert 65 < max(values) <= 66


def test_a_worker_that_is_lent_handles_another_key() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes.update(a=10, b=10)
        for key in ("a", "b", "c"):
            controller.mark(key)
        await asyncio.sleep(2)
        controller.lend("a")
        assert controller.busy == 0
        await asyncio.sleep(1)
        assert (controller.busy, set(controller.running)) == (1, {"a", "b"})
        # back at work, it makes nobody wait in the middle, and nobody else begins
        controller.take_back("a")
        assert controller.busy == 2
        await asyncio.sleep(100)

    assert scenario(body, workers=1).begun == [(0, "a"), (2, "b"), (12, "c")]


def test_a_worker_is_lent_no_longer_than_its_handling() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes["a"] = 10
        controller.lend("a")
        controller.mark("a")
        await asyncio.sleep(1)
        controller.lend("a")
        controller.lend("a")
        await asyncio.sleep(100)
        assert controller.busy == 0
        controller.mark("a")
        await asyncio.sleep(1)
        assert controller.busy == 1

    scenario(body)


def test_a_cancelled_key_ends_and_the_others_go_on() -> None:
    async def body(controller: Controller[str], recorder: Recorder) -> None:
        recorder.takes.update(a=10, b=10)
        controller.mark("a")
        controller.mark("b")
        await asyncio.sleep(1)
        controller.cancel("a")
        controller.cancel("nobody")
        await asyncio.sleep(20)
        controller.mark("a")
        await asyncio.sleep(20)

    recorder = scenario(body)
    assert recorder.ended == ["b", "a"]
