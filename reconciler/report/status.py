"""Where every database stands, as text. Made from the JSON of `reconciler.model.encoding`, whichever process wrote that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from reconciler.model.encoding import JsonObject, blocker_from_dict
from reconciler.model.watching import StepProgress
from reconciler.report.problems import problem_text
from reconciler.report.table import Table
from reconciler.report.text import UNKNOWN, age, one_line, since

_HEADERS = ("ENVIRONMENT", "DATABASE", "STATE", "TARGET", "CURRENT", "PENDING", "SINCE")
_STYLES = {
    "in sync": "green",
    "suspended": "dim",
    "pending": "yellow",
    "migrating": "cyan",
    "waiting": "yellow",
    "blocked": "red",
    "ahead": "red",
    "drifted": "red",
    "failed": "bold red",
    "unreachable": "bold red",
}


def status_table(environments: Sequence[JsonObject], now: datetime, *, ages: bool = False) -> Table:
    """One line a database, and one for an environment that has none because its manifest cannot be read.

    Args:
        environments: as `environment_as_dict` writes them.
        now: the time, UTC, to say how long ago something was.
        ages: say only how long ago, and not at what time: a line of a terminal is short.
    """
    told = age if ages else since
    rows = [row for environment in environments for row in _rows(environment, lambda at: told(at, now))]
    return Table(_HEADERS, rows, frozenset({"TARGET", "CURRENT"}), _STYLES)


def status_details(
    environments: Sequence[JsonObject], *, warnings: bool, lasting: bool = False
) -> Iterator[str]:
    """What stands against each database, in full.

    Args:
        environments: as `environment_as_dict` writes them.
        warnings: also what a plan warns of.
        lasting: a daemon tells this, which tries again by itself.
    """
    for environment in environments:
        name = _name(environment.get("environment"))
        if problem := environment.get("problem"):
            yield f"{name}: {problem_text(problem, lasting=lasting)}{_more(environment.get('problems') or ())}"
        for database in environment.get("databases") or ():
            yield from _details(database, warnings=warnings, lasting=lasting)


def _more(problems: Sequence[JsonObject]) -> str:
    return f"\n  and {len(problems) - 1} more: run `reconciler validate`" if len(problems) > 1 else ""


def _details(database: JsonObject, *, warnings: bool, lasting: bool) -> Iterator[str]:
    name = database_name(database.get("environment"), database.get("database"))
    if running := database.get("running"):
        yield f"{name}: running {_step(running)} since {_since(running.get('since'))}{_phase(running)}"
        for blocker in running.get("blocked_by") or ():
            yield f"{name}: blocked by {one_line(str(blocker_from_dict(blocker)))}"
    if holder := database.get("lock_holder"):
        yield f"{name}: the lock is held by {one_line(str(holder.get('owner')))}{_held_since(holder.get('since'))}"
    problem = database.get("problem")
    problems = database.get("problems") or ([problem] if problem else [])
    for each in problems:
        yield f"{name}: {problem_text(each, lasting=lasting)}"
    if retry_at := database.get("next_retry_at"):
        yield f"{name}: it is tried again at {_since(retry_at)}"
    if warnings:
        for each in database.get("warnings") or ():
            yield f"{name}: {problem_text(each, label='warning')}"


def database_name(environment: object, database: object) -> str:
    """`production/orders`; the environment alone when its database has the same name."""
    names = [one_line(str(each)) for each in (environment, database) if each]
    return "/".join(dict.fromkeys(names)) or UNKNOWN


def _rows(environment: JsonObject, told: Callable[[datetime | None], str]) -> Iterator[tuple[str, ...]]:
    name = _name(environment.get("environment"))
    databases = environment.get("databases") or ()
    if not databases:
        state = "blocked" if environment.get("problem") else UNKNOWN
        yield (name, UNKNOWN, state, _version(environment.get("target_version")), UNKNOWN, UNKNOWN, UNKNOWN)
    for database in databases:
        yield (
            name,
            _name(database.get("database")),
            str(database.get("state") or UNKNOWN).replace("_", " "),
            _version(database.get("target_version")),
            _version(database.get("current_version")),
            _pending(database),
            told(_instant(database.get("since"))),
        )


def _pending(database: JsonObject) -> str:
    steps = database.get("pending") or ()
    # nobody knows what is to be done to a database that does not answer
    if database.get("current_version") is None or (database.get("reachable") is False and not steps):
        return UNKNOWN
    counts = {
        direction: sum(step.get("direction") == direction for step in steps) for direction in ("down", "up")
    }
    return ", ".join(f"{count} {direction}" for direction, count in counts.items() if count) or "0"


def _step(step: JsonObject) -> str:
    return one_line(f"{step.get('direction')} {step.get('version')} {step.get('name')}")


def _phase(running: JsonObject) -> str:
    if not running.get("phase"):
        return ""
    progress = StepProgress(
        phase=str(running["phase"]), percent=running.get("percent"), object=str(running.get("object") or "")
    )
    return f": {one_line(str(progress))}"


def _name(value: object) -> str:
    return one_line(str(value)) if value else UNKNOWN


def _version(value: object) -> str:
    return UNKNOWN if value is None else one_line(str(value))


def _held_since(value: object) -> str:
    return f" since {_since(value)}" if value else ""


def _since(value: object) -> str:
    from reconciler.report.text import instant

    return instant(_instant(value))


def _instant(value: Any) -> datetime | None:
    """What `instant_as_text` wrote; None for anything else."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
