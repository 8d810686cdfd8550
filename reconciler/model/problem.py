"""A problem: one refusal or failure, with all a person needs to act on it."""

from __future__ import annotations

from reconciler.errors import ReconcilerError
from reconciler.model.reasons import Reason
from reconciler.model.value import value


@value
class Place:
    """Where in a file something stands. `line` and `column` count from 1, in characters."""

    path: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@value(kw_only=True)
class Problem:
    """Why something was refused or failed, and what to do about it.

    Args:
        reason: the public name of the cause.
        message: one sentence that names the thing and its value; no secrets.
        remedy: what a person should do; empty when nothing need be done.
        place: the place in a file that the problem is about.
        excerpt: the source line with a caret under the column, two lines of text.
        sqlstate: the five characters of the server's error code.
        detail: the server's DETAIL and HINT, when it gave them.
        version: the migration that the problem is about.
        direction: "up" or "down", when a step failed.
        statement_index: which statement of the script failed, counted from 1.
    """

    reason: Reason
    message: str
    remedy: str = ""
    place: Place | None = None
    excerpt: str = ""
    sqlstate: str = ""
    detail: str = ""
    version: int | None = None
    direction: str = ""
    statement_index: int | None = None

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        code = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.reason}: {where}{self.message}{code}{remedy}"


class ProblemError(ReconcilerError):
    """Carries a `Problem` up to whoever reports it and decides on a retry by `problem.reason.error_class`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message, remedy=problem.remedy)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)
