"""Findings of `validate` as text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.lint import Finding, Severity
from reconciler.report.text import counted, indented, one_line, printable


def finding_text(finding: Finding) -> str:
    """`file:line:column: severity: message [rule]`, the source line with a caret, and the remedy."""
    lines = [
        f"{printable(str(finding.place))}: {finding.severity}: {one_line(finding.message)} [{finding.rule}]"
    ]
    if finding.excerpt:
        lines.append(indented(printable(finding.excerpt.rstrip("\n")), "    "))
    if finding.remedy:
        lines.append(f"  remedy: {one_line(finding.remedy)}")
    return "\n".join(lines)


def findings_summary(findings: Sequence[Finding], *, manifests: int, migrations: int) -> str:
    """One line: how much was looked at, and what came of it."""
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    looked = f"{counted(manifests, 'manifest')}, {counted(migrations, 'migration file')}"
    return f"{looked}: {counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"


def finding_as_dict(finding: Finding) -> dict[str, Any]:
    """A finding with public keys."""
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "message": finding.message,
        "remedy": finding.remedy,
        "file": finding.place.path,
        "line": finding.place.line,
        "column": finding.place.column,
        "excerpt": finding.excerpt or None,
    }
