"""The web server through real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from reconciler.errors import ReconcilerError
from reconciler.metrics import Metrics
from reconciler.web import Address
from reconciler.web.app import create_app
from reconciler.web.server import serve
from tests.unit.web.examples import View

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def served(app: ASGIApp | None = None, host: str = LOOPBACK) -> AsyncIterator[Address]:
    async with serve(app or create_app(View(), Metrics().render), host, 0) as address:
        yield address


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that never answers."""
    await asyncio.Event().wait()


async def pour(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers without end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


async def until(condition: Callable[[], bool]) -> None:
    """Look every 10 ms, for at most 30 s."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def read_until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.read()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class TestAnswers:
    async def test_on_the_port_that_port_0_turned_into(self) -> None:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            assert address.port > 0
            assert (await http.get("/healthz")).text == "ok\n"
            assert (await http.get("/api/v1/environments/dev")).json()["environment"] == "dev"
            assert b"reconciler_build_info" in (await http.get("/metrics")).content

    @pytest.mark.skipif(not has_ipv6(), reason="this machine HAS NO IPv6: listening on [::1] is not checked")
    async def test_on_ipv6(self) -> None:
        async with served(host="::1") as address, httpx.AsyncClient() as http:
            assert address.url.startswith("http://[::1]:")
            assert (await http.get(f"{address.url}/healthz")).status_code == 200

    async def test_on_a_host_name(self) -> None:
        async with served(host="localhost") as address, httpx.AsyncClient() as http:
            assert (await http.get(f"{address.url}/healthz")).status_code == 200

    async def test_do_not_tell_what_serves_them(self) -> None:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            for path in ("/healthz", "/nope"):
                assert "server" not in (await http.get(path)).headers

    @pytest.mark.parametrize(
        "path", ["/", "/metrics", "/healthz", "/readyz", "/api/v1/environments", "/nope"]
    )
    async def test_to_head_are_those_to_get_without_the_body(self, path: str) -> None:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            head, get = await http.head(path), await http.get(path)
        assert head.status_code == get.status_code
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]

    async def test_to_what_is_not_http_are_short_and_harm_no_other(self) -> None:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            for nonsense in (
                b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
                b"GET\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"a" * 100_000,
            ):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(nonsense)
                answer = await read_until_closed(reader)
                writer.close()
                assert answer.startswith(b"HTTP/1.1 400 ")
            assert (await http.get("/healthz")).status_code == 200


class TestListening:
    async def test_on_a_taken_port_is_refused_with_a_remedy(self) -> None:
        with socket.create_server((LOOPBACK, 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(ReconcilerError) as refusal:
                async with serve(hang, LOOPBACK, port):
                    raise AssertionError("served on a taken port")
        assert str(refusal.value) == (
            f"cannot listen on 127.0.0.1:{port}: address already in use; "
            "stop the other process or choose another with --listen HOST:PORT"
        )

    async def test_on_the_port_of_another_daemon_is_refused(self) -> None:
        async with served() as address:
            with pytest.raises(ReconcilerError, match="address already in use"):
                async with serve(hang, *address):
                    raise AssertionError("served on a taken port")

    async def test_on_an_address_of_another_machine_is_refused(self) -> None:
        with pytest.raises(
            ReconcilerError, match=r"cannot listen on 192\.0\.2\.1:9840: this machine has no such address"
        ):
            async with serve(hang, "192.0.2.1", 9840):
                raise AssertionError("served on an address of another machine")

    async def test_on_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ReconcilerError, match=r"'no-such-host\.invalid' is not known"):
            async with serve(hang, "no-such-host.invalid", 9840):
                raise AssertionError("served on an unknown name")

    async def test_again_on_the_same_port_right_after_the_end_works(self) -> None:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            await http.get("/healthz")
        async with serve(create_app(View(), Metrics().render), *address) as again:
            assert again == address


class TestTheEnd:
    async def seconds_to_end(self, app: ASGIApp | None, request: bytes) -> float:
        """How long the server takes to end while a client has sent `request` and keeps its connection open."""
        async with served(app) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            await writer.drain()
            if app is None and request.endswith(b"\r\n\r\n"):
                await reader.readuntil(b"ok\n")
            else:
                # nothing comes back that tells that the server has read it
                await asyncio.sleep(0.1)
            start = time.monotonic()
        seconds = time.monotonic() - start
        await self.assert_cut(reader)
        writer.close()
        return seconds

    async def assert_cut(self, reader: asyncio.StreamReader) -> None:
        try:
            await read_until_closed(reader)
        except ConnectionResetError:
            pass

    async def test_does_not_wait_for_idle_connections(self) -> None:
        assert await self.seconds_to_end(None, b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n") < 2

    async def test_does_not_wait_for_requests_that_never_come(self) -> None:
        assert await self.seconds_to_end(None, b"GET /healthz HTTP/1.1\r\n") < 2
        assert await self.seconds_to_end(None, b"") < 2

    @pytest.mark.parametrize("app", [hang, pour])
    async def test_gives_an_answer_in_progress_a_second_and_no_more(self, app: ASGIApp) -> None:
        assert await self.seconds_to_end(app, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") < 4

    async def test_closes_the_connection_of_a_client_that_does_not_read(self) -> None:
        before = len(os.listdir("/dev/fd"))
        client = socket.socket()
        async with served(pour) as address:
            client.connect(address)
            client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            # the listener and both ends
            await until(lambda: len(os.listdir("/dev/fd")) == before + 3)
        with client:
            await until(lambda: len(os.listdir("/dev/fd")) == before + 1)

    async def test_lets_an_answer_in_progress_finish(self) -> None:
        begun = asyncio.Event()
        go_on = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        async with httpx.AsyncClient() as http:
            async with served(slow) as address:
                request = asyncio.create_task(http.get(address.url))
                await begun.wait()
                asyncio.get_running_loop().call_later(0.2, go_on.set)
            assert (await request).text == "done"

    async def test_comes_with_the_failure_of_what_it_served(self) -> None:
        with pytest.raises(LookupError, match="the daemon failed"):
            async with served():
                raise LookupError("the daemon failed")


async def test_signals_stay_with_the_daemon() -> None:
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, received.set)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        async with served() as address, httpx.AsyncClient(base_url=address.url) as http:
            assert signal.getsignal(signal.SIGTERM) is handler
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(30):
                await received.wait()
            assert (await http.get("/healthz")).status_code == 200
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
