"""Deciding what to do: a catalog, an observed history and a target in; ordered steps or the reasons against them out.

`plan()` is pure: equal requests give equal plans, so a plan can be printed, tested, executed and made again under the
lock. Every file that a plan would run is analysed before the plan is handed out.
"""

from reconciler.planner.description import describe_script
from reconciler.planner.doubt import objects_needed
from reconciler.planner.downs import stored_downs_needed
from reconciler.planner.guards import claimed_by_other, foreign_history
from reconciler.planner.identity import is_another_migration
from reconciler.planner.memory import is_heavy
from reconciler.planner.planning import plan
from reconciler.planner.request import PlanRequest

__all__ = [
    "PlanRequest",
    "claimed_by_other",
    "describe_script",
    "foreign_history",
    "is_another_migration",
    "is_heavy",
    "objects_needed",
    "plan",
    "stored_downs_needed",
]
