"""The decision itself."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from reconciler.model import HistoryRow, Migration, Plan, RowStatus, Step
from reconciler.planner import guards
from reconciler.planner.doubt import left_behind, unresolvable, untouched
from reconciler.planner.downs import choose_down
from reconciler.planner.findings import Findings, condensed
from reconciler.planner.request import PlanRequest
from reconciler.planner.steps import down_step, up_step
from reconciler.planner.verification import verify

_SUCCESS = RowStatus.SUCCESS
"""Looking a member up in its enum costs as much as the rest of a comparison, and it is made for thousands of rows."""


def plan(request: PlanRequest) -> Plan:
    """Decide what brings a database to its target, or why nothing may run.

    Wanted is that exactly the catalog's versions up to the target are applied. First everything above goes down, newest
    to oldest, then everything missing goes up, oldest to newest. Every reason against running is collected, so that a
    person can see to all of them at once; while there is one, nothing runs.
    """
    catalog, rows, target = request.catalog, request.observation.rows, request.target
    current = request.observation.current_version
    refusal = guards.no_access(request)
    if refusal is not None:
        return Plan(current=current, target=target, refusals=(refusal,))

    findings = Findings()
    unsure = [row for row in rows if row.status is not _SUCCESS]
    applied = {row.version for row in rows}.difference(
        row.version for row in unsure if not row.counts_as_applied
    )
    broken = guards.check_files(catalog, target, applied, findings)
    guards.check_target(catalog, target, broken, findings)
    unbegun = [
        row for row in unsure if untouched(row, target, request.objects, engine=request.observation.engine)
    ]
    unsure = [row for row in unsure if row not in unbegun]
    refused = broken | _refuse_doubts(request, unsure, broken, findings)
    pins = verify(request, broken, frozenset(row.version for row in unbegun), findings)

    leaving = [row for row in reversed(rows) if row.version > target and row.version in applied]
    guards.check_downs(request, [row.version for row in leaving], findings)
    wanted = catalog.migrations[: catalog.ordinal(target)]
    missing = [migration for migration in wanted if migration.version not in applied]
    if missing:
        staying = max((version for version in applied if version <= target), default=0)
        guards.check_order(request, missing, staying, findings)

    downs = _downs(request, [row for row in leaving if row.version not in refused], findings)
    ups = _ups(
        request, [migration for migration in missing if migration.version not in refused], unsure, findings
    )
    guards.check_data_loss(request, ups, findings)
    steps = (*downs, *ups)
    guards.check_last_failure(request, steps, findings)
    unwritable = request.observation.unwritable
    if unwritable is not None and (steps or pins or unbegun):
        findings.refusals.append(unwritable)
    return Plan(
        current=current,
        target=target,
        steps=steps,
        refusals=condensed(findings.refusals),
        warnings=condensed(findings.warnings),
        pins=pins,
        untouched=tuple(row.version for row in unbegun),
    )


def _refuse_doubts(
    request: PlanRequest, unsure: Sequence[HistoryRow], broken: AbstractSet[int], findings: Findings
) -> frozenset[int]:
    """Refuse what only a person can settle, and warn of what was left behind; return the versions that stand refused."""
    refused: set[int] = set()
    for row in unsure:
        left = left_behind(row, request.catalog.get(row.version), request.target, request.objects)
        if left is not None:
            findings.warnings.append(left)
        if row.version in broken:
            continue
        stored = request.stored_downs.get(row.version)
        problem = unresolvable(
            row,
            request.catalog.get(row.version),
            request.target,
            request.objects,
            stored,
            engine=request.observation.engine,
        )
        if problem is not None:
            findings.refusals.append(problem)
            refused.add(row.version)
    return frozenset(refused)


def _downs(request: PlanRequest, rows: Sequence[HistoryRow], findings: Findings) -> list[Step]:
    steps: list[Step] = []
    for row in rows:
        migration = request.catalog.get(row.version)
        stored = request.stored_downs.get(row.version)
        chosen = choose_down(row, migration, stored, request.policy.changed_down, findings)
        step = down_step(request, row, migration, chosen, findings) if chosen is not None else None
        if step is not None:
            steps.append(step)
    return steps


def _ups(
    request: PlanRequest, migrations: Sequence[Migration], unsure: Sequence[HistoryRow], findings: Findings
) -> list[Step]:
    attempts = {row.version: row for row in unsure}
    steps = [
        up_step(request, migration, attempts.get(migration.version), findings) for migration in migrations
    ]
    return [step for step in steps if step is not None]
