"""What the tests of the sources share: opening them, waiting for their ticks, servers to fetch from."""

from __future__ import annotations

import asyncio
import base64
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.model import Problem, ProblemError, Reason, Source
from tests.git import git_environment

EXEC_PATH = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()


def run_git(*arguments: str) -> int:
    """Run git anywhere and return its exit status."""
    return subprocess.run(
        ["git", *arguments], env=git_environment(), capture_output=True, check=False
    ).returncode


async def problem_of(source: Source) -> Problem:
    """The problem that `head()` raises."""
    with pytest.raises(ProblemError) as caught:
        await source.head()
    return caught.value.problem


async def expect(source: Source, reason: Reason) -> Problem:
    """Check that `head()` raises a problem of this reason that says what to do, and return it."""
    problem = await problem_of(source)
    assert problem.reason is reason, problem
    return problem


class Ticks:
    """Counts what `changes()` yields, in a task of its own; a context manager."""

    def __init__(self, source: Source) -> None:
        self._changes: AsyncIterator[None] = source.changes()
        self._event = asyncio.Event()
        self.count = 0

    async def __aenter__(self) -> Ticks:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _follow(self) -> None:
        async for _ in self._changes:
            self.count += 1
            self._event.set()

    async def next(self, deadline: float = 20.0) -> None:
        """Wait for a tick that was not waited for yet."""
        async with asyncio.timeout(deadline):
            await self._event.wait()
        self._event.clear()


class HttpServer:
    """`git http-backend` behind HTTP on this machine, with a token when one is given; can be taken away and back."""

    def __init__(self, root: Path, token: str | None = None) -> None:
        self.root = root
        self.token = token
        self.requests: list[str] = []
        self.redirect: str | None = None
        self.protocol: str | None = None
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; again on the same port after a `stop`."""
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Handler(BaseHTTPRequestHandler):
    owner: HttpServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        self.owner.requests.append(self.path)
        if self.owner.redirect is not None:
            self.send_response(302)
            self.send_header("Location", self.owner.redirect + self.path)
            self.end_headers()
            return
        if self.owner.token is not None and not self._is_allowed(self.owner.token):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        variables = {
            **git_environment(),
            "GIT_PROJECT_ROOT": str(self.owner.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self._protocol(),
        }
        done = subprocess.run(
            [f"{EXEC_PATH}/git-http-backend"], input=body, env=variables, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _protocol(self) -> str:
        asked: str = self.headers.get("Git-Protocol", "")
        return asked if self.owner.protocol is None else self.owner.protocol

    def _is_allowed(self, token: str) -> bool:
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        return kind == "Basic" and base64.b64decode(value).decode().partition(":")[2] == token


class SshServer:
    """A real sshd on this machine, for the user who runs the tests."""

    def __init__(self, folder: Path) -> None:
        sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        if sshd is None or shutil.which("ssh-keygen") is None:
            pytest.skip("sshd is not installed: fetching over SSH is NOT tested")
        if pwd.getpwuid(os.geteuid()).pw_shell.endswith(("nologin", "false")):
            pytest.skip("this user has no login shell: fetching over SSH is NOT tested")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700)
        self.user = getpass.getuser()
        self.port = _free_port()
        self.key, self.other_key, host_key = (folder / name for name in ("key", "other", "host"))
        for key in (self.key, self.other_key, host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.known_hosts, self.wrong_hosts = folder / "known_hosts", folder / "wrong_hosts"
        place = f"[127.0.0.1]:{self.port}"
        self.known_hosts.write_text(f"{place} {host_key.with_suffix('.pub').read_text()}")
        self.wrong_hosts.write_text(f"{place} {self.other_key.with_suffix('.pub').read_text()}")
        (folder / "authorized").write_text(self.key.with_suffix(".pub").read_text())
        configuration = folder / "sshd_config"
        configuration.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {host_key}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {folder / 'authorized'}\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        self._log = folder / "log"
        self._process = subprocess.Popen([sshd, "-D", "-E", str(self._log), "-f", str(configuration)])

    def __enter__(self) -> SshServer:
        for _ in range(400):
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return self
        raise AssertionError(f"sshd does not listen: {self._log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def url(self, path: Path) -> str:
        """Of a repository on this machine."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(root: Path, token: str | None = None) -> Iterator[HttpServer]:
    """An `HttpServer` for the length of a block."""
    server = HttpServer(root, token)
    try:
        yield server
    finally:
        server.stop()
