"""Making steps: each script is analysed, timed and filed under its key before anything runs."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model import (
    AttemptKey,
    Direction,
    Directives,
    HistoryRow,
    Migration,
    Problem,
    ProblemError,
    RowStatus,
    Script,
    ScriptSource,
    Step,
)
from reconciler.planner.doubt import Reached, first_statement
from reconciler.planner.downs import ChosenScript
from reconciler.planner.findings import Findings
from reconciler.planner.memory import analysis_of, token_checksum_of
from reconciler.planner.pooling import refused_behind_a_pooler
from reconciler.planner.request import PlanRequest
from reconciler.sqltext import digest, transactional

_FROM_THE_START = Reached(0)


def up_step(
    request: PlanRequest, migration: Migration, row: HistoryRow | None, findings: Findings
) -> Step | None:
    """The step that brings `migration` up, or None when `findings` says why it cannot run.

    Args:
        request: what the plan depends on.
        migration: the file.
        row: a failed attempt at it, None when there was none.
        findings: where refusals go.
    """
    chosen = ChosenScript(migration.up, ScriptSource.CHECKOUT, migration.directives)
    return _step(request, migration.version, migration.name, Direction.UP, chosen, migration, row, findings)


def down_step(
    request: PlanRequest,
    row: HistoryRow,
    migration: Migration | None,
    chosen: ChosenScript,
    findings: Findings,
) -> Step | None:
    """The step that brings `row` down by `chosen`, or None when `findings` says why it cannot run."""
    return _step(request, row.version, row.name, Direction.DOWN, chosen, migration, row, findings)


def script_digest(script: Script, directives: Directives) -> str:
    """SHA-256 hex over all in a file that decides how an attempt at `script` goes.

    Beside the text that is the way it runs and how long it may take: raising a timeout that was too short re-arms.
    """
    settings = (directives.no_transaction, directives.lock_timeout, directives.statement_timeout)
    return digest(f"{script.text}\0{settings}")


def _step(
    request: PlanRequest,
    version: int,
    name: str,
    direction: Direction,
    chosen: ChosenScript,
    migration: Migration | None,
    row: HistoryRow | None,
    findings: Findings,
) -> Step | None:
    script, source, directives = chosen
    try:
        analysis = analysis_of(script, request.observation.engine)
        in_transaction = transactional(directives, analysis)
    except ProblemError as error:
        findings.refusals.append(replace(error.problem, version=version, direction=direction))
        return None
    # the row of an applied migration tells how its up went, which says nothing of its down
    attempt = row if row is not None and row.status is not RowStatus.SUCCESS else None
    begin = (
        first_statement(attempt, script, analysis, in_transaction, request.objects)
        if attempt is not None
        else _FROM_THE_START
    )
    if isinstance(begin, Problem):
        findings.refusals.append(begin)
        return None
    if request.observation.pooled and not in_transaction:
        left = analysis.statements[begin.done :]
        refused = refused_behind_a_pooler(script, left, sets_role=request.observation.sets_role)
        if refused is not None:
            findings.refusals.append(replace(refused, version=version, direction=direction))
            return None
    timeouts = request.timeouts
    return Step(
        version=version,
        name=name,
        direction=direction,
        script=script,
        source=source,
        statements=analysis.statements,
        transactional=in_transaction,
        first_statement=begin.done,
        leftover=begin.leftover,
        lock_timeout=timeouts.lock_timeout if directives.lock_timeout is None else directives.lock_timeout,
        statement_timeout=(
            timeouts.statement_timeout
            if directives.statement_timeout is None
            else directives.statement_timeout
        ),
        key=AttemptKey(version, direction, script_digest(script, directives), request.policy_digest),
        migration=migration,
        token_checksum=token_checksum_of(script.text) if direction is Direction.UP else "",
        data_loss=analysis.data_loss if direction is Direction.UP else (),
    )
