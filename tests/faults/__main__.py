"""`python -m tests.faults`: strikes migrations until they have been hit often enough, and says whether all promises were kept."""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from tests.faults import crashes, fleets, strikes
from tests.faults.rounds import Round
from tests.faults.scenario import MANY, ROWS, SCENARIOS, STATEMENTS, TRANSACTIONAL, Scenario
from tests.faults.stage import Stage
from tests.faults.tally import Tally


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        scenarios: by turns.
        share: of all faults.
        play: plays one round.
        crash: plays several rounds at once, on a server of their own.
        fleet: plays several rounds at once, with one daemon whose repository is in a folder to be made.
    """

    scenarios: tuple[Scenario, ...]
    share: float
    play: Callable[[Round], None] | None = None
    crash: Callable[[Sequence[Round]], None] | None = None
    fleet: Callable[[Sequence[Round], Path], None] | None = None


_BOTH = (TRANSACTIONAL, STATEMENTS)
_ALL = (*_BOTH, MANY, ROWS)
_STOPS = (*_BOTH, ROWS)
KINDS = {
    "kill-at-statement": Kind(_STOPS, 0.3, play=strikes.at_gates),
    "kill-at-moment": Kind(_ALL, 0.15, play=strikes.at_moments),
    "kill-at-message": Kind(_ALL, 0.15, play=strikes.at_messages),
    "kill-daemon": Kind(_ALL, 0.12, fleet=fleets.daemon_killed),
    "kill-server": Kind(_ALL, 0.08, crash=crashes.server_killed),
    "kill-backend": Kind(_ALL, 0.05, crash=crashes.backend_killed),
    "cut": Kind(_ALL, 0.08, play=strikes.cuts),
    "cut-at-commit": Kind(_STOPS, 0.08, play=strikes.cuts_at_commit),
    "kill-in-rows": Kind((ROWS,), 0.03, play=strikes.kills_in_rows),
    "cut-in-rows": Kind((ROWS,), 0.05, play=strikes.cuts_in_rows),
    "crash-in-rows": Kind((ROWS,), 0.03, crash=crashes.server_killed_in_rows),
    "cut-daemon": Kind(_ALL, 0.04, fleet=fleets.daemon_cut_off),
    "delay": Kind(_BOTH, 0.03, play=strikes.delays),
}
_TOGETHER = 3
"""Databases that a daemon or a server to be crashed has."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="how many faults must hit (default 300)")
    parser.add_argument(
        "--seed", type=int, default=None, help="makes the same rounds again; default: a new one"
    )
    parser.add_argument("--only", action="append", choices=list(KINDS), metavar="NAME", help=", ".join(KINDS))
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only these migrations")
    parser.add_argument("--round", type=int, default=None, help="play this one round of --only")
    parser.add_argument("--jobs", type=int, default=3, help="databases in flight (default 3)")
    parser.add_argument("--evidence", type=Path, default=None, help="where to keep what broke")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1_000_000)
    evidence = arguments.evidence or Path(tempfile.gettempdir()) / f"reconciler-faults-{seed}"
    names = arguments.only or list(KINDS)
    for name in list(KINDS) if arguments.scenario else ():
        chosen = tuple(each for each in KINDS[name].scenarios if each.name in arguments.scenario)
        KINDS[name] = replace(KINDS[name], scenarios=chosen or (SCENARIOS[arguments.scenario[0]],))
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="reconciler-faults-") as folder:
        # servers run under another account when we are root
        Path(folder).chmod(0o755)
        with Stage(Path(folder)) as stage:
            print(f"seed {seed}; {stage.versions}; {arguments.jobs} databases in flight", flush=True)
            began = monotonic()
            if arguments.round is not None:
                for name in names:
                    play(stage, tally, name, arguments.round, seed, evidence)
            else:
                play_all(stage, tally, names, arguments.kills, seed, evidence, arguments.jobs)
            seconds = monotonic() - began
    print(tally.table())
    print(
        f"{tally.total} faults in {seconds:.0f} s ({tally.total / seconds:.1f} a second), {len(tally.broken)} promises broken"
    )
    chosen_scenarios = "".join(f" --scenario {name}" for name in arguments.scenario or ())
    for broken in tally.broken:
        print(f"BROKEN {broken.kind} round {broken.number}: {broken.what}")
        print(f"  evidence: {broken.evidence}")
        print(
            f"  again:    python -m tests.faults --seed {seed}{chosen_scenarios} --only {broken.kind} --round {broken.number}"
        )
    return 1 if tally.broken else 0


def play_all(
    stage: Stage, tally: Tally, names: list[str], faults: int, seed: int, evidence: Path, jobs: int
) -> None:
    """Play rounds of all kinds, several at a time, until each kind has had its share."""
    shares = sum(KINDS[name].share for name in names)
    wanted = {name: max(1, round(faults * KINDS[name].share / shares)) for name in names}
    wanted[names[0]] += max(0, faults - sum(wanted.values()))
    choosing = threading.Lock()
    source = _dealt(tally, wanted)

    def work() -> None:
        while True:
            with choosing:
                following = next(source, None)
            if following is None:
                return
            play(stage, tally, *following, seed, evidence)

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(work) for _ in range(jobs)]:
            future.result()


def _dealt(tally: Tally, wanted: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Kinds and numbers of rounds, always of the kind that is furthest behind."""
    numbers = {name: itertools.count() for name in wanted}
    while True:
        name = min(wanted, key=lambda each: tally.count(each) / wanted[each])
        if tally.count(name) >= wanted[name]:
            return
        number = next(numbers[name])
        yield name, number if KINDS[name].play else number * _TOGETHER


def play(stage: Stage, tally: Tally, name: str, number: int, seed: int, evidence: Path) -> None:
    """Play one round, or several that belong together."""
    kind = KINDS[name]
    scenario = kind.scenarios[number % len(kind.scenarios)]
    together = 1 if kind.play else _TOGETHER
    first = number // together * together
    try:
        with ExitStack() as stack:
            server = stack.enter_context(stage.own_server(number)) if kind.crash else stage.server(number)
            rounds = [
                stack.enter_context(
                    Round(stage, tally, name, first + index, seed, scenario, evidence, server)
                )
                for index in range(together)
            ]
            if kind.play is not None:
                kind.play(rounds[0])
            elif kind.crash is not None:
                kind.crash(rounds)
            elif kind.fleet is not None:
                kind.fleet(rounds, stage.folder / f"{name}-{number}")
    except Exception as error:  # noqa: BLE001 -- one round that breaks is a finding, and the others go on
        print(f"{name} round {number}: {error!r}", file=sys.stderr, flush=True)
        folder = evidence / f"{name}-{first}"
        tally.not_played(name, range(first, first + together), error, folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    sys.exit(main())
