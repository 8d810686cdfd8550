"""uvicorn as a guest: it lives in our event loop, on a socket that we bound, and leaves the signals to us."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from reconciler.errors import ReconcilerError
from reconciler.web.address import Address

_SHUTDOWN_SECONDS = 1
"""How long an answer in progress may hold up the end."""

_BIND_FAILURES = {
    errno.EADDRINUSE: (
        "address already in use",
        "stop the other process or choose another with --listen HOST:PORT",
    ),
    errno.EACCES: (
        "permission denied",
        "choose a port over 1023 with --listen HOST:PORT, or allow this one to the process",
    ),
    errno.EADDRNOTAVAIL: (
        "this machine has no such address",
        "choose one of its own with --listen HOST:PORT, or 0.0.0.0 for all",
    ),
}


@asynccontextmanager
async def serve(app: ASGIApp, host: str, port: int) -> AsyncIterator[Address]:
    """Serve `app` while the context is open; hand out the address that really is listened on.

    Leaving the context takes at most about two seconds, whatever clients do: idle connections are closed at once, and
    answers in progress get one second.

    Args:
        app: what answers.
        host: a name or an address, IPv6 without brackets.
        port: 0 takes any free one.

    Raises:
        ReconcilerError: the address cannot be listened on.
    """
    listener = await _listen(Address(host, port))
    bound_host, bound_port = listener.getsockname()[:2]
    server = _GuestServer(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="web server")
    started = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            yield Address(bound_host, bound_port)
    finally:
        started.cancel()
        server.leave()
        try:
            await task
        finally:
            server.abort_connections()
            listener.close()


class _GuestServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._leaving = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they are the daemon's, which first lets running migrations finish."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Sleep until `leave()`. uvicorn's own loop wakes ten times a second, to see a flag and to write a date header."""
        await self._leaving.wait()

    def leave(self) -> None:
        """Begin to shut down, or do not start at all."""
        self.should_exit = True
        self._leaving.set()

    def abort_connections(self) -> None:
        """Cut what is still open after the shutdown: clients that do not read their answer."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _listen(address: Address) -> socket.socket:
    """A socket that listens on the first of the host's addresses that can be had."""
    loop = asyncio.get_running_loop()
    try:
        candidates = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ReconcilerError(
            f"cannot listen on {address}: the host name {address.host!r} is not known",
            remedy="choose a name or an address of this machine with --listen HOST:PORT",
        ) from error
    failures: list[OSError] = []
    for family, kind, protocol, _, where in candidates:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            # two sockets may be bound to one port; only listening tells that another has it
            listener.listen()
        except OSError as error:
            listener.close()
            failures.append(error)
        else:
            listener.setblocking(False)
            return listener
    raise _cannot_listen(address, failures[0]) from failures[0]


def _cannot_listen(address: Address, error: OSError) -> ReconcilerError:
    cause, remedy = _BIND_FAILURES.get(
        error.errno or 0, (error.strerror or str(error), "choose another with --listen HOST:PORT")
    )
    return ReconcilerError(f"cannot listen on {address}: {cause}", remedy=remedy)
