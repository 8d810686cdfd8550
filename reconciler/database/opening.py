"""Opening the connection of a database whose password may have been changed a moment ago."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reconciler.database.connecting import ConnectionSettings
from reconciler.database.session import Session
from reconciler.model import ProblemError

_REFUSED = "authentication failed"


async def open_session(
    settings: Callable[[], Awaitable[ConnectionSettings]],
) -> tuple[Session, ConnectionSettings]:
    """Connect, with settings that are resolved anew.

    When the server refuses the password, the secret is read once more: if it was changed meanwhile, the new one is tried at once.

    Raises:
        ProblemError: a secret cannot be had, or no connection came about.
    """
    first = await settings()
    try:
        return await Session.open(first), first
    except ProblemError as error:
        if not (error.problem.sqlstate.startswith("28") or _REFUSED in error.problem.message):
            raise
        second = await settings()
        if second.dsn == first.dsn:
            raise
    return await Session.open(second), second
