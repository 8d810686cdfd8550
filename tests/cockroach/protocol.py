"""The protocol by which one runner at a time migrates a CockroachDB, in its barest form: lease, fence, journal, jobs.

`Store` is what a runner asks of the database; each call is one statement or one transaction. `Runner` is the protocol:
a generator that yields one request at a time, so that whoever plays it may crash it, lose an answer, or let a request arrive
late between any two. `MemoryStore` is a store that can be looked into. Times are in ticks.

What the protocol rests on, and the model takes for granted: a schema change that was sent arrives within MARGIN ticks or never;
what a job did can be seen once it is over; clocks of runners run as fast as the server's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

TTL = 8
"""Ticks that a lease lasts without being renewed."""
MARGIN = 2
"""Ticks before the end of the lease from which nothing is sent any more; no message takes longer to arrive."""
DDL, DML, OPAQUE = "ddl", "dml", "opaque"
"""Kinds of statement: a job, one in a transaction with its record, and a job whose effect nobody can see."""
DONE, HELD, LOST, FAILED, DOUBT = "done", "held", "lost", "failed", "doubt"
"""How a run ends: all is applied; somebody else holds the lease; the lease is gone or was not confirmed in time; a job
failed; nobody can tell whether a statement took effect."""
RUNNING, SUCCEEDED, BROKEN = "running", "succeeded", "failed"
"""States of a job."""


@dataclass(frozen=True, order=True)
class Statement:
    """One statement of a migration."""

    version: int
    index: int
    kind: str = DDL


@dataclass(frozen=True)
class Lease:
    """The lock's row."""

    owner: str = ""
    fence: int = 0
    expires: int = 0


@dataclass(frozen=True)
class Journal:
    """What is written down: statements announced and not ended, statements done, versions applied, whether in doubt."""

    announced: frozenset[Statement] = frozenset()
    done: frozenset[Statement] = frozenset()
    versions: frozenset[int] = frozenset()
    doubtful: bool = False


class Store(Protocol):
    """What a runner asks of the database. `acquire` and everything that writes say False or None when the lease forbids it."""

    def acquire(self, owner: str) -> int | None:
        """Take the lease if it is free or has expired; its new fence."""

    def lease(self) -> Lease:
        """Who holds it."""

    def renew(self, owner: str, fence: int) -> bool:
        """Hold it TTL ticks longer."""

    def release(self, owner: str, fence: int) -> bool:
        """Give it back."""

    def open_jobs(self) -> int:
        """How many schema changes are not over."""

    def journal(self) -> Journal:
        """What is written down."""

    def announce(self, owner: str, fence: int, statement: Statement) -> bool:
        """Write down that a statement is about to be sent."""

    def record(self, owner: str, fence: int, statement: Statement, *, last: bool) -> bool:
        """Write down that it took effect, and with the last of a version that this is applied."""

    def forget(self, owner: str, fence: int, statement: Statement) -> bool:
        """Write down that it had no effect."""

    def doubt(self, owner: str, fence: int) -> bool:
        """Write down that a person must look."""

    def change_data(self, owner: str, fence: int, statement: Statement, *, last: bool) -> bool:
        """Run a statement and record it, in one transaction."""

    def change_schema(self, owner: str, fence: int, statement: Statement) -> int:
        """Begin a job; its number. No fence keeps it out: `owner` and `fence` are for the onlooker."""

    def job(self, number: int) -> str:
        """What became of a job."""

    def in_effect(self, statement: Statement) -> bool | None:
        """Whether its effect can be seen; None when it never can."""


@dataclass(frozen=True)
class Rules:
    """The protocol's rules, each of which a test may break."""

    only_when_expired: bool = True
    fence_grows: bool = True
    writes_are_fenced: bool = True
    records_are_keyed: bool = True
    """A statement is recorded once: a second transaction with the same record fails as a whole."""
    waits_for_jobs: bool = True
    stops_when_unconfirmed: bool = True
    looks_when_in_doubt: bool = True
    waits_before_it_looks: bool = True
    """What was sent and not answered may still arrive: MARGIN passes before its absence means anything."""
    announces: bool = True


class Ambiguous(Exception):
    """The answer never came: the request may have had effect, may have it later, or never."""


class Conflict(Exception):
    """40001: the request had no effect and never will."""


@dataclass(frozen=True)
class Request:
    """One request of a runner.

    Args:
        call: makes it.
        kind: `read`, `write`, `ddl`, or `wait` for nothing but time.
    """

    call: Callable[[Store], Any]
    kind: str = "read"


Requests = Generator[Request, Any, Any]
_PAUSE = Request(lambda _: None, "wait")


@dataclass
class Runner:
    """One attempt to bring the database to the end of a plan.

    Args:
        owner: a name that nobody had before.
        plan: all statements, in order.
        clock: the runner's own, of which only differences count.
        rules: by which it goes.
    """

    owner: str
    plan: tuple[Statement, ...]
    clock: Callable[[], int]
    rules: Rules = field(default_factory=Rules)
    fence: int | None = None
    confirmed: int = 0
    """When the last request was sent that the server confirmed the lease by."""
    lost: bool = False

    def run(self) -> Requests:
        """The protocol; its value says how it ended."""
        if not (yield from self._acquire()):
            return HELD
        while self.rules.waits_for_jobs and (yield from self._read(lambda store: store.open_jobs())):
            yield _PAUSE
        for statement in self.plan:
            ended = yield from self._bring(statement)
            if ended:
                return ended
        yield from self._write(lambda store: store.release(self.owner, self._fence))
        return DONE

    def beat(self, store: Store, *, answered: bool = True) -> None:
        """Renew the lease, from another task than the one that runs statements."""
        if self.fence is not None and not self.lost:
            sent = self.clock()
            renewed = store.renew(self.owner, self.fence)
            if answered:
                self.confirmed = sent if renewed else self.confirmed
                self.lost = not renewed

    @property
    def _fence(self) -> int:
        assert self.fence is not None
        return self.fence

    @property
    def _may_send(self) -> bool:
        if not self.rules.stops_when_unconfirmed:
            return True
        return not self.lost and self.clock() - self.confirmed < TTL - MARGIN

    def _acquire(self) -> Requests:
        self.confirmed = self.clock()
        while True:
            try:
                self.fence = yield Request(lambda store: store.acquire(self.owner), "write")
                return self.fence is not None
            except Conflict:
                self.confirmed = self.clock()
            except Ambiguous:
                lease: Lease = yield from self._read(lambda store: store.lease())
                self.fence = lease.fence if lease.owner == self.owner else None
                return self.fence is not None

    def _read(self, call: Callable[[Store], Any]) -> Requests:
        while True:
            try:
                return (yield Request(call))
            except (Ambiguous, Conflict):
                pass

    def _write(self, call: Callable[[Store], bool]) -> Requests:
        """Make a fenced write that does no harm when it is made twice."""
        while True:
            try:
                return (yield Request(call, "write"))
            except (Ambiguous, Conflict):
                pass

    def _bring(self, statement: Statement) -> Requests:
        """Bring one statement into effect and into the journal; how the run ends if it cannot go on."""
        journal: Journal = yield from self._read(lambda store: store.journal())
        if journal.doubtful:
            return DOUBT
        if statement in journal.done:
            return ""
        last = all(other.version != statement.version or other <= statement for other in self.plan)
        if statement.kind == DML:
            return (yield from self._change_data(statement, last))
        in_doubt = statement in journal.announced
        while True:
            if in_doubt and self.rules.looks_when_in_doubt:
                seen = yield from self._look(statement)
                if seen is None:
                    yield from self._write(lambda store: store.doubt(self.owner, self._fence))
                    return DOUBT
                if seen:
                    return (yield from self._record(statement, last))
            if self.rules.announces:
                announced = yield from self._write(
                    lambda store: store.announce(self.owner, self._fence, statement)
                )
                if not announced:
                    return LOST
            if not self._may_send:
                return LOST
            try:
                number = yield Request(
                    lambda store: store.change_schema(self.owner, self._fence, statement), "ddl"
                )
            except Conflict:
                in_doubt = False
                continue
            except Ambiguous:
                in_doubt = True
                continue
            return (yield from self._finish(statement, number, last))

    def _look(self, statement: Statement) -> Requests:
        """Whether its effect is there, when nothing that could still bring it is under way."""
        begun = self.clock()
        while self.rules.waits_before_it_looks and self.clock() - begun < MARGIN:
            yield _PAUSE
        while self.rules.waits_for_jobs and (yield from self._read(lambda store: store.open_jobs())):
            yield _PAUSE
        return (yield from self._read(lambda store: store.in_effect(statement)))

    def _finish(self, statement: Statement, number: int, last: bool) -> Requests:
        """Wait for the job of a statement, whose answer is not lost, and write down what came of it."""
        while (state := (yield from self._read(lambda store: store.job(number)))) == RUNNING:
            yield _PAUSE
        if state == SUCCEEDED:
            return (yield from self._record(statement, last))
        forgotten = yield from self._write(lambda store: store.forget(self.owner, self._fence, statement))
        return FAILED if forgotten else LOST

    def _record(self, statement: Statement, last: bool) -> Requests:
        recorded = yield from self._write(
            lambda store: store.record(self.owner, self._fence, statement, last=last)
        )
        return "" if recorded else LOST

    def _change_data(self, statement: Statement, last: bool) -> Requests:
        while True:
            try:
                done = yield Request(
                    lambda store: store.change_data(self.owner, self._fence, statement, last=last), "write"
                )
                return "" if done else LOST
            except Conflict:
                continue
            except Ambiguous:
                journal: Journal = yield from self._read(lambda store: store.journal())
                if statement in journal.done:
                    return ""


class Broken(AssertionError):
    """The store saw what must not be."""


class MemoryStore:
    """A store that can be looked into, and that complains.

    Args:
        rules: which of them the database's statements keep.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.now = 0
        self.row = Lease()
        self.written = Journal()
        self.effects: Counter[Statement] = Counter()
        self.jobs: dict[int, tuple[Statement, str]] = {}
        self.highest_fence = 0

    # for the onlooker

    def finish(self, number: int, *, well: bool) -> None:
        """End a job."""
        statement, _ = self.jobs[number]
        self.jobs[number] = (statement, SUCCEEDED if well else BROKEN)
        if well:
            self.effects[statement] += 1

    def running(self) -> list[int]:
        """The jobs that are not over."""
        return [number for number, (_, state) in self.jobs.items() if state == RUNNING]

    # for runners

    def acquire(self, owner: str) -> int | None:
        if self.row.owner and self._rules.only_when_expired and self.row.expires >= self.now:
            return None
        fence = self.row.fence + 1 if self._rules.fence_grows else max(self.row.fence, 1)
        if fence <= self.highest_fence:
            raise Broken(f"the fence {fence} was given before")
        self.highest_fence = fence
        self.row = Lease(owner, fence, self.now + TTL)
        return fence

    def lease(self) -> Lease:
        return self.row

    def renew(self, owner: str, fence: int) -> bool:
        if (self.row.owner, self.row.fence) != (owner, fence):
            return False
        self.row = Lease(owner, fence, self.now + TTL)
        return True

    def release(self, owner: str, fence: int) -> bool:
        if (self.row.owner, self.row.fence) != (owner, fence):
            return False
        self.row = Lease("", fence, 0)
        return True

    def open_jobs(self) -> int:
        return len(self.running())

    def journal(self) -> Journal:
        return self.written

    def announce(self, owner: str, fence: int, statement: Statement) -> bool:
        if statement in self.written.done:
            return self._write(owner, fence)
        return self._write(owner, fence, announced=self.written.announced | {statement})

    def record(self, owner: str, fence: int, statement: Statement, *, last: bool) -> bool:
        return self._write(
            owner,
            fence,
            announced=self.written.announced - {statement},
            done=self.written.done | {statement},
            versions=self.written.versions | ({statement.version} if last else set()),
        )

    def forget(self, owner: str, fence: int, statement: Statement) -> bool:
        return self._write(owner, fence, announced=self.written.announced - {statement})

    def doubt(self, owner: str, fence: int) -> bool:
        return self._write(owner, fence, doubtful=True)

    def change_data(self, owner: str, fence: int, statement: Statement, *, last: bool) -> bool:
        if self._rules.records_are_keyed and statement in self.written.done:
            # the record's key: the transaction fails as a whole, and whoever looks finds it done
            return self._write(owner, fence)
        if not self.record(owner, fence, statement, last=last):
            return False
        self.effects[statement] += 1
        return True

    def change_schema(self, owner: str, fence: int, statement: Statement) -> int:
        if (self.row.owner, self.row.fence) != (owner, fence) or self.row.expires < self.now:
            raise Broken(f"{statement} arrived from {owner}, whose fence {fence} is gone: {self.row}")
        number = len(self.jobs) + 1
        self.jobs[number] = (statement, RUNNING)
        return number

    def job(self, number: int) -> str:
        return self.jobs[number][1]

    def in_effect(self, statement: Statement) -> bool | None:
        return None if statement.kind == OPAQUE else self.effects[statement] > 0

    def _write(self, owner: str, fence: int, **changes: Any) -> bool:
        if (self.row.owner, self.row.fence) != (owner, fence):
            if self._rules.writes_are_fenced:
                return False
            if fence < self.highest_fence:
                raise Broken(f"{owner} wrote with the fence {fence}, which is gone: {self.row}")
        now: Mapping[str, Any] = {**vars(self.written), **changes}
        self.written = Journal(**now)
        return True
