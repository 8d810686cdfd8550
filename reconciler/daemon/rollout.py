"""The order in which the databases of one environment follow each other. Pure bookkeeping: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.manifest import OnFailure, Rollout
from reconciler.model import Problem, Reason


class Standing(StrEnum):
    """Where one database stands in the rollout of what is declared now."""

    UNKNOWN = "unknown"
    """Not looked at since the declaration changed."""
    WAITING = "waiting"
    """Has steps to run and waits for its turn."""
    RUNNING = "running"
    SETTLED = "settled"
    """At its target, or out of reach: nobody waits for it."""
    STALLED = "stalled"
    """Failed or refused for good."""


@dataclass(slots=True)
class EnvironmentRollout:
    """The rollout of one environment.

    Args:
        environment: its name, for messages.
        rollout: how many at a time, and what a failure means.
        order: the databases in the manifest's order.
    """

    environment: str
    rollout: Rollout
    order: Sequence[str]
    standings: dict[str, Standing] = field(default_factory=dict)

    def redeclare(self, rollout: Rollout, order: Sequence[str]) -> None:
        """Something else is declared: what was known of the databases says nothing about it. Running ones go on running."""
        self.rollout = rollout
        self.order = order
        self.standings = {
            name: standing
            for name, standing in self.standings.items()
            if standing is Standing.RUNNING and name in order
        }

    def admit(self, database: str, *, impatient: bool = False) -> Problem | None:
        """May `database` start its steps now? Notes it as running when it may, as waiting when it may not.

        Args:
            database: which.
            impatient: do not wait for earlier ones that have not been looked at: one that cannot be reached must not
                delay the others.

        Returns:
            why it has to wait, or None.
        """
        problem = self._obstacle(database, impatient)
        self.standings[database] = Standing.RUNNING if problem is None else Standing.WAITING
        return problem

    def settle(self, database: str, standing: Standing) -> bool:
        """Note where a database stands after a pass. Returns True when that is news to those that wait."""
        before = self._standing(database)
        self.standings[database] = standing
        return before is not standing

    @property
    def waiting(self) -> list[str]:
        """The databases that wait for their turn."""
        return [name for name, standing in self.standings.items() if standing is Standing.WAITING]

    def _obstacle(self, database: str, impatient: bool) -> Problem | None:
        others = [name for name in self.order if name != database]
        stalled = [name for name in others if self._standing(name) is Standing.STALLED]
        if stalled and self.rollout.on_failure is OnFailure.STOP:
            return Problem(
                reason=Reason.ROLLOUT_STOPPED,
                message=f"the rollout of {self.environment} stopped at database {stalled[0]}",
                remedy=f"mend {stalled[0]} first, or set `rollout.on_failure: continue`",
            )
        running = [name for name in others if self._standing(name) is Standing.RUNNING]
        if len(running) >= self.rollout.max_parallel:
            return _its_turn(running)
        delaying = (Standing.WAITING,) if impatient else (Standing.WAITING, Standing.UNKNOWN)
        ahead = [name for name in self._before(database) if self._standing(name) in delaying]
        if ahead:
            return _its_turn(ahead)
        return None

    def _before(self, database: str) -> list[str]:
        return list(self.order[: list(self.order).index(database)]) if database in self.order else []

    def _standing(self, name: str) -> Standing:
        return self.standings.get(name, Standing.UNKNOWN)


def _its_turn(names: Sequence[str]) -> Problem:
    return Problem(
        reason=Reason.PENDING, message=f"waits for its turn in the rollout, behind {', '.join(names)}"
    )
