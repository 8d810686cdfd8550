"""The last good value of secrets whose keeper cannot be reached."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler import backoff
from reconciler.credentials.content import UnreachableError
from reconciler.model import Problem


@dataclass(slots=True)
class _Known:
    value: str
    read_at: float
    trouble: Problem | None = None
    failures: int = 0
    again_at: float = 0.0


class LastGood:
    """What each reference led to when its keeper last answered, for as long as this process lives.

    Args:
        clock: the seconds now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[object, _Known] = {}

    def keep(self, reference: object, value: str) -> None:
        """The keeper answered."""
        self._known[reference] = _Known(value, self._clock())

    def forget(self, reference: object) -> None:
        """The keeper said that there is no such secret for us."""
        self._known.pop(reference, None)

    def while_waiting(self, reference: object) -> str | None:
        """The last good value while the pause since the last attempt lasts; None when it is time to ask."""
        known = self._known.get(reference)
        if known is None or known.trouble is None or self._clock() >= known.again_at:
            return None
        return known.value

    def instead(self, reference: object, error: UnreachableError) -> str:
        """The last good value, since the keeper could not be reached. It is asked again after a pause that grows.

        Raises:
            UnreachableError: there is none.
        """
        known = self._known.get(reference)
        if known is None:
            raise error
        known.failures += 1
        known.again_at = self._clock() + backoff.delay(known.failures, random.random())
        known.trouble = error.problem
        return known.value

    def trouble(self, reference: object) -> Problem | None:
        """Why the last good value is in use; None when it is not."""
        known = self._known.get(reference)
        if known is None or known.trouble is None:
            return None
        return replace(
            known.trouble,
            message=f"{known.trouble.message}; the value that was read before serves on",
            remedy=f"{known.trouble.remedy}; it is asked again by itself",
        )
