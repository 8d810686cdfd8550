"""Showing a statement whose outcome is not known where it stands, so that a person can judge it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reconciler.model import HistoryRow, Problem, ProblemError, Script
from reconciler.planner.memory import analysis_of
from reconciler.sqltext import excerpt, intent_digest, locate, statements_digest


def pointing_at_doubt(problem: Problem, row: HistoryRow, scripts: Iterable[Script], engine: str) -> Problem:
    """`problem` with the number, and where it can be found the place and the text, of the statement in doubt.

    A row keeps digests only. The statement is shown from a script that still has it, behind all that was done before it.

    Args:
        problem: that the outcome of a statement is not known.
        row: the attempt.
        scripts: what the attempt may have been at.
        engine: the server that ran it.
    """
    index = row.statements_done
    problem = replace(problem, statement_index=index + 1)
    for script in scripts:
        try:
            statements = analysis_of(script, engine).statements
        except ProblemError:
            # a script that cannot be taken apart is refused by a message of its own, and is not what was run
            continue
        if (
            index < len(statements)
            and intent_digest(statements[index]) == row.intent_digest
            and statements_digest(statements, index) == (row.statements_digest or "")
        ):
            offset = statements[index].offset
            return replace(problem, place=locate(script, offset), excerpt=excerpt(script, offset))
    return problem
