"""A TCP proxy before a PostgreSQL server that counts protocol messages and, at one of them, does harm."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.wire import Loop, read_message

TO_SERVER, TO_CLIENT = "to_server", "to_client"


@dataclass(frozen=True)
class Frame:
    """One protocol message.

    Args:
        way: `to_server` or `to_client`.
        number: of this way, from 0, over the life of the proxy.
        commits: how many answers to a COMMIT have passed before it.
        data: its bytes.
    """

    way: str
    number: int
    commits: int
    data: bytes

    @property
    def is_rows(self) -> bool:
        """Rows of a COPY, on their way to the server."""
        return self.way == TO_SERVER and self.data[:1] == b"d"

    @property
    def is_commit(self) -> bool:
        """The server's word that a COMMIT took effect."""
        return self.way == TO_CLIENT and self.data[:1] == b"C" and self.data[5:] == b"COMMIT\0"


@dataclass
class Harm:
    """What to do, and when. It is done once.

    Args:
        when: is it this message?
        portion: how much of the message still passes, from 0 to 1.
        act: called then, on the proxy's thread: kills a process, say.
        cut: the connection ends there.
        linger: seconds the server is left in the belief that its client is still there.
        delay: seconds to wait before the rest of the message passes, if the connection is not cut.
    """

    when: Callable[[Frame], bool]
    portion: float = 0.0
    act: Callable[[], None] = field(default=lambda: None)
    cut: bool = True
    linger: float = 0.0
    delay: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes everything to a server's Unix socket.

    Args:
        loop: where it runs.
        socket: the server's.
    """

    def __init__(self, loop: Loop, socket: Path) -> None:
        self._loop = loop
        self._socket = socket
        self._counts = {TO_SERVER: 0, TO_CLIENT: 0}
        self._commits = 0
        self._harm: Harm | None = None
        self._server: asyncio.Server | None = None
        self.begun = False
        """A step was sent to the server since this was last set to False."""
        self.connected = threading.Event()
        """Somebody has connected."""

    def __enter__(self) -> Proxy:
        self._server = self._loop.run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._close())

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def counts(self) -> dict[str, int]:
        """How many messages have passed each way since `arm`."""
        return dict(self._counts)

    @property
    def commits(self) -> int:
        """How many answers to a COMMIT have passed since `arm`."""
        return self._commits

    def arm(self, harm: Harm | None) -> None:
        """Count anew, and do `harm` when its time comes."""
        self._counts = {TO_SERVER: 0, TO_CLIENT: 0}
        self._commits = 0
        self.connected.clear()
        self._harm = harm

    async def _close(self) -> None:
        """Listen no more. Only on the loop's own thread: the server counts its connections there, and they end just now."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            # the server is down: the client sees a connection that ends at once
            client_writer.transport.abort()
            return
        tasks = [
            asyncio.ensure_future(self._pass(TO_SERVER, client_reader, server_writer)),
            asyncio.ensure_future(self._pass(TO_CLIENT, server_reader, client_writer)),
        ]
        linger = 0.0
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            linger = max(task.result() for task in done)
        finally:
            for task in tasks:
                task.cancel()
            # what was passed on before is delivered
            client_writer.close()
            try:
                await asyncio.sleep(linger)
            finally:
                server_writer.close()

    async def _pass(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        """Pass messages until one side ends or harm is done; seconds to leave the server alone."""
        first = way == TO_SERVER
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                data = await read_message(reader, untyped=first)
                first = False
                frame = Frame(way, self._counts[way], self._commits, data)
                self._counts[way] += 1
                if frame.is_commit:
                    self._commits += 1
                if way == TO_SERVER and b"'started'" in data:
                    self.begun = True
                harm = self._harm
                if harm is not None and not harm.done.is_set() and harm.when(frame):
                    harm.done.set()
                    passing = data[: round(len(data) * harm.portion)]
                    writer.write(passing)
                    await writer.drain()
                    harm.act()
                    if harm.cut:
                        return harm.linger
                    await asyncio.sleep(harm.delay)
                    data = data[len(passing) :]
                writer.write(data)
                await writer.drain()
        return 0.0
