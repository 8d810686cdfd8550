"""From the events of a journal to what people ask about: each attempt, and each word of a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from reconciler.model.history import JournalEvent
from reconciler.model.value import value

_OF_A_STEP = frozenset({"started", "finished"})


@value(kw_only=True)
class Attempt:
    """An attempt at a migration, or an event that is none: a retry asked for, a refusal, a repair.

    Args:
        began: when; computed from its end where its beginning is not at hand.
        newest: its last event, which has what came of it.
        outcome: `success`, `failed`, `interrupted`, `not_run`, `unfinished` when no end is recorded; of an event that is
            no attempt, what it says.
        took: seconds, None when not recorded.
        went_on: where it began, when an earlier attempt had come half-way; else empty.
    """

    began: datetime
    newest: JournalEvent
    outcome: str
    took: float | None
    went_on: str = ""

    @property
    def is_step(self) -> bool:
        """A migration was run, or was about to be."""
        return self.newest.event in _OF_A_STEP


def attempts_of(events: Sequence[JournalEvent]) -> list[Attempt]:
    """The attempts that `events` tell of, in the order they began.

    Args:
        events: as a journal gives them, oldest first.
    """
    steps: dict[tuple[str, int | None], JournalEvent] = {}
    found: list[Attempt] = []
    for event in events:
        if event.event == "started":
            steps[event.attempt, event.version] = event
        elif event.event == "finished":
            started = steps.pop((event.attempt, event.version), None)
            found.append(_finished(event, started))
        else:
            found.append(_single(event))
    found += [
        Attempt(began=event.at, newest=event, outcome="unfinished", took=None) for event in steps.values()
    ]
    return sorted(found, key=lambda attempt: attempt.began)


def _finished(event: JournalEvent, started: JournalEvent | None) -> Attempt:
    took = _seconds(event)
    began = started.at if started is not None else event.at - timedelta(seconds=took or 0)
    went_on = (started.message or "") if started is not None else ""
    return Attempt(began=began, newest=event, outcome=event.outcome or "unknown", took=took, went_on=went_on)


def _single(event: JournalEvent) -> Attempt:
    return Attempt(began=event.at, newest=event, outcome=event.outcome or "", took=_seconds(event))


def _seconds(event: JournalEvent) -> float | None:
    milliseconds = event.details.get("execution_time_ms")
    return milliseconds / 1000 if isinstance(milliseconds, int) else None
