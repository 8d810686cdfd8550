from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.backoff import HIGHEST_CEILING, SHORTEST, delay

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("failures", "ceiling"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 180), (8, 180), (10**100, 180)],
)
def test_the_ceiling_doubles_up_to_three_minutes(failures: int, ceiling: float) -> None:
    assert delay(failures, ALMOST_ONE) == pytest.approx(ceiling)
    assert delay(failures, 0.5) == ceiling / 2


def test_it_is_never_at_once() -> None:
    assert delay(1, 0.0) == SHORTEST


@given(st.integers(min_value=1), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_it_stays_in_its_range(failures: int, random: float) -> None:
    assert SHORTEST <= delay(failures, random) <= HIGHEST_CEILING


@pytest.mark.parametrize("failures", [0, -1])
def test_no_failure_has_no_delay(failures: int) -> None:
    with pytest.raises(ValueError, match="no delay"):
        delay(failures, 0.5)


@pytest.mark.parametrize("random", [-0.1, 1.0, float("nan")])
def test_the_random_number_has_its_range(random: float) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        delay(1, random)
