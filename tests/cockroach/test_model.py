"""The protocol holds whatever crashes, is late or is lost; and each of its rules is needed: without it, this is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.cockroach.protocol import (
    DDL,
    DML,
    DONE,
    DOUBT,
    FAILED,
    LOST,
    MARGIN,
    OPAQUE,
    TTL,
    Ambiguous,
    Broken,
    Conflict,
    MemoryStore,
    Request,
    Requests,
    Rules,
    Runner,
    Statement,
)

PLAN = (
    Statement(1, 0, DDL),
    Statement(1, 1, DML),
    Statement(2, 0, DDL),
    Statement(2, 1, OPAQUE),
    Statement(3, 0, DML),
)
ANSWERED, UNANSWERED, NEVER_SENT, LATE, CONFLICT = "answered", "unanswered", "never sent", "late", "conflict"
FATES = (LATE, LATE, LATE, LATE, UNANSWERED, NEVER_SENT, CONFLICT)
RUNNERS = 2


@dataclass
class Attempt:
    """A runner at work: where it stands, and what it is to be told next."""

    runner: Runner
    requests: Requests
    tell: Callable[[], Request]


@dataclass(frozen=True)
class Flight:
    """A request that was sent and has not arrived; of a schema change, the tick by which it does."""

    request: Request
    by: int | None


class World(RuleBasedStateMachine):
    """Runners, a store, and everything that may happen to them."""

    protocol: ClassVar[Rules] = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(self.protocol)
        self.attempts: dict[int, Attempt] = {}
        self.flights: list[Flight] = []
        self.started = 0
        self.ends: list[str] = []
        self.fence = 0

    # what happens

    @rule(number=st.integers(0, RUNNERS - 1))
    def step(self, number: int) -> None:
        """A runner gets its answer."""
        self._step(number, ANSWERED)

    @rule(number=st.integers(0, RUNNERS - 1), fate=st.sampled_from(FATES))
    def step_somehow(self, number: int, fate: str) -> None:
        """A runner's request comes to no answer."""
        self._step(number, fate)

    @rule(number=st.integers(0, RUNNERS - 1), count=st.integers(2, 20), finishing=st.booleans())
    def hurry(self, number: int, count: int, finishing: bool) -> None:
        """Several of its requests are answered at once; its jobs come to their end, or not."""
        for _ in range(count):
            self._step(number, ANSWERED)
            for job in self.store.running() if finishing else ():
                self.store.finish(job, well=True)

    @rule(number=st.integers(0, RUNNERS - 1), really=st.sampled_from([False, False, True]))
    def crash(self, number: int, really: bool) -> None:
        """A runner is no more; what it sent goes on."""
        if really:
            self.attempts.pop(number, None)

    @rule(number=st.integers(0, RUNNERS - 1), answered=st.booleans())
    def beat(self, number: int, answered: bool) -> None:
        """A runner's heartbeat."""
        if number in self.attempts:
            self.attempts[number].runner.beat(self.store, answered=answered)

    @rule(ticks=st.sampled_from([1, 2, TTL + 1]))
    def wait(self, ticks: int) -> None:
        """Time passes. No schema change is under way for longer than MARGIN."""
        for _ in range(ticks):
            for flight in [
                each for each in self.flights if each.by is not None and each.by <= self.store.now
            ]:
                self._arrive(flight)
            self.store.now += 1

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Something late arrives, whether or not its sender is still there."""
        self._arrive(data.draw(st.sampled_from(self.flights)))

    @precondition(lambda self: self.store.running())
    @rule(data=st.data(), well=st.sampled_from([True, True, True, False]))
    def finish(self, data: st.DataObject, well: bool) -> None:
        """A job ends."""
        self.store.finish(data.draw(st.sampled_from(self.store.running())), well=well)

    # what must hold

    @invariant()
    def no_statement_took_effect_twice(self) -> None:
        assert all(count == 1 for count in self.store.effects.values()), self.store.effects

    @invariant()
    def what_is_recorded_took_effect(self) -> None:
        done = self.store.written.done
        assert all(self.store.effects[statement] for statement in done), done

    @invariant()
    def versions_come_in_order_and_whole(self) -> None:
        written = self.store.written
        assert written.done == set(PLAN[: len(written.done)])
        assert written.versions == {
            version
            for version in {statement.version for statement in PLAN}
            if all(statement in written.done for statement in PLAN if statement.version == version)
        }

    @invariant()
    def fences_only_grow(self) -> None:
        assert self.store.row.fence >= self.fence
        self.fence = self.store.row.fence

    @invariant()
    def who_says_done_is_done(self) -> None:
        if DONE in self.ends:
            assert self.store.written.done == set(PLAN)

    def teardown(self) -> None:
        """When all is quiet again, the next runner brings everything to its end, or says who must look."""
        self.attempts.clear()
        for flight in list(self.flights):
            self._arrive(flight)
        for number in self.store.running():
            self.store.finish(number, well=True)
        self.wait(TTL + 1)
        for _ in range(500):
            if self.ends and self.ends[-1] in (DONE, DOUBT) and 0 not in self.attempts and _ > 0:
                break
            self._step(0, ANSWERED)
            for number in self.store.running():
                self.store.finish(number, well=True)
            self.beat(0, True)
            self.wait(1)
        assert self.ends[-1] in (DONE, DOUBT), self.ends
        assert (self.ends[-1] == DOUBT) is self.store.written.doubtful
        self.no_statement_took_effect_twice()
        self.what_is_recorded_took_effect()

    def _start(self, number: int) -> Attempt:
        self.started += 1
        runner = Runner(f"owner {self.started}", PLAN, lambda: self.store.now, self.protocol)
        requests = runner.run()
        self.attempts[number] = Attempt(runner, requests, lambda: next(requests))
        return self.attempts[number]

    def _step(self, number: int, fate: str) -> None:
        """Tell a runner what it waits for and make the request that it comes up with, somehow."""
        attempt = self.attempts.get(number) or self._start(number)
        try:
            request = attempt.tell()
        except StopIteration as end:
            self.ends.append(end.value)
            del self.attempts[number]
            return
        requests = attempt.requests
        if request.kind == "wait":
            fate = ANSWERED
        if fate == CONFLICT:
            attempt.tell = lambda: requests.throw(Conflict())
        elif fate == NEVER_SENT or (fate == LATE and request.kind == "read"):
            attempt.tell = lambda: requests.throw(Ambiguous())
        elif fate == LATE:
            by = self.store.now + MARGIN - 1 if request.kind == "ddl" else None
            self.flights.append(Flight(request, by))
            attempt.tell = lambda: requests.throw(Ambiguous())
        else:
            answer: Any = request.call(self.store)
            if fate == ANSWERED:
                attempt.tell = lambda: requests.send(answer)
            else:
                attempt.tell = lambda: requests.throw(Ambiguous())

    def _arrive(self, flight: Flight) -> None:
        self.flights.remove(flight)
        flight.request.call(self.store)


def play(rules: Rules, *, examples: int) -> None:
    """Play the protocol by these rules, the same way each time."""
    world = type("PlayedWorld", (World,), {"protocol": rules})
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_protocol_holds() -> None:
    play(Rules(), examples=400)


@pytest.mark.slow
def test_the_protocol_holds_for_long() -> None:
    play(Rules(), examples=3000)


@pytest.mark.parametrize("broken", [field.name for field in fields(Rules)])
def test_without_any_of_its_rules_it_does_not(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        play(replace(Rules(), **{broken: False}), examples=5000)
    capsys.readouterr()


# for those who would rather read an example


def quietly(world: World, number: int, steps: int) -> None:
    for _ in range(steps):
        world.step(number)


def test_a_late_schema_change_is_waited_for_by_whoever_takes_over() -> None:
    world = World()
    while not world.store.running():
        world.step(0)
    world.crash(0, True)
    world.wait(TTL + 1)
    quietly(world, 1, 20)
    assert world.store.row.owner == "owner 2"
    assert len(world.store.jobs) == 1
    world.store.finish(1, well=True)
    world.teardown()
    assert world.store.effects[PLAN[0]] == 1


def test_a_job_that_failed_is_tried_again_by_the_next_run() -> None:
    world = World()
    while not world.store.running():
        world.step(0)
    world.store.finish(1, well=False)
    while FAILED not in world.ends:
        world.step(0)
    world.wait(TTL + 1)
    world.teardown()
    assert world.ends[-1] == DONE


def test_an_owner_whose_lease_ran_out_sends_nothing() -> None:
    world = World()
    while PLAN[0] not in world.store.written.announced:
        world.step(0)
    world.wait(TTL)
    while not world.ends:
        world.step(0)
    assert world.store.jobs == {}
    assert world.ends == [LOST]


def test_the_store_complains_of_what_comes_from_an_owner_without_lease() -> None:
    store = MemoryStore(Rules())
    fence = store.acquire("a")
    assert fence == 1
    store.now = TTL + 1
    assert store.acquire("b") == 2
    assert not store.record("a", fence, PLAN[0], last=False)
    with pytest.raises(Broken):
        store.change_schema("a", fence, PLAN[0])
