"""Measuring two or more ways of doing the same thing against each other on a machine that others use as well.

The ways take turns (A B A B ...), and every ratio is of two measurements of the same turn, so that what slows the machine
down for a while slows both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Measure = Callable[[], float]
"""Does the thing once and returns what it took."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, ours, the floor, their ratio, the limit, and whether it is kept."""

    what: str
    ours: str
    floor: str = ""
    ratio: str = ""
    limit: str = ""
    verdict: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the line."""
        return (self.what, self.ours, self.floor, self.ratio, self.limit, self.verdict)


HEADINGS = Row("What", "Ours", "Floor", "Ratio (range)", "Limit", "")


def take_turns(ways: Mapping[str, Measure], runs: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Measure every way `runs` times, in turns.

    Args:
        ways: by name, in the order of a turn.
        runs: how many turns count.
        warm_up: take one turn before, which does not count.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1 if warm_up else 0, runs):
        for name, measure in ways.items():
            value = measure()
            if turn >= 0:
                found[name].append(value)
    return found


def compared(
    what: str,
    ours: list[float],
    floor: list[float],
    *,
    limit: float | None,
    floor_name: str = "",
    unit: Callable[[float], str] | None = None,
) -> Row:
    """The line for two series of the same turns.

    Args:
        what: was measured.
        ours: our measurements.
        floor: the others, of the same turns.
        limit: the highest ratio that is good; None reports only.
        floor_name: what the floor is, put after its figure.
        unit: renders a figure; seconds by default.
    """
    render = unit or seconds
    ratios = [a / b for a, b in zip(ours, floor, strict=True)]
    middle = median(ratios)
    return Row(
        what,
        render(median(ours)),
        f"{render(median(floor))} {floor_name}".strip(),
        f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        f"{limit:g}" if limit is not None else "",
        _verdict(middle, limit),
    )


def bounded(what: str, ours: list[float], *, limit: float | None, unit: Callable[[float], str]) -> Row:
    """The line for a series that is held against a figure and not against a floor."""
    middle = median(ours)
    shown = unit(middle) if len(ours) == 1 else f"{unit(middle)} ({unit(min(ours))}-{unit(max(ours))})"
    return Row(what, shown, limit=unit(limit) if limit is not None else "", verdict=_verdict(middle, limit))


def seconds(value: float) -> str:
    """A duration, to three digits."""
    if value >= 1:
        return f"{value:.2f} s"
    if value >= 0.001:
        return f"{value * 1000:.{1 if value < 0.1 else 0}f} ms"
    return f"{value * 1_000_000:.0f} us"


def mebibytes(value: float) -> str:
    """An amount of memory, given in bytes."""
    return f"{value / 1024 / 1024:.0f} MiB"


def percent(value: float) -> str:
    """A share, given as a fraction."""
    return f"{value * 100:.2f} %"


def table(rows: list[Row]) -> str:
    """The lines as a Markdown table."""
    lines = [HEADINGS.cells, ("---",) * len(HEADINGS.cells), *(row.cells for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _verdict(value: float, limit: float | None) -> str:
    if limit is None:
        return "reported"
    return "ok" if value <= limit else "**over**"
