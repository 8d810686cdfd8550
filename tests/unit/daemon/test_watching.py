"""What is logged of a step that is watched: news, and not the same every second."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.daemon import watching
from reconciler.daemon.watching import WatchedStep
from reconciler.model import Blocker, StepProgress


class Log:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.messages.append((event, fields))

    warning = info


def begun(log: Log) -> WatchedStep:
    step = WatchedStep(log)
    step.begin({"version": 1})
    return step


def test_progress_is_logged_for_each_phase_and_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(watching, "monotonic", lambda: now)
    log = Log()
    step = begun(log)
    for second in range(25):
        now = 100.0 + second
        step.progressed(StepProgress(phase="scanning", percent=float(second)))
    step.progressed(StepProgress(phase="sorting"))
    step.progressed(None)
    assert [(event, fields["phase"], fields["percent"]) for event, fields in log.messages] == [
        ("step progress", "scanning", 0.0),
        ("step progress", "scanning", 10.0),
        ("step progress", "scanning", 20.0),
        ("step progress", "sorting", None),
    ]
    assert step.progress is None


def test_blockers_are_logged_once_for_each_set_of_them() -> None:
    log = Log()
    step = begun(log)
    for age in range(5):
        step.blocked([Blocker(pid=1, transaction_age=float(age))])
    step.blocked([Blocker(pid=1), Blocker(pid=2)])
    step.blocked([])
    step.waited(6.0)
    step.waited(6.0)
    assert [event for event, _ in log.messages] == ["step blocked", "step blocked", "step no longer blocked"]
    assert log.messages[1][1]["blocked_by"] == ["pid 1", "pid 2"]
    assert step.blockers == ()


def test_another_step_begins_with_nothing() -> None:
    log = Log()
    step = begun(log)
    step.blocked([Blocker(pid=1)])
    step.progressed(StepProgress(phase="scanning"))
    step.begin({"version": 2})
    assert (step.blockers, step.progress) == ((), None)
    step.blocked([Blocker(pid=1)])
    assert [fields["version"] for event, fields in log.messages if event == "step blocked"] == [1, 2]
