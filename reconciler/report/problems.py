"""Problems as text: what, where, the line with a caret, and what to do."""

from __future__ import annotations

from reconciler.model.encoding import JsonObject, problem_as_dict
from reconciler.model.problem import Problem
from reconciler.report.text import indented, one_line, printable

_PROMISE = "it is tried again by itself"
"""What only a daemon keeps."""


def problem_text(problem: Problem | JsonObject, *, label: str = "error", lasting: bool = False) -> str:
    """A problem in full.

    Args:
        problem: to be shown; as JSON when it comes from a daemon.
        label: what it is here: `error`, `warning`, `refused`.
        lasting: whoever met it goes on and tries again, as a daemon does and a command does not.
    """
    known = problem_as_dict(problem) if isinstance(problem, Problem) else problem
    marks = [str(known.get("reason") or "unknown reason")]
    if sqlstate := known.get("sqlstate"):
        marks.append(f"SQLSTATE {sqlstate}")
    place = _place(known)
    message = one_line(str(known.get("message") or ""))
    lines = [f"{label}: {place}{message} [{one_line(', '.join(marks))}]"]
    if excerpt := known.get("excerpt"):
        lines.append(indented(printable(str(excerpt).rstrip("\n")), "    "))
    if detail := known.get("detail"):
        lines.append(indented(printable(str(detail).strip()), "  "))
    remedy = str(known.get("remedy") or "")
    if remedy := remedy if lasting else without_promise(remedy):
        lines.append(f"  remedy: {one_line(remedy)}")
    return "\n".join(lines)


def problem_of_command(problem: Problem) -> JsonObject:
    """A problem with public keys, for the answer of a command, which ends and does not try again."""
    known = problem_as_dict(problem)
    return {**known, "remedy": without_promise(str(known["remedy"]))}


def without_promise(remedy: str) -> str:
    """`remedy` without the clause that it is tried again, for a command that ends and does not."""
    return "; ".join(clause for clause in remedy.split("; ") if clause.strip() != _PROMISE)


def error_text(message: str, remedy: str) -> str:
    """An error that is no problem of a database or a file: of the command line, say."""
    lines = [f"error: {printable(message)}"]
    if remedy:
        lines.append(f"  remedy: {printable(remedy)}")
    return "\n".join(lines)


def _place(problem: JsonObject) -> str:
    file, line = problem.get("file"), problem.get("line")
    if not file:
        return ""
    return f"{one_line(str(file))}:{line or 1}:{problem.get('column') or 1}: "
