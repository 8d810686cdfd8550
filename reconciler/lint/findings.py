"""What a rule finds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from reconciler.model import Place, Script, Statement
from reconciler.sqltext import excerpt, locate


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


class Finding(NamedTuple):
    """One thing found. `rule` is public and kebab-case; `excerpt` is the source line and a caret, or empty."""

    rule: str
    severity: Severity
    message: str
    remedy: str
    place: Place
    excerpt: str = ""


def finding_at(
    rule: str,
    severity: Severity,
    message: str,
    remedy: str,
    script: Script,
    statement: Statement,
    offset: int = 0,
) -> Finding:
    """A finding at the character of `statement` that has this index in it."""
    where = statement.offset + offset
    return Finding(rule, severity, message, remedy, locate(script, where), excerpt(script, where))
