"""Where every database stands, as text. Made from the JSON of `reconciler.model.encoding`, whichever process wrote that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from reconciler.model.encoding import JsonObject
from reconciler.report.problems import problem_text
from reconciler.report.table import Table
from reconciler.report.text import UNKNOWN, one_line, since

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


def status_table(environments: Sequence[JsonObject], now: datetime) -> Table:
    """One line a database, and one for an environment that has none because its manifest cannot be read.

    Args:
        environments: as `environment_as_dict` writes them.
        now: the time, UTC, to say how long ago something was.
    """
    rows = [row for environment in environments for row in _rows(environment, now)]
    return Table(_HEADERS, rows, frozenset({"TARGET", "CURRENT"}), _STYLES)


def status_details(environments: Sequence[JsonObject], *, warnings: bool) -> Iterator[str]:
    """What stands against each database, in full.

    Args:
        environments: as `environment_as_dict` writes them.
        warnings: also what a plan warns of.
    """
    for environment in environments:
        name = _name(environment.get("environment"))
        if problem := environment.get("problem"):
            yield f"{name}: {problem_text(problem)}"
        for database in environment.get("databases") or ():
            yield from _details(database, warnings=warnings)


def _details(database: JsonObject, *, warnings: bool) -> Iterator[str]:
    name = database_name(database.get("environment"), database.get("database"))
    if running := database.get("running"):
        yield f"{name}: running {_step(running)} since {_since(running.get('since'))}"
    if holder := database.get("lock_holder"):
        yield f"{name}: the lock is held by {one_line(str(holder.get('owner')))}{_held_since(holder.get('since'))}"
    problem = database.get("problem")
    problems = database.get("problems") or ([problem] if problem else [])
    for each in problems:
        yield f"{name}: {problem_text(each)}"
    if retry_at := database.get("next_retry_at"):
        yield f"{name}: it is tried again at {_since(retry_at)}"
    if warnings:
        for each in database.get("warnings") or ():
            yield f"{name}: {problem_text(each, label='warning')}"


def database_name(environment: object, database: object) -> str:
    """`production/orders`; the environment alone when its database has the same name."""
    names = [one_line(str(each)) for each in (environment, database) if each]
    return "/".join(dict.fromkeys(names)) or UNKNOWN


def _rows(environment: JsonObject, now: datetime) -> Iterator[tuple[str, ...]]:
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
            _pending(database.get("pending") or ())
            if database.get("current_version") is not None
            else UNKNOWN,
            since(_instant(database.get("since")), now),
        )


def _pending(steps: Sequence[JsonObject]) -> str:
    counts = {
        direction: sum(step.get("direction") == direction for step in steps) for direction in ("down", "up")
    }
    return ", ".join(f"{count} {direction}" for direction, count in counts.items() if count) or "0"


def _step(step: JsonObject) -> str:
    return one_line(f"{step.get('direction')} {step.get('version')} {step.get('name')}")


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
