"""One round: a database is brought up and down again by processes that are struck, and promises are checked all the while."""

from __future__ import annotations

import random
import re
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psycopg

from tests.faults.looking import Look, look
from tests.faults.promises import broken_at_any_moment, broken_at_the_end
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario
from tests.faults.stage import Stage, settled, through
from tests.faults.tally import MISSED, Tally, keep, moment
from tests.servers import TestServer

PATIENCE = 60.0
"""Seconds in which everything must have ended."""

Process = subprocess.Popen[str]


class Round:
    """One database, one random sequence of faults. Use it as a context manager: it ends by counting itself.

    Args:
        stage: what it is played on.
        tally: where it is counted.
        kind: of the faults.
        number: of the round among those of its kind.
        seed: of the whole run: with kind and number it makes this round.
        scenario: the migrations.
        evidence: the folder to keep what was seen in, when a promise was broken.
        server: the server, if not one of the stage's.
    """

    def __init__(
        self,
        stage: Stage,
        tally: Tally,
        kind: str,
        number: int,
        seed: int,
        scenario: Scenario,
        evidence: Path,
        server: TestServer | None = None,
    ) -> None:
        self.stage = stage
        self.tally = tally
        self.kind = kind
        self.number = number
        self.scenario = scenario
        self.random = random.Random(f"{seed}:{kind}:{number}")
        self.server = server or stage.server(number)
        self.notes = [
            f"{kind} round {number} of seed {seed}, scenario {scenario.name}, PostgreSQL {self.server.major}"
        ]
        self.faults: list[str] = []
        self.last: Look | None = None
        self._evidence = evidence / f"{kind}-{number}"
        self.direction = "up"
        self.shapes = stage.shapes[scenario.name, self.server.major]

    def __enter__(self) -> Round:
        self.name = self.stage.create_database(self.server)
        self.dsn = self.server.dsn(self.name)
        self.proxy: Proxy = self.stage.proxy(self.server).__enter__()
        self.last = look(self.dsn)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.__exit__()
        if isinstance(error, Exception):
            self.faults.append(f"the round itself broke: {error!r}")
            self.notes += traceback.format_exception(error)
        if self.faults:
            keep(self._evidence, [*self.notes, *self.faults], self.last)
        self.tally.end_round(self.kind, self.number, self.faults, self._evidence)
        if not isinstance(error, Exception) or self.server.cluster.alive:
            self.server.drop_database(self.name)

    # its course

    @property
    def target(self) -> int:
        """Where it is going."""
        return self.scenario.target if self.direction == "up" else 0

    @property
    def done(self) -> bool:
        """It is there."""
        return (
            self.last is not None
            and not self.last.in_doubt
            and self.last.applied == list(range(1, self.target + 1))
        )

    def start(self) -> Process:
        """Start a process that goes there, by way of the proxy."""
        return self.stage.run(self.scenario, self.direction, through(self.proxy, self.name))

    def strike(self, struck: Callable[[], bool], note: str) -> None:
        """Count a fault that `struck` does, if it hits (and says so), and check what holds at any moment."""
        began = time.monotonic()
        hit = struck()
        self.count(hit, f"{note}, {time.monotonic() - began:.3f} s after its start")

    def count(self, hit: bool, note: str) -> None:
        """Count a fault that was done, and check what holds at any moment."""
        before = self.last
        assert before is not None
        now = self.check(f"{note}: {'hit' if hit else 'missed'}")
        begun, self.proxy.begun = self.proxy.begun, False
        target = list(range(1, self.target + 1))
        self.tally.hit(self.kind, moment(now, before, target, begun=begun) if hit else MISSED)

    def check(self, note: str) -> Look:
        """Check what holds at any moment."""
        now = look(self.dsn)
        self.notes.append(
            f"{self.direction} {note}; applied {now.applied}, rows {[row for row in now.rows if row[1] != 'success']}, fence {now.fence}"
        )
        self._note(broken_at_any_moment(now, self.shapes, self.last))
        self.last = now
        return now

    def settle(self) -> None:
        """Let a process go there undisturbed, and check what must hold once all is over."""
        self.proxy.arm(None)
        code, text = finish(self.start())
        if not settled(self.dsn, PATIENCE):
            self.faults.append("connections of processes that have ended are still there")
        now = self.check(f"settled: exit code {code}")
        if code != 0:
            self.faults.append(f"undisturbed, {self.direction} ended with exit code {code}: {text}")
        self.proxy.begun = False
        self._note(broken_at_the_end(now, self.shapes, self.target))

    def _note(self, broken: list[str]) -> None:
        for what in broken:
            if what not in self.faults:
                self.faults.append(what)
                self.notes.append(f"BROKEN: {what}")


def finish(process: Process, patience: float = PATIENCE) -> tuple[int, str]:
    """Wait for the end of a process; its exit code and what it wrote."""
    with process:
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nit had not ended after {patience:g} s and was killed"
    return process.returncode, _said(out) + err


def _said(out: str) -> str:
    """The problems among what a command says in JSON."""
    messages = re.findall(r'"message": "((?:[^"\\]|\\.)*)"', out)
    return "; ".join(dict.fromkeys(messages)) or out


def kill(process: Process) -> bool:
    """End a process by SIGKILL. False when it had ended before."""
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running


def end_backend(dsn: str, pid: int) -> None:
    """End a backend as an operator would."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
