"""The answers of `plan`, `up` and `down`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.cli.migrating import Result
from reconciler.cli.terminal import on_terminal, write, write_error, write_finding, write_table
from reconciler.model import Problem
from reconciler.model.encoding import JsonObject, plan_as_dict, problem_as_dict, result_as_dict
from reconciler.report.outcomes import outcome_line
from reconciler.report.plans import plan_hooks, plan_notes, plan_script, plan_table, plan_title
from reconciler.report.problems import problem_of_command, problem_text
from reconciler.report.text import printable

_LINES_OF_A_COPY = 10
"""What a terminal shows of its rows."""


def write_plans(results: Sequence[Result], *, script: bool) -> None:
    """Write plans as text.

    Args:
        results: of planning.
        script: the statements, instead of a table of the steps.
    """
    for index, result in enumerate(results):
        if index:
            write("")
        name, plan = result.subject.name, result.plan
        if plan is not None and script and plan.steps:
            for line in plan_script(name, plan, longest_copy=_LINES_OF_A_COPY if on_terminal() else None):
                # a file or a pipe gets the very bytes
                write(printable(line) if on_terminal() else line)
        elif plan is not None:
            write(plan_title(name, plan))
            if plan.steps:
                write_table(plan_table(plan))
            for line in plan_hooks(plan):
                write(f"{name}: {line}")
        if plan is not None:
            for note in plan_notes(plan):
                # statements may go into a file: that gets nothing else
                (write_error if script else write_finding)(f"{name}: {note}")
        if result.problem is not None:
            write_error(f"{name}: {problem_text(result.problem, label=_label(result))}")


def write_results(results: Sequence[Result]) -> None:
    """Write what came of a migration as text. The steps that ran were told while they ran."""
    for result in results:
        name, plan = result.subject.name, result.plan
        if plan is not None or result.applied:
            write(outcome_line(name, result.applied, plan, result.problem))
        if plan is not None and result.problem is None:
            for refusal in plan.refusals:
                write_error(f"{name}: {problem_text(refusal, label='refused')}")
        if plan is not None:
            for warning in plan.warnings:
                write_error(f"{name}: {problem_text(warning, label='warning')}")
        for warning in result.warnings:
            write_error(f"{name}: {problem_text(warning, label='warning')}")
        if result.problem is not None:
            write_error(f"{name}: {problem_text(result.problem, label=_label(result))}")


def write_broken(problems: Sequence[Problem]) -> None:
    """Write why manifests cannot be read."""
    for problem in problems:
        write_error(problem_text(problem))


def plans_as_dict(results: Sequence[Result], broken: Sequence[Problem], *, statements: bool) -> JsonObject:
    """Plans as one JSON document."""
    return {
        "problems": [problem_as_dict(problem) for problem in broken],
        "databases": [
            {
                **_names(result),
                "plan": plan_as_dict(result.plan, statements=statements) if result.plan is not None else None,
                "problem": problem_of_command(result.problem) if result.problem is not None else None,
            }
            for result in results
        ],
    }


def results_as_dict(results: Sequence[Result], broken: Sequence[Problem]) -> JsonObject:
    """What came of a migration as one JSON document."""
    return {
        "problems": [problem_as_dict(problem) for problem in broken],
        "databases": [
            {
                **_names(result),
                **result_as_dict(result.applied, result.plan, result.problem, result.warnings),
                "problem": problem_of_command(result.problem) if result.problem is not None else None,
            }
            for result in results
        ],
    }


def _names(result: Result) -> JsonObject:
    return {"environment": result.subject.environment, "database": result.subject.target.name}


def _label(result: Result) -> str:
    from reconciler.cli.exits import Exit

    return "error" if result.exit is Exit.ERROR else "refused"
