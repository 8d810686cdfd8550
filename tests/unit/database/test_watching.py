"""What the server counts, as phase and percent."""

from __future__ import annotations

import pytest

from reconciler.database.watching import blocker_of, progress_of
from reconciler.model import Blocker, StepProgress


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            ("building index: scanning table", "public.a", 25, 100, 0, 0, 0, 0),
            StepProgress(phase="building index: scanning table", percent=25.0, object="public.a"),
        ),
        (
            # the counter of blocks still stands at the end of the phase before
            ("building index: loading tuples in tree", "public.a", 100, 100, 1, 3, 0, 0),
            StepProgress(phase="building index: loading tuples in tree", percent=33.3, object="public.a"),
        ),
        (
            ("building index: sorting live tuples", None, 100, 100, 0, 3, 0, 0),
            StepProgress(phase="building index: sorting live tuples"),
        ),
        (
            ("waiting for writers before validation", "public.a", 100, 100, 3, 3, 0, 0),
            StepProgress(phase="waiting for writers before validation", object="public.a"),
        ),
        (
            ("building index: scanning table", "public.a", 1, 4, 0, 0, 2, 12),
            StepProgress(
                phase="building index: scanning table (part 3 of 12)", percent=25.0, object="public.a"
            ),
        ),
        # the first block of a table, or the last
        (("building index: scanning table", "a", 84, 84, 0, 0, 0, 0), StepProgress(phase="building index: scanning table", object="a")),
        # a table that grows while it is read; an empty one; data whose size nobody knows
        (("vacuum: scanning heap", "a", 7, 5, None, None, None, None), StepProgress(phase="vacuum: scanning heap", percent=100.0, object="a")),
        (("vacuum: scanning heap", "a", 0, 0, None, None, None, None), StepProgress(phase="vacuum: scanning heap", object="a")),
        (("copy from", "a", 1000, 0, None, None, None, None), StepProgress(phase="copy from", object="a")),
    ],
)  # fmt: skip
def test_a_row_as_progress(row: tuple[object, ...], expected: StepProgress) -> None:
    assert progress_of(row) == expected


def test_what_the_server_keeps_from_us_is_empty() -> None:
    assert blocker_of((7, "app", None, None, None, None, None, None, None)) == Blocker(pid=7, user="app")
    assert blocker_of((7, "", "", "active", -0.1, 0, "", None, 1.0)) == Blocker(
        pid=7, state="active", transaction_age=0.0
    )
