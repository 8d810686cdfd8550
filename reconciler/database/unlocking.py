"""Who holds the lock, and freeing it by a person's word.

An advisory lock lives as long as the session that took it, so freeing it is ending that session. The session may be one whose
process is long gone, on a machine that went away without a word, and which the server still waits for.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from reconciler.database.queries import Literal
from reconciler.database.reading import ADVISORY_KEY
from reconciler.database.records import who
from reconciler.database.session import Session
from reconciler.database.trust import read_table, writing_harmlessly
from reconciler.model import Actor, LockHolder, LockSession, LockState, Problem, ProblemError, Reason
from reconciler.redaction import redact

_KEY: dict[str, Literal] = {"key_high": ADVISORY_KEY >> 32, "key_low": ADVISORY_KEY & 0xFFFFFFFF}
_NO_JOURNAL = "there is no journal yet that could tell of it"
_PATIENCE = 10.0
"""Seconds that a session has to end once it was told to."""
_PAUSE = 0.05


async def read_lock(session: Session) -> LockState:
    """All there is to know of the lock; our tables need not be there.

    Raises:
        ProblemError: the database cannot be read.
    """
    state = await _look(session)
    if not state.unrecorded:
        try:
            await writing_harmlessly(session, "journal")
        except ProblemError as error:
            if error.problem.reason is not Reason.FOREIGN_HISTORY:
                raise
            return replace(state, unrecorded=error.problem.message)
    return state


async def _look(session: Session) -> LockState:
    """As `read_lock`, but for what writing into the journal would run."""
    import psycopg.errors

    (sessions,) = await session.read(session.queries("lock_session", **_KEY), doing="reading the lock")
    rows: list[tuple[Any, ...]] = []
    unrecorded = ""
    try:
        (rows,) = await read_table(session, "lock", session.queries("lock_row"), doing="reading the lock")
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName):
        # journal and lock are made together
        unrecorded = _NO_JOURNAL
    owner, mode, since, renewed_at, leased, fence = rows[0] if rows else ("", "", None, None, False, None)
    return LockState(
        session=_session(sessions[0]) if sessions else None,
        owner=owner,
        mode=mode,
        since=_time(since),
        renewed_at=_time(renewed_at),
        leased=leased,
        fence=fence,
        unrecorded=unrecorded,
    )


async def nameless_holder(session: Session) -> LockHolder:
    """Who holds the lock, as far as the server tells, when they themselves have not said so."""
    holding = (await _look(session)).session
    return LockHolder(
        _told(holding) if holding is not None else "a session that has just ended", "advisory", None
    )


def _told(holding: LockSession) -> str:
    known = [
        f"session {holding.pid}" + (f" of user {holding.user}" if holding.user else ""),
        f"application {holding.application}" if holding.application else "",
        f"at {holding.address}" if holding.address else "",
        "which does not say who it is",
    ]
    return ", ".join(each for each in known if each)


async def free_lock(session: Session, state: LockState, actor: Actor, reason: str) -> None:
    """Free the lock; see `reconciler.model.Database.unlock`."""
    now = await read_lock(session)
    if _identity(now) != _identity(state):
        raise ProblemError(_changed(now))
    if state.session is not None:
        await _end(session, state, state.session, actor, reason)
    elif state.fence is not None and (state.leased or state.forgotten):
        what = "withdrew the lease of" if state.leased else "cleared the row that was left behind by"
        await _transact(
            session,
            *await writing_harmlessly(session, "journal"),
            _event(session, state, actor, "cleared", f"{what} {state.owner}: {reason}"),
            *await writing_harmlessly(session, "lock"),
            session.queries("clear_lock_row", fence=state.fence),
        )


async def _end(session: Session, state: LockState, holding: LockSession, actor: Actor, reason: str) -> None:
    # more than one, where others than we have taken it, shared
    (before,) = await session.read(session.queries("lock_session", **_KEY), doing="reading the lock")
    event = []
    if not state.unrecorded:
        holder = f" ({state.owner})" if state.owner else ""
        told = f"ended session {holding.pid} of {holding.user}{holder}: {reason}"
        guard = await writing_harmlessly(session, "journal")
        event = [*guard, _event(session, state, actor, "terminated", told)]
    try:
        await _transact(
            session,
            *event,
            # who may end a session is decided by the role that logged in, which is the holder's too in the common case
            "SET LOCAL ROLE NONE",
            session.queries(
                "end_lock_session",
                **_KEY,
                session=holding.pid,
                connected_at=holding.connected_at.timestamp() if holding.connected_at is not None else None,
            ),
        )
    except ProblemError as error:
        if error.problem.reason is not Reason.PERMISSION_DENIED:
            raise
        raise ProblemError(_denied(error.problem, holding)) from None
    deadline = monotonic() + _PATIENCE
    while (now := await _look(session)).session is not None and now.session.pid == holding.pid:
        if monotonic() >= deadline:
            raise ProblemError(_still_there(holding))
        await asyncio.sleep(_PAUSE)
    if now.session is not None and now.session.pid in {row[0] for row in before}:
        raise ProblemError(_held_by_more(holding, now.session))
    if now.session is None and now.owner and now.fence == state.fence:
        try:
            guard = await writing_harmlessly(session, "lock")
            await _transact(session, *guard, session.queries("clear_lock_row", fence=now.fence))
        except ProblemError as error:
            # somebody was faster and has taken the lock: the row is theirs; or the table is, and stays as it is
            if error.problem.reason not in (Reason.REPAIR_REFUSED, Reason.FOREIGN_HISTORY):
                raise


async def _transact(session: Session, *blocks: str) -> None:
    try:
        await session.transact(*blocks, doing="freeing the lock")
    except ProblemError as error:
        if error.problem.sqlstate != "22012":
            raise
        raise ProblemError(_changed(await _look(session))) from None


def _event(session: Session, state: LockState, actor: Actor, outcome: str, message: str) -> str:
    return session.queries(
        "insert_unlock",
        attempt=str(uuid.uuid4()),
        outcome=outcome,
        message=redact(message),
        **who(actor, state.fence),
    )


def _identity(state: LockState) -> tuple[object, ...]:
    """What must not change between showing the lock and freeing it."""
    holding = state.session
    return (
        holding and (holding.pid, holding.connected_at),
        state.fence,
        bool(state.unrecorded),
        state.leased,
        bool(state.owner),
    )


def _changed(now: LockState) -> Problem:
    if now.session is not None:
        found = f"session {now.session.pid}" + (f" ({now.owner})" if now.owner else "") + " holds it now"
    else:
        found = f"{now.owner} holds a lease on it now" if now.leased else "nobody holds it now"
    return Problem(
        reason=Reason.REPAIR_REFUSED,
        message=f"the lock has changed hands since it was shown: {found}; nothing was done",
        remedy="run the command again if the lock is still in the way",
    )


def _denied(problem: Problem, holding: LockSession) -> Problem:
    whom = holding.user or "another role"
    return Problem(
        reason=Reason.PERMISSION_DENIED,
        message=f"session {holding.pid} of {whom} was not ended: {problem.message}",
        remedy=(
            f"connect as {whom}, as a member of that role or of pg_signal_backend (for a superuser's session: as a "
            "superuser), and as one that may write to our tables; or stop the process itself where it runs"
        ),
        sqlstate=problem.sqlstate,
    )


def _still_there(holding: LockSession) -> Problem:
    return Problem(
        reason=Reason.LOCK_HELD,
        message=f"session {holding.pid} was told to end and still holds the lock after {_PATIENCE:g} s",
        remedy=(
            "look for it in pg_stat_activity: one that rolls much back, or waits for a disk or a standby, ends when that is over"
        ),
    )


def _held_by_more(ended: LockSession, left: LockSession) -> Problem:
    return Problem(
        reason=Reason.LOCK_HELD,
        message=f"session {ended.pid} was ended, and the lock is held still: by {_told(left)}",
        remedy="run the command again to end that one as well",
    )


def _session(row: tuple[Any, ...]) -> LockSession:
    pid, user, application, address, state, connected_at, transaction_at = row
    return LockSession(
        pid=pid,
        user=user,
        application=application,
        address=address,
        state=state,
        connected_at=_time(connected_at),
        transaction_at=_time(transaction_at),
    )


def _time(epoch: float | None) -> datetime | None:
    return datetime.fromtimestamp(epoch, UTC) if epoch is not None else None
