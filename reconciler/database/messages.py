"""Sending a whole step as one message and telling, from what comes back, how far it came."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reconciler.database.failures import is_error
from reconciler.database.session import Session
from reconciler.model import ProblemError
from reconciler.model.value import value
from reconciler.sqltext import Sendable

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_MAY_RETURN_ROWS = re.compile(
    r"(?:^|;)(?:\s|--.*\n)*(?:SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN|FETCH|CALL|EXECUTE|[(/])|\bRETURNING\b",
    re.IGNORECASE,
)
"""Also true for a statement behind a block comment: it is only a question of how results are read."""


@value(kw_only=True)
class StepMessage:
    """The parts of the message that runs a step; each but `script` and `reset` holds one statement an entry.

    Args:
        started: the transaction of the journal's `started` event; empty when it was written before.
        before: the step's own BEGIN and its settings.
        script: the SQL, and the rows of each COPY in it.
        count: how many statements the script has.
        after: bookkeeping. Its last three are the one that returns the milliseconds, the fence and COMMIT; its first makes
            deferred constraints immediate.
        reset: what makes the session ours again.
        many_rows: the script may return rows.
    """

    started: Sequence[str]
    before: Sequence[str]
    script: Sendable
    count: int
    after: Sequence[str]
    reset: str
    many_rows: bool


@value(kw_only=True)
class Answer:
    """What became of a step's message.

    Args:
        committed: the step's transaction is in force.
        error: the result that carries the error, None when there is none or the connection broke.
        failed_part: `before`, `script`, `deferred` (constraints made immediate), `after`, `fence` or `commit`.
        failed_index: which statement of the script, from 0; -1 when the message did not parse.
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


def may_return_rows(script: str) -> bool:
    """Whether `script` may send us rows, of which nobody knows how many."""
    return _MAY_RETURN_ROWS.search(script) is not None


async def run_message(session: Session, message: StepMessage, meanwhile: Callable[[], None]) -> Answer:
    """Send a step as one message, and call `meanwhile` while the server works on it.

    The server parses a message whole before it runs any of it, runs its statements one by one and stops at the first
    error; each statement that ran gives one result. So the count of results tells which statement failed, also for
    errors that carry no position, and the COMMITs among them tell what is in force.
    """
    from reconciler.database.failures import position_of

    prefix = ";\n".join((*message.started, *message.before)) + ";\n"
    text = prefix + message.script.text + "\n;\n" + ";\n".join((*message.after, message.reset))
    try:
        results = await session.send(
            text, many_rows=message.many_rows, copy_data=message.script.copy_data, meanwhile=meanwhile
        )
    except ProblemError as error:
        return Answer(committed=False, lost=error.problem.message)
    commits = [index for index, result in enumerate(results) if result.command_status == b"COMMIT"]
    started = not message.started or len(commits) > 0
    last = results[-1]
    if len(commits) == (2 if message.started else 1):
        if is_error(last):
            # the step is in force; the session could not be made ours again
            await session.close()
        milliseconds = results[commits[-1] - 2].get_value(0, 0)
        return Answer(committed=True, started=True, duration=int(milliseconds or b"0") / 1000)
    if not session.alive:
        return Answer(committed=False, error=last, started=started, lost="the server closed the connection")
    position = position_of(last)
    offset = None
    if position is not None and 0 <= position - 1 - len(prefix) <= len(message.script.text):
        offset = message.script.original(position - 1 - len(prefix))
    part, index = _where(message, len(results) - 1, in_transaction=session.in_transaction)
    return Answer(
        committed=False,
        error=last,
        failed_part=part,
        failed_index=index,
        offset=offset if part == "script" else None,
        started=started and len(results) > 1,
    )


def _where(message: StepMessage, ran: int, *, in_transaction: bool) -> tuple[str, int]:
    """Which part failed, when `ran` statements had succeeded before, and which statement of the script."""
    if ran == 0 and not in_transaction:
        # not even the first BEGIN: the message did not parse
        return "script", -1
    if not in_transaction:
        return "commit", 0
    ran -= len(message.started) + len(message.before)
    if ran < 0:
        return "before", 0
    if ran < message.count:
        return "script", ran
    ran -= message.count
    if ran == 0:
        return "deferred", 0
    return ("fence" if ran == len(message.after) - 2 else "after"), 0
