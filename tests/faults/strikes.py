"""The kinds of faults that hit one process or its connection. Each plays one round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.gates import ShutGate
from tests.faults.proxy import TO_CLIENT, TO_SERVER, Frame, Harm
from tests.faults.rounds import PATIENCE, Process, Round, end_backend, finish, kill
from tests.faults.scenario import ROWS_BYTES, Gate

_STRIKES = 4
"""Faults on the way up, and as many on the way down."""
_PAUSE = 0.003


def up_and_down(each: Callable[[Round], None]) -> Callable[[Round], None]:
    """Strike on the way up, settle, strike on the way down, settle."""

    def play(this: Round) -> None:
        for direction in ("up", "down"):
            this.direction = direction
            each(this)
            this.settle()

    return play


def _several(strike: Callable[[Round], None]) -> Callable[[Round], None]:
    def play(this: Round) -> None:
        for _ in range(_STRIKES):
            if this.done:
                return
            strike(this)

    return up_and_down(play)


@up_and_down
def at_gates(this: Round) -> None:
    """SIGKILL between two statements; then either the server goes on at once, or only when the next process waits for it."""
    gates = this.scenario.gates_of(this.direction)
    # rounds share the gates out among them: each is met as often as any other
    start = (this.number // 2 * _STRIKES) % len(gates)
    chosen = sorted(
        {(start + index * max(1, len(gates) // _STRIKES)) % len(gates) for index in range(_STRIKES)}
    )
    for index in chosen:
        if this.done:
            return
        _at_gate(this, gates[index])


def _at_gate(this: Round, gate: Gate) -> None:
    late = this.random.random() < 0.3
    inside = gate.before_concurrently and this.random.random() < 0.6
    terminate = this.random.random() < 0.2
    next_process: list[Process] = []
    with ShutGate(this.dsn, gate) as shut:
        process = this.start()

        def struck() -> bool:
            backend = _wait_at(process, shut)
            if backend is not None and inside:
                backend = shut.pass_into_concurrently()
            if not kill(process) or backend is None:
                return False
            if terminate:
                end_backend(this.dsn, backend)
            elif late:
                # it must not run beside what goes on in the server
                next_process.append(this.start())
                this.proxy.connected.clear()
                this.proxy.connected.wait(PATIENCE)
                time.sleep(0.05)
            return True

        where = "inside the concurrent statement behind" if inside else "at"
        how = "terminated" if terminate else "late" if late else "released"
        this.strike(struck, f"killed {where} gate {gate.number} ({how})")
    for each in next_process:
        code, text = finish(each)
        this.check(f"the next one ended with {code}")
        if code != 0:
            this.faults.append(f"the one that had to wait ended with exit code {code}: {text}")


def _wait_at(process: Process, shut: ShutGate) -> int | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        backend = shut.reached()
        if backend is not None:
            return backend
        time.sleep(_PAUSE)
    return None


@_several
def at_moments(this: Round) -> None:
    """SIGKILL at a random moment after the process has connected, or has asked for the lock."""
    asks = b"pg_try_advisory_lock" if this.random.random() < 0.7 else b""
    harm = Harm(lambda frame: frame.way == TO_SERVER and asks in frame.data, cut=False)
    pause = this.random.uniform(0, 0.06 if asks else 0.12)
    with _armed(this, harm):
        process = this.start()

        def struck() -> bool:
            if not wait_for(harm.done, process):
                finish(process)
                return False
            time.sleep(pause)
            return kill(process)

        what = "asking for the lock" if asks else "connecting"
        this.strike(struck, f"killed {pause * 1000:.0f} ms after {what}")


@_several
def at_messages(this: Round) -> None:
    """SIGKILL just before, in the middle of or just behind a message."""
    way = this.random.choice([TO_SERVER, TO_CLIENT])
    number = _message_number(this, way)
    portion = this.random.choice([0.0, 0.5, 1.0])
    process = this.start()
    harm = Harm(lambda frame: frame.way == way and frame.number == number, portion=portion, act=process.kill)
    with _armed(this, harm):
        this.strike(
            lambda: _hit(process, harm), f"killed at message {number} {way}, {portion:.0%} of it sent"
        )


@_several
def cuts(this: Round) -> None:
    """The connection ends just before, in the middle of or just behind a message; the process lives."""
    way = this.random.choice([TO_SERVER, TO_CLIENT])
    number = _message_number(this, way)
    portion = this.random.choice([0.0, 0.02, 0.5, 0.98, 1.0])
    linger = this.random.choice([0.0, 0.0, 0.3])
    harm = Harm(lambda frame: frame.way == way and frame.number == number, portion=portion, linger=linger)
    with _armed(this, harm):
        process = this.start()
        this.strike(
            lambda: _hit(process, harm),
            f"cut at message {number} {way}, {portion:.0%} of it passed, the server notices after {linger:g} s",
        )


@_several
def cuts_at_commit(this: Round) -> None:
    """The connection ends when the server has said, or is about to say, that a COMMIT took effect."""
    number = this.random.randrange(0, 2 + 2 * this.scenario.target)
    portion = this.random.choice([0.0, 0.5, 1.0])
    harm = Harm(lambda frame: frame.is_commit and frame.commits == number, portion=portion)
    with _armed(this, harm):
        process = this.start()
        this.strike(
            lambda: _hit(process, harm),
            f"cut at the answer to COMMIT {number}, {portion:.0%} of it passed",
        )


@_several
def delays(this: Round) -> None:
    """A message stops in the middle and goes on a while later: nothing may come of it."""
    way = this.random.choice([TO_SERVER, TO_CLIENT])
    number = _message_number(this, way)
    delay = this.random.uniform(0.05, 0.4)
    harm = Harm(
        lambda frame: frame.way == way and frame.number == number, portion=0.5, cut=False, delay=delay
    )
    with _armed(this, harm):
        process = this.start()

        def struck() -> bool:
            code, text = finish(process)
            if code != 0:
                this.faults.append(
                    f"delayed by {delay:.3f} s, {this.direction} ended with exit code {code}: {text}"
                )
            return harm.done.is_set()

        this.strike(struck, f"message {number} {way} delayed by {delay * 1000:.0f} ms")


@_several
def cuts_in_rows(this: Round) -> None:
    """The connection ends after so many bytes of the rows of a COPY; the process lives."""
    linger = this.random.choice([0.0, 0.0, 0.3])
    wanted, harm = harm_in_rows(this, linger=linger)
    with _armed(this, harm):
        process = this.start()
        this.strike(lambda: _hit(process, harm), f"cut after {wanted} bytes of rows, {linger:g} s to notice")


@_several
def kills_in_rows(this: Round) -> None:
    """SIGKILL after so many bytes of the rows of a COPY."""
    process = this.start()
    wanted, harm = harm_in_rows(this, act=process.kill)
    with _armed(this, harm):
        this.strike(lambda: _hit(process, harm), f"killed after {wanted} bytes of rows")


def harm_in_rows(
    this: Round,
    *,
    act: Callable[[], None] = lambda: None,
    cut: bool = True,
    linger: float = 0.0,
    delay: float = 0.0,
) -> tuple[int, Harm]:
    """Harm at a byte of the rows that come, and which byte it is. Late ones may not come, if much is done already."""
    wanted = this.random.randrange(ROWS_BYTES[this.direction])
    seen = 0

    def when(frame: Frame) -> bool:
        nonlocal seen
        if not frame.is_rows:
            return False
        seen += len(frame.data)
        # how much of the message may pass is known only now
        harm.portion = max(0.0, 1 - (seen - wanted) / len(frame.data))
        return seen > wanted

    harm = Harm(when, act=act, cut=cut, linger=linger, delay=delay)
    return wanted, harm


@contextmanager
def _armed(this: Round, harm: Harm) -> Iterator[None]:
    this.proxy.arm(harm)
    try:
        yield
    finally:
        this.proxy.arm(None)


def _hit(process: Process, harm: Harm) -> bool:
    """Wait for the end of a process whose connection is in harm's way."""
    finish(process)
    return harm.done.is_set()


def _message_number(this: Round, way: str) -> int:
    """A message of the kind of run that is due: an early run has many, a late one few."""
    steps = this.scenario.target
    highest = (10 + steps * 3) if way == TO_SERVER else (60 + steps * 30)
    return this.random.randrange(1, highest)


def wait_for(event: threading.Event, process: Process) -> bool:
    """Wait until a process has done something; False when it ended before."""
    deadline = time.monotonic() + PATIENCE
    while not event.wait(0.02):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
    return True
