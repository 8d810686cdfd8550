"""A connection from the simulator to the PostgreSQL behind it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.cockroach import messages
from tests.wire import read_message


class Gone(Exception):
    """PostgreSQL ended the connection."""


class Backend:
    """One connection. Use `open`.

    `status` is the transaction state, `key` what a cancel request needs, `greeting` everything from the server's first word
    to the last before ReadyForQuery.
    """

    def __init__(self, socket: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._socket = socket
        self._reader = reader
        self._writer = writer
        self.status = messages.IDLE
        self.key = b""
        self.greeting: list[bytes] = []

    @classmethod
    async def open(cls, socket: Path, parameters: Mapping[str, str]) -> tuple[Backend | None, list[bytes]]:
        """Connect; None and the server's refusal when it does not let us in.

        Raises:
            OSError: nobody listens there.
        """
        reader, writer = await asyncio.open_unix_connection(str(socket))
        self = cls(socket, reader, writer)
        writer.write(messages.startup(parameters))
        try:
            self.greeting = await self.answer()
        except Gone as error:
            writer.close()
            return None, [data for data in error.args[0] if data[:1] == b"E"]
        self.key = next(data[5:] for data in self.greeting if data[:1] == b"K")
        return self, self.greeting

    async def run(self, text: str, copy_in: Callable[[bytes], Awaitable[bytes]] | None = None) -> list[bytes]:
        """Send one statement; all the server's messages about it, without ReadyForQuery.

        Args:
            text: the statement.
            copy_in: is given the server's request for rows, then nothing; gives one message of the client's a call.

        Raises:
            Gone: PostgreSQL ended the connection.
        """
        return await self.send(messages.query(text), copy_in)

    async def send(
        self, data: bytes, copy_in: Callable[[bytes], Awaitable[bytes]] | None = None
    ) -> list[bytes]:
        """The same for messages as they are; the last must make the server say ReadyForQuery."""
        self._writer.write(data)
        return await self.answer(copy_in)

    async def answer(self, copy_in: Callable[[bytes], Awaitable[bytes]] | None = None) -> list[bytes]:
        """The server's messages up to ReadyForQuery, which is left out."""
        found: list[bytes] = []
        while True:
            try:
                data = await read_message(self._reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Gone(found) from None
            if data[:1] == b"Z":
                self.status = data[5:6].decode()
                return found
            if data[:1] != b"G" or copy_in is None:
                found.append(data)
                continue
            rows = await copy_in(data)
            while rows[:1] not in (b"c", b"f"):
                self._writer.write(rows)
                rows = await copy_in(b"")
            self._writer.write(rows)

    async def cancel(self) -> None:
        """Ask the server to cancel what runs."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(self._socket))
            writer.write(struct.pack("!ii", len(self.key) + 8, 80877102) + self.key)
            await writer.drain()
            writer.close()

    def close(self) -> None:
        """End it; PostgreSQL rolls back what is open."""
        self._writer.close()


def error_in(found: list[bytes]) -> dict[str, str]:
    """The fields of the first error among messages; empty when there is none."""
    return next((messages.fields_of(data) for data in found if data[:1] == b"E"), {})
