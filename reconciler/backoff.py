"""How long to wait before something that failed is tried again."""

from __future__ import annotations

FIRST_CEILING = 5.0
"""Seconds: the longest wait after the first failure."""
HIGHEST_CEILING = 180.0
"""Seconds: the longest wait of all."""
SHORTEST = 0.5
"""Seconds: jitter may come near zero, and a database that is down gains nothing from being asked at once."""

_DOUBLINGS = 10
"""After so many the ceiling is reached in any case; the exponent stays small whatever the count of failures."""


def delay(failures: int, random: float) -> float:
    """Seconds to wait: anything up to a ceiling that doubles from 5 s to 3 min ("full jitter").

    Drawing from the whole range, and not from around the ceiling, keeps many databases that failed together from coming
    back together.

    Args:
        failures: how many attempts in a row have failed, at least 1.
        random: a random number of at least 0 and less than 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if failures < 1:
        raise ValueError(f"there is no delay after {failures} failures")
    if not 0 <= random < 1:
        raise ValueError(f"{random} is not at least 0 and less than 1")
    ceiling = min(HIGHEST_CEILING, FIRST_CEILING * 2.0 ** min(failures - 1, _DOUBLINGS))
    return max(SHORTEST, ceiling * random)
