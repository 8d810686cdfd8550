"""Sending a whole step as one message and telling, from what comes back, how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.database.session import Session
from reconciler.model import ProblemError, Script
from reconciler.model.value import value

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


@value(kw_only=True)
class Answer:
    """What became of a message `before; script; after`.

    Args:
        committed: the step's transaction is in force.
        error: the result that carries the error, None when there is none or the connection broke.
        failed_part: `before`, `script` or `after`: where the error arose.
        failed_index: which statement of that part, from 0.
        offset: where in the script's text the server saw the error, in characters from 0; None when it did not say.
        started: the journal's `started` event is in force.
        lost: what the driver said when the connection broke; empty when it did not.
        duration: seconds the committed transaction took, by the server's clock.
    """

    committed: bool
    error: PGresult | None = None
    failed_part: str = ""
    failed_index: int = 0
    offset: int | None = None
    started: bool = False
    lost: str = ""
    duration: float = 0.0


async def run_message(
    session: Session, before: Sequence[str], script: Script, count: int, after: Sequence[str]
) -> Answer:
    """Send `before`, the script and `after` as one message.

    The server parses a message whole before it runs any of it, runs its statements one by one and stops at the first
    error; each statement that ran gives one result. So the count of results tells which statement failed, also for
    errors that carry no position.

    Args:
        session: where to send it.
        before: one statement each: the `started` event in a transaction of four statements, then the step's own BEGIN
            and settings.
        script: the SQL.
        count: how many statements the script has.
        after: one statement each but the last: bookkeeping, `RETURNING` the milliseconds in the third from the end, the
            fence, COMMIT, and the statements that reset the session.
    """
    from reconciler.database.failures import position_of

    prefix = ";\n".join(before) + ";\n"
    message = prefix + script.text + "\n;\n" + ";\n".join(after)
    try:
        results = await session.send(message)
    except ProblemError as error:
        return Answer(committed=False, lost=error.problem.message)
    last = results[-1]
    if not is_error(last):
        reset_count = after[-1].count(";") + 1
        milliseconds = results[-reset_count - 3].get_value(0, 0)
        return Answer(committed=True, started=True, duration=int(milliseconds or b"0") / 1000)
    position = position_of(last)
    offset = None
    if position is not None and 0 <= position - 1 - len(prefix) <= len(script.text):
        offset = position - 1 - len(prefix)
    if not session.alive:
        return Answer(committed=False, error=last, lost="the server closed the connection")
    ran = len(results) - 1
    if ran == 0 and not session.in_transaction:
        # not even the first BEGIN: the message did not parse
        return Answer(committed=False, error=last, failed_part="script", failed_index=-1, offset=offset)
    if not session.in_transaction:
        # only the last part runs outside a transaction block: the step is in force, the session is not fit to go on
        await session.close()
        return Answer(committed=True, started=True)
    started = ran >= _STARTED
    if ran < len(before):
        return Answer(committed=False, error=last, failed_part="before", failed_index=ran, started=started)
    ran -= len(before)
    if ran < count:
        return Answer(
            committed=False,
            error=last,
            failed_part="script",
            failed_index=ran,
            offset=offset,
            started=started,
        )
    return Answer(committed=False, error=last, failed_part="after", failed_index=ran - count, started=started)


_STARTED = 4
"""BEGIN, SET LOCAL, INSERT, COMMIT."""


def is_error(result: PGresult) -> bool:
    """True for the result of a statement that failed."""
    from psycopg.pq import ExecStatus

    return result.status in (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
