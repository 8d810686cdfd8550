"""For every history, catalog, target and policy: a plan reaches the target exactly, or says why it may not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler.catalog import Catalog
from reconciler.manifest import (
    ChangedDownPolicy,
    DestructivePolicy,
    DownPolicy,
    OutOfOrderPolicy,
    Policy,
    Timeouts,
)
from reconciler.model import (
    Direction,
    HistoryRow,
    LastFailure,
    Migration,
    Plan,
    Problem,
    Reason,
    RowStatus,
    Step,
)
from reconciler.planner import PlanRequest, plan, stored_downs_needed
from tests.unit.planner.builders import CLAIM, database, earlier_tool_row, failure, file, row, stopped, stored
from tests.unit.planner.simulator import Simulator

VERSIONS = range(1, 7)
UP = "CREATE TABLE a{0} (id INT);\nCREATE TABLE b{0} (id INT);\nCREATE TABLE c{0} (id INT);"
DOWN = "DROP TABLE c{0};\nDROP TABLE b{0};\nDROP TABLE a{0};"


class Kind:
    """How the file of a version may look now, next to how it looked when it was applied."""

    SAME = "same"
    ALONE = "alone"
    OTHER_UP = "other up"
    OTHER_REST = "other rest"
    COMMENTED = "commented"
    OTHER_DOWN = "other down"
    NO_DOWN = "no down"
    IRREVERSIBLE = "irreversible"
    RENAMED = "renamed"
    DESTRUCTIVE = "destructive"
    MIXED = "mixed"
    UNREADABLE = "unreadable"
    ABSENT = "absent"


KINDS = [value for name, value in vars(Kind).items() if name.isupper()]
HARMLESS = [Kind.SAME] * 8 + [Kind.ALONE] * 4
ROWS = [
    "none",
    "applied",
    "failed",
    "failed 1",
    "failed 2",
    "running",
    "down failed",
    "down failed 1",
    "down running",
    "earlier",
]
CALM = ["none"] * 6 + ["applied"] * 8 + ["failed", "earlier"]


@cache
def made(version: int, kind: str, alone: bool) -> Migration | None:
    up, down, name, header, directives = UP.format(version), DOWN.format(version), "", "", []
    if alone or kind == Kind.ALONE:
        directives.append("no-transaction")
    match kind:
        case Kind.ABSENT | Kind.UNREADABLE:
            return None
        case Kind.OTHER_UP:
            up = up.replace("TABLE a", "TABLE z")
        case Kind.OTHER_REST:
            up = up.replace("TABLE c", "TABLE z")
        case Kind.COMMENTED:
            header = "better words"
        case Kind.OTHER_DOWN:
            down = down.replace("TABLE a", "TABLE IF EXISTS a")
        case Kind.RENAMED:
            name = "renamed"
        case Kind.DESTRUCTIVE:
            up = "DROP TABLE legacy;"
        case Kind.MIXED:
            up, directives = up + "\nCREATE INDEX CONCURRENTLY ON a (id);", []
        case Kind.IRREVERSIBLE:
            directives.append("irreversible")
    without = kind in (Kind.NO_DOWN, Kind.IRREVERSIBLE)
    return file(version, name, up=up, down=None if without else down, header=header, directives=directives)


@cache
def history_row(version: int, kind: str, alone: bool) -> HistoryRow | None:
    """The row of `version`, applied from a file of the kind `same`."""
    migration = made(version, Kind.SAME, alone)
    slow = made(version, Kind.SAME, True)
    assert migration is not None
    assert slow is not None
    match kind.split():
        case ["none"]:
            return None
        case ["applied"]:
            return row(migration, transactional=not alone)
        case ["earlier"]:
            return earlier_tool_row(version)
        case ["failed"]:
            return row(migration, status=RowStatus.FAILED)
        case ["failed", done]:
            return stopped(slow, int(done))
        case ["running"]:
            return stopped(slow, 1, status=RowStatus.RUNNING)
        case ["down", "failed", *done]:
            return stopped(slow, int(done[0]) if done else 0, direction=Direction.DOWN)
        case ["down", "running"]:
            return stopped(slow, 1, direction=Direction.DOWN, status=RowStatus.RUNNING)
    raise AssertionError(kind)


@dataclass(frozen=True)
class Case:
    catalog: Catalog
    rows: tuple[HistoryRow, ...]
    target: int
    policy: Policy

    @property
    def wanted(self) -> set[int]:
        return {version for version in self.catalog.versions if version <= self.target}

    def simulator(self) -> Simulator:
        history = {each.version: each for each in self.rows}
        downs = {}
        for each in self.rows:
            original = made(each.version, Kind.SAME, not each.transactional)
            assert original is not None
            if each.has_down:
                downs[each.version] = stored(original)
        return Simulator(history, downs)

    def request(
        self, simulator: Simulator, *, last_failure: LastFailure | None = None, retry: bool = False
    ) -> PlanRequest:
        asked = PlanRequest(
            catalog=self.catalog,
            observation=database(simulator.rows, last_failure=last_failure),
            target=self.target,
            policy=self.policy,
            timeouts=Timeouts(),
            policy_digest="policy",
            claim=CLAIM,
            stored_downs={},
            retry=retry,
            suspended=False,
        )
        needed = stored_downs_needed(asked)
        return replace(asked, stored_downs={version: simulator.downs[version] for version in needed})

    def plan(self, simulator: Simulator) -> Plan:
        return plan(self.request(simulator))


@st.composite
def cases(draw: st.DrawFn, kinds: list[str], row_kinds: list[str]) -> Case:
    migrations, history, problems = [], [], []
    for version in VERSIONS:
        alone = draw(st.booleans())
        kind = draw(st.sampled_from(kinds))
        migration = made(version, kind, alone)
        if migration is not None:
            migrations.append(migration)
        elif kind == Kind.UNREADABLE:
            problems.append(
                Problem(
                    reason=Reason.MIGRATION_INVALID,
                    message="no UP section",
                    remedy="add one",
                    version=version,
                )
            )
        applied = history_row(version, draw(st.sampled_from(row_kinds)), alone)
        if applied is not None:
            history.append(applied)
    accepted = {}
    for migration in migrations:
        if draw(st.integers(0, 5)) == 0:
            accepted[migration.version] = (migration.checksum,)
    policy = Policy(
        down=draw(st.sampled_from([DownPolicy.ALLOW, DownPolicy.ALLOW, DownPolicy.DENY])),
        max_down_steps=draw(st.integers(0, 6)),
        approve_down_to=draw(st.one_of(st.none(), st.sampled_from([0, *VERSIONS]))),
        destructive=draw(st.sampled_from(DestructivePolicy)),
        out_of_order=draw(st.sampled_from(OutOfOrderPolicy)),
        changed_down=draw(st.sampled_from(ChangedDownPolicy)),
        accept_checksums=accepted,
    )
    return Case(
        Catalog(migrations, problems), tuple(history), draw(st.sampled_from([0, *VERSIONS, 9])), policy
    )


ANY_CASE = st.one_of(
    cases(KINDS + HARMLESS * 2, ROWS + CALM * 2), cases(HARMLESS, CALM), cases(HARMLESS, ["none", "applied"])
)


def check_reached(case: Case, simulator: Simulator) -> None:
    """The target is reached exactly, and the next look finds nothing to do."""
    assert simulator.applied == case.wanted
    again = case.plan(simulator)
    assert again.in_sync, [str(problem) for problem in again.refusals]
    assert not again.pins


def check_each_statement_once(before: Simulator, steps: tuple[Step, ...], after: Simulator) -> None:
    for step in steps:
        already = before.history.get(step.version)
        first = step.first_statement
        assert already is None or not first or already.statements_done == first
        assert after.ran[step.version, step.direction] == [each.text for each in step.statements[first:]]


@settings(max_examples=400, deadline=None)
@given(ANY_CASE)
def test_a_plan_reaches_its_target_exactly_or_refuses(case: Case) -> None:
    simulator = case.simulator()
    planned = case.plan(simulator)
    assert planned == case.plan(simulator)
    if planned.refusals:
        event("refused")
        for problem in planned.refusals:
            assert problem.reason
            assert problem.message
            assert problem.remedy
        assert not planned.runnable
        assert not planned.in_sync
        return
    event("in sync" if planned.in_sync else "runs")
    # what a down left untouched is applied, and settled without a step
    assert planned.in_sync == (simulator.applied.union(planned.untouched) == case.wanted)
    before = simulator.copy()
    simulator.prepare(planned)
    for step in planned.steps:
        simulator.run(step)
    check_reached(case, simulator)
    check_each_statement_once(before, planned.steps, simulator)


@settings(max_examples=500, deadline=None)
@given(ANY_CASE)
def test_downs_come_first_from_the_newest_and_ups_follow_from_the_oldest(case: Case) -> None:
    steps = case.plan(case.simulator()).steps
    downs = [step.version for step in steps if step.direction is Direction.DOWN]
    ups = [step.version for step in steps if step.direction is Direction.UP]
    assert [step.version for step in steps] == downs + ups
    assert downs == sorted(set(downs), reverse=True)
    assert ups == sorted(set(ups))
    assert all(version > case.target for version in downs)
    assert all(version <= case.target for version in ups)


@settings(max_examples=500, deadline=None)
@given(ANY_CASE, st.data())
def test_a_plan_that_stops_anywhere_is_finished_by_the_next_one(case: Case, data: st.DataObject) -> None:
    simulator = case.simulator()
    planned = case.plan(simulator)
    if not planned.runnable or not planned.steps:
        event("nothing to interrupt")
        return
    before = simulator.copy()
    simulator.prepare(planned)
    stop = data.draw(st.integers(0, len(planned.steps) - 1), label="steps that work")
    for step in planned.steps[:stop]:
        simulator.run(step)
    failing = planned.steps[stop]
    done = data.draw(
        st.one_of(st.none(), st.integers(failing.first_statement, len(failing.statements))),
        label="statements done",
    )
    if done is not None:
        simulator.fail(failing, done, cut_off=data.draw(st.booleans(), label="cut off"))

    again = case.plan(simulator)
    assert not again.refusals, [str(problem) for problem in again.refusals]
    assert [step.key for step in again.steps] == [step.key for step in planned.steps[stop:]]
    for step in again.steps:
        simulator.run(step)
    check_reached(case, simulator)
    check_each_statement_once(before, planned.steps, simulator)


@settings(max_examples=400, deadline=None)
@given(ANY_CASE)
def test_a_failure_stands_until_somebody_asks_again(case: Case) -> None:
    simulator = case.simulator()
    planned = case.plan(simulator)
    if not planned.runnable or not planned.steps:
        event("nothing to interrupt")
        return
    failing = planned.steps[0]
    simulator.fail(failing, failing.first_statement)
    stood = failure(failing.key)
    (problem,) = plan(case.request(simulator, last_failure=stood)).refusals
    assert problem.reason is Reason.STATEMENT_FAILED
    assert plan(case.request(simulator, last_failure=stood, retry=True)).runnable


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kinds_of_files_are_what_they_say(version: int) -> None:
    same = made(version, Kind.SAME, False)
    assert same is not None
    for kind in KINDS:
        other = made(version, kind, False)
        assert (other is None) == (kind in (Kind.ABSENT, Kind.UNREADABLE))
        assert other is None or kind == Kind.SAME or other != same
