"""What cannot be done behind a connection pooler that gives each transaction another process of the server."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model import Problem, Reason, Script, Statement
from reconciler.sqltext import excerpt, intent_of, locate
from reconciler.sqltext.classification import controls_transaction, sets_session
from reconciler.sqltext.lexer import tokens


def refused_behind_a_pooler(
    script: Script, statements: Sequence[Statement], *, sets_role: bool
) -> Problem | None:
    """Why a script outside a transaction cannot run: a statement of it needs a session that is its own. None when it can.

    Args:
        script: what would run.
        statements: those of it that would be run.
        sets_role: they are to run as another role than the one that logs in.
    """
    inside = False
    for statement in statements:
        part = list(tokens(statement.text))
        if controls_transaction(part):
            inside = not inside
        elif inside:
            continue
        elif sets_session(part):
            return _refused(
                script,
                statement,
                "changes the session, which behind a connection pooler is another one for the next statement",
                "put it and what depends on it between a BEGIN and a COMMIT of the script's own, or connect without the pooler",
            )
        elif sets_role and intent_of(statement, part) is not None:
            return _refused(
                script,
                statement,
                "cannot be in a transaction, and behind a connection pooler `role` can only be set in one",
                "let the DSN log in as that role and leave `role` out, or connect without the pooler",
            )
    return None


def _refused(script: Script, statement: Statement, why: str, remedy: str) -> Problem:
    return Problem(
        reason=Reason.MIGRATION_INVALID,
        message=f"this statement {why}",
        remedy=remedy,
        place=locate(script, statement.offset),
        excerpt=excerpt(script, statement.offset),
    )
