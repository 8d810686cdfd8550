"""The harness itself: a round of it works, and what it is there to see, it sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.faults.__main__ import play
from tests.faults.looking import Look
from tests.faults.promises import broken_at_any_moment, broken_at_the_end
from tests.faults.stage import Stage
from tests.faults.tally import Tally

SHAPES = {0: frozenset[tuple[str, ...]](), 1: frozenset({("relation", "a", "r", "")})}


def event(attempt: str, event: str, outcome: str | None = None, fence: int = 1) -> dict[str, object]:
    return {
        "id": f"{attempt} {event}",
        "attempt": attempt,
        "event": event,
        "outcome": outcome,
        "version": 1,
        "direction": "up",
        "fence": fence,
    }


GOOD = Look(
    rows=((1, "success", "up"),),
    shape=SHAPES[1],
    events=(event("x", "started"), event("x", "finished", "success")),
    fence=1,
    runs=Counter({(1, "up", 0): 1}),
)


def test_a_round_works(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    tally = Tally()
    with Stage(tmp_path / "stage", (18,)) as stage:
        play(stage, tally, "kill-at-statement", 0, 1, tmp_path / "evidence")
    assert tally.broken == []
    assert tally.total > 0
    assert "kill-at-statement" in tally.table()


def test_what_is_in_order_is_not_complained_about() -> None:
    assert broken_at_the_end(GOOD, SHAPES, 1) == []


def test_every_promise_can_be_seen_to_break() -> None:
    twice = replace(GOOD, runs=Counter({(1, "up", 0): 2}))
    partial = replace(GOOD, shape=SHAPES[0])
    untold = replace(GOOD, events=())
    again = replace(GOOD, events=(*GOOD.events, event("x", "finished", "failed")))
    falling = replace(GOOD, events=(event("x", "started", fence=2), *GOOD.events), fence=2)
    doubtful = replace(GOOD, rows=((1, "running", "up"),))
    locked = replace(GOOD, locked=True)
    for bad, word in (
        (twice, "took effect 2 times"),
        (partial, "partial"),
        (untold, "journal"),
        (again, "finished 2 times"),
        (falling, "fences"),
        (doubtful, "doubt"),
        (locked, "still held"),
    ):
        assert any(word in each for each in broken_at_the_end(bad, SHAPES, 1)), word
    for now, before, word in ((GOOD, replace(GOOD, fence=5), "fell"), (untold, GOOD, "gone")):
        assert any(word in each for each in broken_at_any_moment(now, SHAPES, before)), word
