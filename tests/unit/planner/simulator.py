"""A database that runs steps without a server: what it was told to do, and what it wrote down about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.model import Direction, HistoryRow, Pin, Plan, RowStatus, Step, StoredDown
from reconciler.sqltext import statements_digest
from tests.unit.planner.builders import row, stored


@dataclass
class Simulator:
    """Keeps history as the real adapters do, and beside it every statement it ran since it was made."""

    history: dict[int, HistoryRow]
    downs: dict[int, StoredDown]
    ran: dict[tuple[int, Direction], list[str]] = field(default_factory=dict)

    def copy(self) -> Simulator:
        return Simulator(
            dict(self.history), dict(self.downs), {key: list(value) for key, value in self.ran.items()}
        )

    @property
    def rows(self) -> list[HistoryRow]:
        return [self.history[version] for version in sorted(self.history)]

    @property
    def applied(self) -> set[int]:
        return {version for version, each in self.history.items() if each.status is RowStatus.SUCCESS}

    def pin(self, pins: Sequence[Pin]) -> None:
        for pin in pins:
            self.history[pin.version] = row(pin.migration)
            if pin.migration.down is not None:
                self.downs[pin.version] = stored(pin.migration)

    def prepare(self, plan: Plan) -> None:
        """Write down what a plan settles before its steps run."""
        self.pin(plan.pins)
        for version in plan.untouched:
            self.history[version] = self.history[version]._replace(
                status=RowStatus.SUCCESS, direction=Direction.UP
            )

    def run(self, step: Step) -> None:
        """The step works."""
        self._execute(step, len(step.statements))
        if step.direction is Direction.DOWN:
            del self.history[step.version]
            self.downs.pop(step.version, None)
            return
        assert step.migration is not None
        self.history[step.version] = row(
            step.migration, transactional=step.transactional, token_checksum=step.token_checksum
        )
        if step.migration.down is not None:
            self.downs[step.version] = stored(step.migration)

    def fail(self, step: Step, done: int, *, cut_off: bool = False) -> None:
        """The step fails after `done` statements of its script; inside a transaction nothing is left of it.

        Args:
            step: which one.
            done: how many of its statements are in force.
            cut_off: it does not fail but is cut off, with no word of its end.
        """
        if not step.transactional:
            self._execute(step, done)
            self._record_failure(step, done, RowStatus.RUNNING if cut_off else RowStatus.FAILED)
        elif step.direction is Direction.UP and not cut_off:
            self._record_failure(step, 0, RowStatus.FAILED)

    def _execute(self, step: Step, until: int) -> None:
        done = self.ran.setdefault((step.version, step.direction), [])
        done += [statement.text for statement in step.statements[step.first_statement : until]]

    def _record_failure(self, step: Step, done: int, status: RowStatus) -> None:
        old = self.history.get(step.version)
        if old is None:
            assert step.migration is not None
            old = row(step.migration)
            if step.migration.down is not None:
                self.downs[step.version] = stored(step.migration)
        self.history[step.version] = old._replace(
            status=status,
            direction=step.direction,
            transactional=step.transactional,
            statements_done=done,
            statements_total=len(step.statements),
            statements_digest=statements_digest(step.statements, done),
        )
