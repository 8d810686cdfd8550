"""What stands against a plan as a whole: other owners, a target nobody knows, the manifest's policy, an old failure."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from reconciler.catalog import Catalog
from reconciler.manifest.values import DestructivePolicy, DownPolicy, OutOfOrderPolicy
from reconciler.model import Claim, Direction, Migration, Place, Problem, Reason, Step
from reconciler.planner.findings import Findings
from reconciler.planner.request import PlanRequest
from reconciler.planner.wording import counted, label, listed

_ALSO_FOUND = "which the search path also finds"
"""How a reading describes a table that stands elsewhere than in our schema."""


def no_access(request: PlanRequest) -> Problem | None:
    """Why this database is none of our business now, or None: then its history need not even be looked at."""
    observation = request.observation
    if request.suspended:
        return Problem(
            reason=Reason.SUSPENDED,
            message="the environment is suspended: nothing runs",
            remedy="remove `suspend: true` from its manifest to resume",
        )
    if observation.foreign_history is not None:
        return foreign_history(observation.foreign_history)
    if observation.claim is not None and observation.claim != request.claim:
        return claimed_by_other(observation.claim, request.claim)
    return None


def foreign_history(found: str) -> Problem:
    """The refusal to work beside the table of another tool that has our table's name.

    Args:
        found: the table, as `Observation.foreign_history` describes it.
    """
    return Problem(
        reason=Reason.FOREIGN_HISTORY,
        message=f"another tool keeps its history where ours belongs: {found}",
        remedy=_clear_of(found),
    )


def _clear_of(found: str) -> str:
    """What to do about another tool's table, which is left as it is."""
    schema = found.partition(".schema_migrations")[0]
    if _ALSO_FOUND in found:
        return (
            f"take the schema {schema} off the search path of this role (`ALTER ROLE ... SET search_path = ...`), or "
            "rename that table: scripts that name schema_migrations would reach the wrong one; history_schema can stay"
        )
    return (
        "set history_schema to a schema of its own for this database; the other tool's table is left as it is"
    )


def _difference(theirs: Claim, mine: Claim) -> str:
    """The likely cause of two claims that differ."""
    if theirs.repository != mine.repository:
        return (
            "was the folder of the repository moved, or its remote `origin` changed? A repository is known by the "
            "address of its origin, and without one by its path"
        )
    if theirs.environment != mine.environment:
        return "was the environment renamed, or do two of them name the same database?"
    return "was the database renamed in the manifest, or do two entries name the same one?"


def claimed_by_other(theirs: Claim, mine: Claim | None) -> Problem:
    """The refusal to touch a database that belongs to `theirs`.

    Args:
        theirs: whom it belongs to.
        mine: for whom it was to be changed; None when only a DSN was given.
    """
    if mine is None:
        return Problem(
            reason=Reason.CLAIMED_BY_OTHER,
            message=f"the database belongs to {theirs}, and this command does not say whom it acts for",
            remedy="run it in that repository, naming the environment by --environment",
        )
    return Problem(
        reason=Reason.CLAIMED_BY_OTHER,
        message=f"the database belongs to {theirs}, and not to {mine}",
        remedy=(
            f"{_difference(theirs, mine)}. Let only one manifest name this database; if it was handed over to this one, "
            f"remove it from the other and then run `reconciler repair --claim --environment {shlex.quote(mine.environment)} "
            f"--database {shlex.quote(mine.database)} --reason ...`"
        ),
    )


def check_files(
    catalog: Catalog, target: int, applied: Collection[int], findings: Findings
) -> frozenset[int]:
    """Refuse files that cannot be read where they matter, and warn of the others.

    Returns:
        The versions that stand refused by this.
    """
    broken: set[int] = set()
    for problem in catalog.problems:
        version = problem.version
        if version is None or version <= target or version in applied:
            findings.refusals.append(problem)
            if version is not None:
                broken.add(version)
        else:
            findings.warnings.append(problem)
    return frozenset(broken)


def check_target(catalog: Catalog, target: int, broken: AbstractSet[int], findings: Findings) -> None:
    """Refuse a target that no file has. A file that cannot be read was named by `check_files`."""
    if target == 0 or target in catalog or target in broken:
        return
    versions = catalog.versions
    if not versions:
        message = f"target_version is {target}, but there are no migrations at all"
        remedy = f"commit the file of migration {target}, or set target_version: 0"
    else:
        index = bisect_left(versions, target)
        near = [catalog.get(version) for version in versions[max(index - 1, 0) : index + 1]]
        named = [f"{migration.version} ({migration.name})" for migration in near if migration is not None]
        which = "the nearest are" if len(named) > 1 else "the newest is" if index else "the oldest is"
        message = f"target_version is {target}, but no migration has this number; {which} {listed(named)}"
        remedy = (
            f"commit the file of migration {target}, or set target_version: {versions[max(index - 1, 0)]}"
        )
    findings.refusals.append(Problem(reason=Reason.TARGET_UNKNOWN, message=message, remedy=remedy))


def check_downs(request: PlanRequest, versions: Sequence[int], findings: Findings) -> None:
    """Refuse to go down where the policy denies it, or further than it allows; warn of an approval that has served.

    Args:
        request: what the plan depends on.
        versions: those to be brought down, newest first.
        findings: where refusals and warnings go.
    """
    policy, target = request.policy, request.target
    approved = policy.approve_down_to
    if approved is not None and not (versions and approved == target):
        findings.warnings.append(
            Problem(
                reason=Reason.MAX_DOWN_STEPS_EXCEEDED,
                message=(
                    f"policy.approve_down_to: {approved} has served; remove it, else it would approve going down to "
                    f"{approved} again"
                ),
                direction=Direction.DOWN,
            )
        )
    if not versions:
        return
    stay = (
        f"set target_version: {versions[0]}" if versions[0] in request.catalog else "correct target_version"
    )
    going = f"going from version {versions[0]} down to {target}"
    if policy.down is DownPolicy.DENY:
        findings.refusals.append(
            Problem(
                reason=Reason.DOWN_DENIED,
                message=f"{going} is not allowed: policy.down is deny",
                remedy=f"{stay}, or set policy.down: allow if going down is meant",
                direction=Direction.DOWN,
            )
        )
    if len(versions) > policy.max_down_steps and policy.approve_down_to != target:
        findings.refusals.append(
            Problem(
                reason=Reason.MAX_DOWN_STEPS_EXCEEDED,
                message=(
                    f"{going} would undo {counted(len(versions), 'migration')}, and policy.max_down_steps is "
                    f"{policy.max_down_steps}"
                ),
                remedy=f"{stay}, or set policy.approve_down_to: {target} if going down that far is meant",
                direction=Direction.DOWN,
            )
        )


def check_order(request: PlanRequest, ups: Sequence[Migration], highest: int, findings: Findings) -> None:
    """Refuse ups that are older than `highest`, the newest version that stays applied, unless the policy lets them in."""
    if request.policy.out_of_order is OutOfOrderPolicy.APPLY:
        return
    for migration in ups:
        if migration.version > highest:
            break
        findings.refusals.append(
            Problem(
                reason=Reason.OUT_OF_ORDER,
                message=(
                    f"{label(migration.version, migration.name)} is not applied, although the newer version {highest} is"
                ),
                remedy=(
                    "give it a number above the newest one, or set policy.out_of_order: apply to let older migrations in"
                ),
                place=Place(migration.path, 1),
                version=migration.version,
                direction=Direction.UP,
            )
        )


def check_data_loss(request: PlanRequest, steps: Sequence[Step], findings: Findings) -> None:
    """Refuse ups that drop data where the policy denies it."""
    if request.policy.destructive is DestructivePolicy.ALLOW:
        return
    for step in steps:
        if step.data_loss:
            findings.refusals.append(
                Problem(
                    reason=Reason.DESTRUCTIVE_CHANGE,
                    message=(
                        f"{label(step.version, step.name)} destroys data, and policy.destructive is deny: "
                        f"{listed(step.data_loss)}"
                    ),
                    remedy=(
                        f"take that out of {step.script.path}, or set policy.destructive: allow if the data may go"
                    ),
                    place=Place(step.script.path, step.script.first_line),
                    version=step.version,
                    direction=step.direction,
                )
            )


def check_last_failure(request: PlanRequest, steps: Sequence[Step], findings: Findings) -> None:
    """Refuse to run again what failed for good, until it, the policy or a person's mind changes."""
    failure = request.observation.last_failure
    if failure is not None and not request.retry and steps and steps[0].key == failure.key:
        findings.refusals.append(failure.problem)
