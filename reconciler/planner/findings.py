"""What a planning pass finds: reasons against running, and things a person should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field, replace

from reconciler.model import Problem, Reason
from reconciler.model.value import value

_SHOWN_PER_REASON = 20
"""More findings of one reason are counted, not listed: a reformatted folder would fill the status with thousands."""


@value
class Findings:
    """Refusals and warnings, in the order they were found."""

    refusals: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def condensed(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """`problems` with at most twenty of each reason; the last one kept says how many more there are."""
    if len(problems) <= _SHOWN_PER_REASON:
        return tuple(problems)
    totals = Counter(problem.reason for problem in problems)
    seen: Counter[Reason] = Counter()
    kept: list[Problem] = []
    for problem in problems:
        seen[problem.reason] += 1
        if seen[problem.reason] < _SHOWN_PER_REASON:
            kept.append(problem)
        elif seen[problem.reason] == _SHOWN_PER_REASON:
            more = totals[problem.reason] - _SHOWN_PER_REASON
            kept.append(
                replace(problem, message=f"{problem.message}; and {more} more like this") if more else problem
            )
    return tuple(kept)
