"""Just enough of PostgreSQL's protocol to ask a server of ours a question over its Unix socket.

Starting `psql` for that would take longer than the question, and the driver belongs to `database` alone. Only
connections that need no password are understood: see `EmbeddedServer` for why that is enough.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

_PROTOCOL_3_0 = 196608
_HEADER = struct.Struct("!cI")


class WireError(Exception):
    """The server answered with an error.

    Args:
        sqlstate: its five characters; empty when the answer made no sense.
        message: the server's text.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{message} (SQLSTATE {sqlstate})" if sqlstate else message)
        self.sqlstate = sqlstate
        self.message = message


class WireConnection:
    """One connection. Connecting raises `OSError` when nobody listens and `WireError` when the server refuses.

    Args:
        socket_path: the socket file.
        user: the role to log in as.
        database: the database to enter.
        timeout: seconds for each read and write.
    """

    def __init__(self, socket_path: str, *, user: str, database: str, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(socket_path)
            self._stream = self._socket.makefile("rb")
            parameters = {"user": user, "database": database, "application_name": "reconciler embedded"}
            body = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
            self._socket.sendall(struct.pack("!II", len(body) + 8, _PROTOCOL_3_0) + body)
            self._read_rows()
        except BaseException:
            self.close()
            raise

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """Run `sql` and return its rows as text."""
        body = sql.encode() + b"\0"
        self._socket.sendall(struct.pack("!cI", b"Q", len(body) + 4) + body)
        return self._read_rows()

    def close(self) -> None:
        """Close the connection; the server notices by itself."""
        if stream := getattr(self, "_stream", None):
            stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_rows(self) -> list[tuple[str | None, ...]]:
        """Read up to the server's next `ReadyForQuery`."""
        rows: list[tuple[str | None, ...]] = []
        failure: WireError | None = None
        while True:
            kind, body = self._read_message()
            if kind == b"E":
                failure = _error(body)
                # FATAL: the server hangs up instead of becoming ready again
                if b"SFATAL\0" in body or b"VFATAL\0" in body:
                    raise failure
            elif kind == b"D":
                rows.append(_columns(body))
            elif kind == b"R" and struct.unpack_from("!I", body)[0] != 0:
                raise WireError("", "the server asks for a password, which a server of ours never does")
            elif kind == b"Z":
                if failure is not None:
                    raise failure
                return rows

    def _read_message(self) -> tuple[bytes, bytes]:
        header = self._stream.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise ConnectionResetError("the server closed the connection")
        kind, length = _HEADER.unpack(header)
        body = self._stream.read(length - 4)
        if len(body) < length - 4:
            raise ConnectionResetError("the server closed the connection")
        return kind, body


def quote_literal(value: str) -> str:
    """`value` as an SQL string, whatever it holds and however `standard_conforming_strings` stands."""
    return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _error(body: bytes) -> WireError:
    fields = {chr(field[0]): field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return WireError(fields.get("C", ""), fields.get("M", "unknown error"))


def _columns(body: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!H", body)
    offset = 2
    columns: list[str | None] = []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, offset)
        offset += 4
        if length < 0:
            columns.append(None)
        else:
            columns.append(body[offset : offset + length].decode())
            offset += length
    return tuple(columns)
