"""What a history row keeps of a script besides its text."""

from __future__ import annotations

from typing import NamedTuple

from reconciler.model import POSTGRESQL, Migration, ProblemError
from reconciler.planner.memory import analysis_of, token_checksum_of
from reconciler.sqltext import transactional


class ScriptDescription(NamedTuple):
    """What is kept of a migration's up: how it would run, how many statements it has, and the digest of its tokens."""

    transactional: bool
    statements: int
    token_checksum: str


def describe_script(migration: Migration, engine: str = POSTGRESQL) -> ScriptDescription:
    """Describe the up of `migration`, as `engine` would run it. A script that cannot be taken apart is one that nobody can run again, and no obstacle."""
    try:
        analysis = analysis_of(migration.up, engine)
        in_transaction = transactional(migration.directives, analysis)
        statements = len(analysis.statements)
    except ProblemError:
        in_transaction, statements = not migration.directives.no_transaction, 0
    return ScriptDescription(in_transaction, statements, token_checksum_of(migration.up.text))
