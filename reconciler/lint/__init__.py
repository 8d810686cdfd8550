"""Findings about migration files, and our own rules. What SQL does to a busy table is another linter's business.

An error is what a plan would refuse, or a server reject. A warning is what a person should have a look at, and can be
silenced in the file: `-- reconciler: ignore RULE REASON`.
"""

from reconciler.lint.checking import check_catalog, errors
from reconciler.lint.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check_catalog", "errors"]
