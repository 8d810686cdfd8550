"""What came of it all: counts by kind of fault, broken promises with their evidence."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.looking import Look

BEFORE, DURING, AFTER = "before", "during", "after"
MISSED = "missed"
"""The process had ended before its time came; it does not count."""


@dataclass(frozen=True)
class Broken:
    """A promise that was not kept.

    Args:
        kind: of the fault.
        number: of the round.
        what: in words.
        evidence: the folder that holds what was seen.
    """

    kind: str
    number: int
    what: str
    evidence: Path


@dataclass
class Tally:
    """Counts of all rounds; safe to use from several threads."""

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, kind: str, when: str) -> None:
        """Count one fault."""
        with self.lock:
            self.hits[kind, when] += 1

    def count(self, kind: str) -> int:
        """How many faults of a kind have hit so far."""
        with self.lock:
            return sum(self.hits[kind, when] for when in (BEFORE, DURING, AFTER))

    def end_round(self, kind: str, number: int, faults: list[str], evidence: Path) -> None:
        """Count one round and what was broken in it."""
        with self.lock:
            self.rounds[kind] += 1
            self.broken += [Broken(kind, number, what, evidence) for what in faults]

    def not_played(self, kind: str, numbers: Sequence[int], error: Exception, evidence: Path) -> None:
        """Note rounds that broke outside themselves; one that has noted the error itself is not noted twice."""
        with self.lock:
            if not any(each.kind == kind and each.number in numbers for each in self.broken):
                self.broken.append(Broken(kind, numbers[0], f"the harness itself broke: {error!r}", evidence))

    @property
    def total(self) -> int:
        """How many faults have hit so far."""
        with self.lock:
            return sum(times for (_, when), times in self.hits.items() if when != MISSED)

    def table(self) -> str:
        """A line for each kind."""
        failed = Counter(each.kind for each in self.broken)
        lines = [f"{'kind':<22}{'faults':>8}{'before':>8}{'during':>8}{'after':>8}{'rounds':>8}{'broken':>8}"]
        for kind in sorted(self.rounds):
            counts = [self.hits[kind, when] for when in (BEFORE, DURING, AFTER)]
            cells = [sum(counts), *counts, self.rounds[kind], failed[kind]]
            lines.append(f"{kind:<22}" + "".join(f"{cell:>8}" for cell in cells))
        columns = [sum(self.hits[kind, when] for kind in self.rounds) for when in (BEFORE, DURING, AFTER)]
        cells = [sum(columns), *columns, sum(self.rounds.values()), len(self.broken)]
        lines.append(f"{'all':<22}" + "".join(f"{cell:>8}" for cell in cells))
        return "\n".join(lines)


def moment(now: Look, before: Look, target: list[int], *, begun: bool) -> str:
    """When a process was hit: before its first step, during one or between two, or after its last.

    Args:
        now: the database after the fault.
        before: the database before the process was started.
        target: the versions that should be applied in the end.
        begun: a step was sent; a server that crashes forgets the journal's word of it.
    """
    news = {event["id"] for event in now.events} - {event["id"] for event in before.events}
    fresh = [event for event in now.events if event["id"] in news]
    if now.applied == target and not now.in_doubt:
        return AFTER if fresh else BEFORE
    return DURING if begun or any(event["event"] == "started" for event in fresh) else BEFORE


def keep(folder: Path, notes: list[str], last: Look | None) -> None:
    """Write the evidence of a round whose promises were broken."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("\n".join(notes) + "\n")
    if last is not None:
        seen: dict[str, Any] = {
            "history": last.history,
            "journal": last.events,
            "fence": last.fence,
            "owner": last.owner,
            "shape": sorted(last.shape),
            "runs": sorted((*key, times) for key, times in last.runs.items()),
        }
        (folder / "database.json").write_text(json.dumps(seen, indent=1, default=str))
