"""What CockroachDB says beside its answers: which jobs it made of a statement, and what it committed without being asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reconciler.model import Problem, Reason

if TYPE_CHECKING:
    import psycopg

_COMMITTED_UNASKED = "auto-committing transaction before processing DDL"
_WAITING = re.compile(r"waiting for job\(s\) to complete: ([0-9, ]+)")


class Notices:
    """The notices of one connection.

    Attributes: `jobs` are the numbers of those that were made of what was sent last, `committed_unasked` is what the server said
    when it committed a transaction that was still open since a change of the schema followed; empty while it did not.
    """

    def __init__(self) -> None:
        self.jobs: tuple[str, ...] = ()
        self.committed_unasked = ""

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note what is of interest in one."""
        told = notice.message_primary or ""
        if told.startswith(_COMMITTED_UNASKED):
            self.committed_unasked = told
        elif waiting := _WAITING.search(told):
            self.jobs += tuple(waiting[1].replace(",", " ").split())

    @property
    def unasked_commit(self) -> Problem | None:
        """The problem of such a commit: nobody knows then what is in force with what, so nothing more is run."""
        if not self.committed_unasked:
            return None
        return Problem(
            reason=Reason.INTERNAL_ERROR,
            message=f"the server committed a transaction that was still open: {self.committed_unasked}",
            remedy="please report this as an error of reconciler; look at what is in force before anything is run again",
        )


def with_jobs(message: str, jobs: tuple[str, ...]) -> str:
    """`message` of a connection that was lost, with the jobs that go on without it."""
    if not jobs:
        return message
    one = len(jobs) == 1
    which = f"its job {jobs[0]} goes on" if one else f"its jobs {', '.join(jobs)} go on"
    return f"{message}; {which}"
