"""From what a command found to its exit code."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.cli.exits import Exit, worst
from reconciler.model import Plan, Problem
from reconciler.model.encoding import JsonObject

_FINE = frozenset({"in_sync", "suspended"})
_BROKEN = frozenset({"failed", "unreachable"})


def exit_of_problem(problem: Problem) -> Exit:
    """The exit code of a command that was stopped by `problem`."""
    return Exit.OUT_OF_SYNC if problem.reason.is_refusal else Exit.ERROR


def exit_of(plan: Plan | None, problem: Problem | None) -> Exit:
    """The exit code of one database, from what is left to do and what went wrong."""
    if problem is not None:
        return exit_of_problem(problem)
    return Exit.DONE if plan is not None and plan.in_sync else Exit.OUT_OF_SYNC


def exit_of_status(environments: Iterable[JsonObject]) -> Exit:
    """The exit code of environments as `environment_as_dict` writes them."""
    return worst(each for environment in environments for each in _exits(environment))


def _exits(environment: JsonObject) -> Iterable[Exit]:
    if environment.get("problem"):
        yield Exit.ERROR
    for database in environment.get("databases") or ():
        state = database.get("state")
        if state in _BROKEN:
            yield Exit.ERROR
        elif state not in _FINE and (state is not None or database.get("target_version") is not None):
            # a database that only a DSN names has no state as long as nothing failed: nobody says what it should be
            yield Exit.OUT_OF_SYNC
