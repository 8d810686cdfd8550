"""The server itself is killed, or one of its backends, while it works for several databases."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

import psycopg

from tests.faults.proxy import TO_SERVER, Harm
from tests.faults.rounds import PATIENCE, Process, Round
from tests.faults.strikes import harm_in_rows, wait_for
from tests.servers import TestServer

_STRIKES = 2
"""Crashes on the way up, and as many on the way down."""


def server_killed(rounds: Sequence[Round]) -> None:
    """SIGKILL to the postmaster, whose backends end with it; then a start with crash recovery."""
    _crash(rounds, _kill_server)


def server_killed_in_rows(rounds: Sequence[Round]) -> None:
    """The same, while rows of a COPY have come in part."""
    _crash(rounds, _kill_server, in_rows=True)


def backend_killed(rounds: Sequence[Round]) -> None:
    """SIGKILL to one backend: the server disconnects everybody and recovers by itself."""
    _crash(rounds, _kill_backend)


def _crash(rounds: Sequence[Round], crash: Callable[[TestServer], None], *, in_rows: bool = False) -> None:
    server = rounds[0].server
    what = "rows began to stand still" if in_rows else "the lock was asked for"
    for direction in ("up", "down"):
        for this in rounds:
            this.direction = direction
        for _ in range(_STRIKES):
            due = [this for this in rounds if not this.done]
            if not due:
                break
            begun = threading.Event()
            for this in due:
                this.proxy.arm(_rows_stop(this, begun) if in_rows else _lock_is_asked_for(begun))
            processes = {this.name: this.start() for this in due}
            wait_for(begun, next(iter(processes.values())))
            pause = rounds[0].random.uniform(0, 0.3)
            time.sleep(pause)
            running = {name: process.poll() is None for name, process in processes.items()}
            crash(server)
            announced = {name: _announced(process) for name, process in processes.items()}
            _wait_until_up(server)
            for this in due:
                this.proxy.arm(None)
                this.count(running[this.name], f"crash {pause * 1000:.0f} ms after {what}")
                _hold_to_its_word(this, announced[this.name])
        for this in rounds:
            this.settle()


def _lock_is_asked_for(begun: threading.Event) -> Harm:
    return Harm(
        lambda frame: frame.way == TO_SERVER and b"pg_try_advisory_lock" in frame.data,
        cut=False,
        act=begun.set,
    )


def _rows_stop(this: Round, begun: threading.Event) -> Harm:
    """Rows stand still in their midst, longer than it takes to crash the server."""
    _, harm = harm_in_rows(this, act=begun.set, cut=False, delay=0.5)
    return harm


def _announced(process: Process) -> list[tuple[int, str]]:
    """The steps that a process said are in force."""
    out, _ = process.communicate(timeout=PATIENCE)
    document = json.loads(out) if out else {}
    return [
        (step["version"], step["direction"])
        for database in document.get("databases", [])
        for step in database.get("applied", [])
    ]


def _hold_to_its_word(this: Round, announced: list[tuple[int, str]]) -> None:
    assert this.last is not None
    kept = this.last.successes()
    this.faults += [
        f"the {direction} of version {version} was announced and is lost"
        for version, direction in announced
        if not kept[version, direction]
    ]


def _kill_server(server: TestServer) -> None:
    server.kill()
    server.start()


def _kill_backend(server: TestServer) -> None:
    try:
        found = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'reconciler' ORDER BY random() LIMIT 1"
        )
        if found:
            os.kill(int(str(found[0][0])), signal.SIGKILL)
    except ProcessLookupError:
        # it ended by itself in between
        pass


def _wait_until_up(server: TestServer) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the server did not recover"
            time.sleep(0.02)
