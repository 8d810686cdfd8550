"""Progress and blockers in words."""

from __future__ import annotations

import pytest

from reconciler.model import Blocker, StepProgress
from reconciler.model.watching import how_to_end


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (StepProgress(phase="initializing"), "initializing"),
        (
            StepProgress(phase="building index: scanning table", percent=41.6, object="public.orders"),
            "building index: scanning table (public.orders), 42 %",
        ),
    ],
)
def test_progress_in_words(progress: StepProgress, text: str) -> None:
    assert str(progress) == text


@pytest.mark.parametrize(
    ("blocker", "text"),
    [
        (Blocker(pid=4711), "pid 4711"),
        (
            Blocker(
                pid=4711,
                user="app",
                application="worker",
                state="idle in transaction",
                transaction_age=200,
                query_id=-5,
                query="SELECT\n  1",
            ),
            'pid 4711 (user app, application "worker", idle in transaction, begun 3 min ago, query id -5, query: SELECT 1)',
        ),
        (Blocker(pid=1, transaction_age=0.2), "pid 1 (begun 0 s ago)"),
        (Blocker(pid=1, transaction_age=7300), "pid 1 (begun 2 h ago)"),
        (Blocker(pid=0, prepared="it's"), 'prepared transaction "it\'s"'),
        (Blocker(pid=0), "a prepared transaction"),
    ],
)
def test_a_blocker_in_words(blocker: Blocker, text: str) -> None:
    assert str(blocker) == text


def test_each_blocker_has_its_end() -> None:
    text = how_to_end([Blocker(pid=1), Blocker(pid=0, prepared="it's"), Blocker(pid=0)])
    assert text == (
        "`SELECT pg_terminate_backend(1)` and `ROLLBACK PREPARED 'it''s'` (or `COMMIT PREPARED`) and "
        "`ROLLBACK PREPARED` of the one in `pg_prepared_xacts`"
    )
