"""The base of every error this program raises on purpose.

An error names the thing, the value and the remedy, so that it can be shown to a person as it is. What went wrong with a
migration or a database is a `reconciler.model.Problem`, carried by `reconciler.model.ProblemError`.
"""

from __future__ import annotations


class ReconcilerError(Exception):
    """Something went wrong that a person can act on.

    Args:
        message: what happened, naming the thing and its value; one sentence, no secrets.
        remedy: what to do about it, or an empty string when the message says it all.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class UsageError(ReconcilerError):
    """The command line or the environment asks for something that makes no sense; exit code 2."""
