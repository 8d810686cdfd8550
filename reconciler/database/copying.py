"""Reading everything a server answers to one message, and giving it the rows that a `COPY ... FROM STDIN` asks for.

The driver's own reader stops where a COPY begins and has no way to go on with the rest of the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.database.failures import is_error

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

_CHUNK = 64 * 1024
"""Characters handed to the driver at a time: it must not hold a second copy of everything."""
_NO_DATA = b"the script has no rows for this COPY"
_STOPPED = b"the reconciler is ending"


def exchange(
    pgconn: PGconn, copy_data: Sequence[str], stopped: Callable[[], bool], *, keep_rows: bool
) -> PQGen[list[PGresult]]:
    """Send what the connection was given, and fetch the result of every statement of it, the one of an error included.

    Args:
        pgconn: a message was handed to it.
        copy_data: the rows of each COPY from the client, in the order they run.
        stopped: whether to give up in the midst of such rows. The server then undoes the COPY.
        keep_rows: False when the connection is in single-row mode: of each statement only the first row is kept.
    """
    from psycopg import generators
    from psycopg.pq import ExecStatus

    results: list[PGresult] = []
    row: PGresult | None = None
    data = iter(copy_data)
    yield from generators.send(pgconn)
    while (result := (yield from generators.fetch(pgconn))) is not None:
        if result.status == ExecStatus.COPY_IN:
            yield from _give(pgconn, next(data, None), stopped)
        elif result.status == ExecStatus.COPY_OUT:
            yield from _throw_away(pgconn)
        elif result.status == ExecStatus.SINGLE_TUPLE and not keep_rows:
            row = row or result
        else:
            results.append(row if row is not None and not is_error(result) else result)
            row = None
    return results


def _give(pgconn: PGconn, data: str | None, stopped: Callable[[], bool]) -> PQGen[None]:
    """Send the rows of one COPY. What becomes of them, the next result tells.

    A server that has found an error drops what still comes, so that nothing needs to be noticed here.
    """
    error = _NO_DATA if data is None else None
    for chunk in _chunks(data or ""):
        if stopped():
            error = _STOPPED
            break
        while pgconn.put_copy_data(chunk) == 0:
            yield from _flush(pgconn)
        yield from _flush(pgconn)
    while pgconn.put_copy_end(error) == 0:
        yield from _flush(pgconn)
    yield from _flush(pgconn)


def _chunks(data: str) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK].encode()


def _flush(pgconn: PGconn) -> PQGen[None]:
    """Wait until everything is on its way. The server may have to be listened to before it goes on: a trigger's notices."""
    from psycopg.waiting import Ready, Wait

    while pgconn.flush():
        ready = yield Wait.RW
        if ready & Ready.R:
            pgconn.consume_input()


def _throw_away(pgconn: PGconn) -> PQGen[None]:
    """Read the rows of a COPY to us, which nobody asked for, to their end."""
    from psycopg.waiting import Wait

    while True:
        length, _ = pgconn.get_copy_data(1)
        if length < 0:
            return
        if length == 0:
            yield Wait.R
            pgconn.consume_input()
