"""A daemon that looks after several databases is killed, or loses its connections and recovers by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.daemon import Daemon
from tests.faults.promises import broken_at_the_end
from tests.faults.proxy import TO_CLIENT, TO_SERVER, Harm
from tests.faults.rounds import PATIENCE, Round
from tests.faults.scenario import Scenario
from tests.faults.stage import ORIGIN, through
from tests.git import Repository

_STRIKES = 3
"""Faults on the way up, and as many on the way down."""
_WORK_PATIENCE = 5.0
"""Seconds in which a daemon begins what it has to do, unless nothing is left."""


def daemon_killed(rounds: Sequence[Round], folder: Path) -> None:
    """SIGKILL at a random moment after a commit, or after its own start; each time it is started again."""
    with Fleet(rounds, folder) as fleet:
        for direction in ("up", "down"):
            fleet.declare(direction)
            for _ in range(_STRIKES):
                if not fleet.wait_for_work():
                    break
                running = fleet.daemon.running
                fleet.daemon.kill()
                fleet.strike(running, "daemon killed")
                fleet.daemon.start(wait=False)
            fleet.daemon.kill()
            fleet.daemon.start()
            fleet.settle()


def daemon_cut_off(rounds: Sequence[Round], folder: Path) -> None:
    """Every database's connection ends at a message of its own; the daemon goes on by itself."""
    with Fleet(rounds, folder) as fleet:
        for direction in ("up", "down"):
            harms = [_cut(this) for this in rounds]
            fleet.declare(direction)
            fleet.settle(struck=harms)


def _cut(this: Round) -> Harm:
    way = this.random.choice([TO_SERVER, TO_CLIENT])
    number = this.random.randrange(1, 15 if way == TO_SERVER else 120)
    harm = Harm(
        lambda frame: frame.way == way and frame.number == number, portion=this.random.choice([0.0, 0.5, 1.0])
    )
    this.proxy.arm(harm)
    return harm


class Fleet:
    """A daemon with one environment of several databases, each the one of a round.

    Args:
        rounds: entered already, all of one scenario.
        folder: a folder that does not exist yet.
    """

    def __init__(self, rounds: Sequence[Round], folder: Path) -> None:
        self._rounds = rounds
        self.first = rounds[0]
        self._scenario: Scenario = self.first.scenario
        self._repository = Repository(folder)
        self._repository.run("remote", "add", "origin", ORIGIN)
        files: dict[str, str | bytes | None] = {
            f"migrations/{name}": text for name, text in self._scenario.files.items()
        }
        files["manifests/dev.yaml"] = self._manifest(0)
        self._repository.commit("Begin", files)
        self.daemon = Daemon(self._repository)

    def __enter__(self) -> Fleet:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon.running:
            self.daemon.kill()

    def declare(self, direction: str) -> None:
        """Commit another target."""
        for this in self._rounds:
            this.direction = direction
        self._repository.commit(f"Go {direction}", {"manifests/dev.yaml": self._manifest(self.first.target)})

    def wait_for_work(self) -> bool:
        """Wait until the daemon asks for the lock of a database, and a random moment longer. False when all is done."""
        asked = threading.Event()
        due = [this for this in self._rounds if not this.done]
        for this in due:
            this.proxy.arm(
                Harm(
                    lambda frame: frame.way == TO_SERVER and b"pg_try_advisory_lock" in frame.data,
                    cut=False,
                    act=asked.set,
                )
            )
        if due:
            asked.wait(_WORK_PATIENCE)
            time.sleep(self.first.random.uniform(0, 0.12))
        return bool(due)

    def strike(self, hit: bool, note: str) -> None:
        """Count a fault that hit all databases, and hold the daemon to what it has announced."""
        announced = self.daemon.events("step finished")
        for this in self._rounds:
            this.proxy.arm(None)
            this.count(hit and not this.done, note)
            assert this.last is not None
            kept = this.last.successes()
            this.faults += [
                f"the {event['direction']} of version {event['version']} was announced and is lost"
                for event in announced
                if event["database"] == this.name and not kept[event["version"], event["direction"]]
            ]

    def settle(self, struck: Sequence[Harm] = ()) -> None:
        """Wait until the daemon has brought all databases there, and check what must hold then.

        Args:
            struck: what lies in wait for each database meanwhile; counted if it came to that.
        """
        for index, this in enumerate(self._rounds):
            deadline = time.monotonic() + PATIENCE
            try:
                self.daemon.wait_ready("dev", this.target, this.name, timeout=PATIENCE)
            except AssertionError as error:
                this.faults.append(f"the daemon did not bring it to {this.target}: {error}")
                this.notes.append(self.daemon.text)
            if struck:
                hit = struck[index].done.is_set()
                this.proxy.arm(None)
                this.count(hit, "daemon cut off")
            # the lock is given back after the last word about the last step
            while this.check("settled").locked and time.monotonic() < deadline:
                time.sleep(0.05)
            assert this.last is not None
            this.faults += broken_at_the_end(this.last, this.shapes, this.target)

    def _manifest(self, target: int) -> str:
        databases = "".join(
            f"  {this.name}:\n    dsn: {through(this.proxy, this.name)}\n" for this in self._rounds
        )
        return (
            f"target_version: {target}\npolicy: {{max_down_steps: 100}}\ntimeouts: {{lock_timeout: 20s}}\n"
            f"rollout: {{max_parallel: {len(self._rounds)}, on_failure: continue}}\ndatabases:\n{databases}"
        )
