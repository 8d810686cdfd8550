"""What must hold of a database: at every moment, and once all is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.faults.looking import Look

Shapes = Mapping[int, frozenset[tuple[str, ...]]]
"""What an untroubled run makes of an empty database, by version."""


def broken_at_any_moment(now: Look, shapes: Shapes, before: Look | None = None) -> list[str]:
    """What does not hold although nothing excuses it, not even a process that died a moment ago.

    Args:
        now: a reading.
        shapes: how the database looks at each version.
        before: an earlier reading.
    """
    broken = _journal(now)
    if not now.in_doubt:
        applied = now.applied
        if applied != list(range(1, len(applied) + 1)):
            broken.append(f"the applied versions have a hole: {applied}")
        elif now.shape != shapes[len(applied)]:
            missing, extra = shapes[len(applied)] - now.shape, now.shape - shapes[len(applied)]
            broken.append(
                f"at version {len(applied)} there is something partial: missing {sorted(missing)}, extra {sorted(extra)}"
            )
        broken += _counts(now)
    if before is not None:
        if now.fence < before.fence:
            broken.append(f"the fence fell from {before.fence} to {now.fence}")
        lost = {event["id"] for event in before.events} - {event["id"] for event in now.events}
        if lost:
            broken.append(f"events are gone from the journal: {sorted(map(str, lost))}")
    return broken


def broken_at_the_end(now: Look, shapes: Shapes, target: int) -> list[str]:
    """What does not hold once everything was brought to `target` and nothing runs any more."""
    broken = broken_at_any_moment(now, shapes)
    if now.in_doubt:
        broken.append(f"rows are still in doubt: {now.rows}")
    if now.applied != list(range(1, target + 1)):
        broken.append(f"applied is {now.applied}, and not everything up to {target}")
    if now.locked:
        # its row may still name a holder that died, if nothing was left to do for others; only the advisory lock counts
        broken.append(f"the lock is still held; its row names {now.owner}")
    last = {
        (event["version"]): event["direction"]
        for event in now.events
        if event["event"] == "finished" and event["outcome"] == "success"
    }
    broken += [
        f"version {version} is applied, and the journal's last success says {last.get(version)}"
        for version in now.applied
        if last.get(version) != "up"
    ]
    balance = now.successes()
    for version in {version for version, _ in balance}:
        difference = balance[version, "up"] - balance[version, "down"]
        if difference != (1 if version in now.applied else 0):
            broken.append(
                f"the journal has {balance[version, 'up']} ups and {balance[version, 'down']} downs of version {version}"
            )
    return broken


def _counts(now: Look) -> list[str]:
    """Each statement took effect exactly as often as the journal says that its migration succeeded."""
    expected = now.successes()
    return [
        f"statement {statement} of the {direction} of version {version} took effect {times} times, "
        f"and the journal has {expected[version, direction]} successes"
        for (version, direction, statement), times in sorted(now.runs.items())
        if times != expected[version, direction]
    ]


def _journal(now: Look) -> list[str]:
    broken = []
    started = Counter(event["attempt"] for event in now.events if event["event"] == "started")
    finished = Counter(
        event["attempt"]
        for event in now.events
        if event["event"] == "finished" and event["version"] is not None
    )
    broken += [f"attempt {attempt} started {times} times" for attempt, times in started.items() if times > 1]
    broken += [
        f"attempt {attempt} finished {times} times" for attempt, times in finished.items() if times > 1
    ]
    broken += [
        f"attempt {attempt} finished and never started" for attempt in finished if attempt not in started
    ]
    # the newest may be under way, or was cut off and nobody has taken the lock since
    broken += [
        f"attempt {attempt} has no end, and another began after it"
        for attempt in list(started)[:-1]
        if attempt not in finished
    ]
    fences = [event["fence"] for event in now.events if event["fence"] is not None]
    if fences != sorted(fences):
        broken.append(f"fences do not only grow along the journal: {fences}")
    if fences and fences[-1] > now.fence:
        broken.append(f"the journal's last fence is {fences[-1]}, the lock's {now.fence}")
    return broken
