"""The harness itself: a round of it works, and what it is there to see, it sees."""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.faults.__main__ import play
from tests.faults.looking import Look
from tests.faults.promises import broken_at_any_moment, broken_at_the_end
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage
from tests.faults.tally import DURING, Tally
from tests.wire import Loop

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


def test_a_round_with_rows_works(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    tally = Tally()
    with Stage(tmp_path / "stage", (18,)) as stage:
        play(stage, tally, "cut-in-rows", 0, 1, tmp_path / "evidence")
    assert tally.broken == []
    assert tally.hits["cut-in-rows", DURING] > 0


def test_a_round_that_cannot_be_played_is_a_finding(tmp_path: Path) -> None:
    tally = Tally()
    with Stage(tmp_path / "stage", ()) as without_servers:
        play(without_servers, tally, "cut-daemon", 4, 1, tmp_path / "evidence")
    (broken,) = tally.broken
    assert (broken.kind, broken.number) == ("cut-daemon", 3)
    assert "ZeroDivisionError" in broken.what
    assert (broken.evidence / "error.txt").exists()


def test_a_proxy_closes_while_its_last_client_leaves(tmp_path: Path) -> None:
    """The server of asyncio counts its connections on the loop's thread alone."""
    with Loop() as loop, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(500)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for attempt in range(1500):
                with Proxy(loop, tmp_path / "s") as proxy:
                    client = socket.create_connection(("127.0.0.1", proxy.port))
                    assert proxy.connected.wait(10)
                    client.close()
                    server.accept()[0].close()
                    time.sleep(attempt % 50 * 16e-6)
        finally:
            sys.setswitchinterval(interval)


def test_what_is_in_order_is_not_complained_about() -> None:
    assert broken_at_the_end(GOOD, SHAPES, 1) == []


def test_every_promise_can_be_seen_to_break() -> None:
    twice = replace(GOOD, runs=Counter({(1, "up", 0): 2}))
    partial = replace(GOOD, shape=SHAPES[0])
    untold = replace(GOOD, events=())
    again = replace(GOOD, events=(*GOOD.events, event("x", "finished", "failed")))
    falling = replace(GOOD, events=(event("x", "started", fence=2), *GOOD.events), fence=2)
    unended = replace(GOOD, events=(event("w", "started"), *GOOD.events))
    doubtful = replace(GOOD, rows=((1, "running", "up"),))
    locked = replace(GOOD, locked=True)
    twice_loaded = replace(GOOD, shape=SHAPES[1] | {("rows", "1", "2", "digest")})
    for bad, word in (
        (twice, "took effect 2 times"),
        (partial, "partial"),
        (untold, "journal"),
        (again, "finished 2 times"),
        (falling, "fences"),
        (unended, "has no end"),
        (doubtful, "doubt"),
        (locked, "still held"),
        (twice_loaded, "partial"),
    ):
        assert any(word in each for each in broken_at_the_end(bad, SHAPES, 1)), word
    for now, before, word in ((GOOD, replace(GOOD, fence=5), "fell"), (untold, GOOD, "gone")):
        assert any(word in each for each in broken_at_any_moment(now, SHAPES, before)), word
