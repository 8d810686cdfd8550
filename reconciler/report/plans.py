"""Plans as text: the steps, what stands against them, and the statements as they would be sent."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from reconciler.model.duration import format_duration
from reconciler.model.hooks import HookMoment
from reconciler.model.migration import Statement
from reconciler.model.plan import Plan, Step
from reconciler.redaction import redact
from reconciler.report.problems import problem_text
from reconciler.report.table import Table
from reconciler.report.text import counted, one_line

_LONGEST_COMMAND = 200
_HEADERS = ("STEP", "VERSION", "NAME", "SCRIPT FROM", "TRANSACTION", "STATEMENTS")


def plan_title(name: str, plan: Plan) -> str:
    """One line: from where to where, and in how many steps."""
    if plan.in_sync:
        return f"{name}: in sync at version {plan.target}"
    way = (
        f"from version {plan.current} to {plan.target}"
        if plan.current != plan.target
        else f"at version {plan.target}"
    )
    pins = f", {counted(len(plan.pins), 'row')} of the history to complete" if plan.pins else ""
    refused = "; refused" if plan.refusals else ""
    return f"{name}: {way}, {counted(len(plan.steps), 'step')}{pins}{refused}"


def plan_table(plan: Plan) -> Table:
    """One line a step."""
    rows = [
        (
            step.direction.value,
            str(step.version),
            one_line(step.name),
            step.source.value,
            "yes" if step.transactional else "no",
            _statements(step),
        )
        for step in plan.steps
    ]
    styles = {"down": "yellow", "up": "green"}
    return Table(_HEADERS, rows, frozenset({"VERSION", "STATEMENTS"}), styles, frozenset({"NAME"}))


def plan_hooks(plan: Plan) -> Iterator[str]:
    """One line a hook, in the order of their moments."""
    for moment in HookMoment:
        for hook in plan.hooks.at(moment):
            command = shlex.join(redact(argument) for argument in hook.command)
            limit = f", at most {format_duration(hook.timeout)}" if hook.timeout else ""
            yield f"hook {moment}: {hook.label}{limit}: {_shortened(one_line(command))}"


def plan_notes(plan: Plan) -> Iterator[str]:
    """Data that goes, warnings, and refusals with their remedies."""
    for step in plan.steps:
        for loss in step.data_loss:
            yield f"warning: {_label(step)} {one_line(loss)}: no down brings that data back"
    for warning in plan.warnings:
        yield problem_text(warning, label="warning")
    for refusal in plan.refusals:
        yield problem_text(refusal, label="refused")


def plan_script(name: str, plan: Plan, *, longest_copy: int | None = None) -> Iterator[str]:
    """The statements of a plan, step by step, as they would be sent, in the form that psql reads.

    Args:
        name: of the database.
        plan: to be shown.
        longest_copy: how many lines the rows of one COPY may have. A longer one is shown as a comment with its first lines,
            so that nobody takes it for the whole, and psql does not either. None for no limit.
    """
    yield f"-- {plan_title(name, plan)}; nothing was sent"
    for line in plan_hooks(plan):
        yield f"-- {line}; not run"
    for step in plan.steps:
        yield ""
        yield f"-- {_label(step)}: {one_line(step.script.path)}, from {_SOURCES[step.source.value]}"
        yield (
            f"-- lock_timeout {format_duration(step.lock_timeout)}, "
            f"statement_timeout {format_duration(step.statement_timeout)}"
        )
        yield "-- BEGIN" if step.transactional else "-- no transaction: each statement by itself"
        if step.first_statement:
            yield f"-- {counted(step.first_statement, 'statement')} done by an earlier attempt"
        for statement in step.statements[step.first_statement :]:
            yield from _sent(statement, longest_copy)
        if step.transactional:
            yield "-- COMMIT"


def _sent(statement: Statement, longest_copy: int | None) -> Iterator[str]:
    rows = statement.copy_data
    if rows is None:
        yield f"{statement.text};"
        return
    total = rows.count("\n")
    if longest_copy is None or total <= longest_copy:
        yield f"{statement.text};"
        yield f"{rows}\\."
        return
    first = rows.split("\n", longest_copy)[:longest_copy]
    for line in [*f"{statement.text};".split("\n"), *map(_shortened, first)]:
        yield f"-- {line}"
    yield f"-- and {counted(total - longest_copy, 'more line')}: shown in part here, and whole in a file or a pipe"


_SOURCES = {"checkout": "the checkout", "stored": "the database, as stored when it was applied", "git": "git"}


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"


def _label(step: Step) -> str:
    return f"{step.direction} {step.version} {one_line(step.name)}"


def _statements(step: Step) -> str:
    total = len(step.statements)
    return str(total) if not step.first_statement else f"{total - step.first_statement} of {total}"
