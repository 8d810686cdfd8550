"""A real daemon process on a real git repository: started as a person starts it, watched through its log and HTTP API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.canaries import WATCH, planted, planted_file
from tests.git import Repository, git_environment

PATIENCE = 20.0
"""Seconds: every wait is far shorter than this unless something is broken."""
_PAUSE = 0.02

Status = dict[str, Any]


class Daemon:
    """One process of `reconciler run`. Leaving the `with` block stops it as `stop` does.

    Args:
        repository: what it follows.
        options: more of `run`'s options.
        variables: more of its environment variables; a connection string gets a canary for a password.
    """

    def __init__(
        self, repository: Repository | Path | str, *options: str, variables: Mapping[str, str] | None = None
    ) -> None:
        place = repository.path if isinstance(repository, Repository) else repository
        self._command = [
            sys.executable, "-m", "reconciler", "run", "--repo", str(place), "--listen", "127.0.0.1:0", *options
        ]  # fmt: skip
        self._variables = {
            **git_environment(),
            **{name: planted(value) for name, value in (variables or {}).items()},
        }
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self.running:
                self.stop()
            return
        self.kill()
        print(f"--- log of the daemon ---\n{self.text}\n--- end of the log ---")

    def start(self, *, wait: bool = True) -> None:
        """Start the process, again after it ended if need be, and wait until it serves."""
        assert not self.running, "the daemon runs already"
        self._lines.clear()
        self._url = ""
        # standard input and output as a service manager gives them; a group of its own keeps our Ctrl-C away
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self._variables,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if wait:
            greeting = self.wait_for_log(lambda event: "status" in event)
            self._url = str(greeting["status"]).rstrip("/")

    # its process

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """False before the start and after the end."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and return the exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code

    def stop(self, timeout: float = PATIENCE) -> float:
        """Ask it to end as a service manager does, and return the seconds it took. It must exit with 0."""
        self._look_through()
        began = time.monotonic()
        self.send(signal.SIGTERM)
        code = self.wait(timeout)
        assert code == 0, f"exit code {code}\n{self.text}"
        assert "Traceback" not in self.text, self.text
        return time.monotonic() - began

    def kill(self) -> None:
        """End it by SIGKILL, as a power failure would."""
        if self.running:
            self.send(signal.SIGKILL)
            self.wait()

    # its log

    @property
    def text(self) -> str:
        """Everything it has logged so far, as it was written."""
        with self._news:
            return "".join(self._lines)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The messages logged so far."""
        with self._news:
            lines = list(self._lines)
        return [event for event in map(_parse, lines) if event is not None]

    def events(self, name: str, environment: str | None = None) -> list[dict[str, Any]]:
        """The messages called `name`, of one environment or of all."""
        return [
            event
            for event in self.log
            if event["event"] == name and environment in (None, event.get("environment"))
        ]

    def wait_for_log(
        self, predicate: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """Wait for a message, old ones included, and return it."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._news:
            while True:
                while seen < len(self._lines):
                    event = _parse(self._lines[seen])
                    seen += 1
                    if event is not None and predicate(event):
                        return event
                assert self.running, f"the daemon has ended\n{''.join(self._lines)}"
                left = deadline - time.monotonic()
                assert left > 0, f"no such message within {timeout:g} s\n{''.join(self._lines)}"
                self._news.wait(min(left, 0.2))

    # its answers

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._url, "the daemon has not said where it listens"
        return self._url

    def get(self, path: str) -> tuple[int, str]:
        """Status code and body of one GET request."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as response:
                answer = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                answer = error.code, error.read().decode()
        WATCH.see("http", answer[1])
        return answer

    def status(self, environment: str | None = None, database: str | None = None) -> Status:
        """What the API says of the daemon, one environment, or one database; empty while it does not know it."""
        parts = [part for part in (environment, database) if part is not None]
        code, body = self.get("/" + "/".join(["api", "v1", "environments", *parts]))
        if code == 404:
            return {}
        assert code == 200, body
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as they are written."""
        code, body = self.get("/metrics")
        assert code == 200, body
        samples = (line.rpartition(" ") for line in body.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def wait_for(
        self,
        environment: str,
        predicate: Callable[[Status], object],
        database: str | None = None,
        timeout: float = PATIENCE,
    ) -> Status:
        """Poll one database's status until `predicate` is true of it, and return it."""
        deadline = time.monotonic() + timeout
        while True:
            assert self.running, f"the daemon has ended\n{self.text}"
            status = self.status(environment, database or environment)
            if status and predicate(status):
                return status
            assert time.monotonic() < deadline, (
                f"{environment}/{database or environment} did not get there within {timeout:g} s: {json.dumps(status, indent=1)}"
            )
            time.sleep(_PAUSE)

    def wait_ready(
        self, environment: str, version: int, database: str | None = None, timeout: float = PATIENCE
    ) -> Status:
        """Wait until a database is at `version`, as declared."""
        return self.wait_for(
            environment,
            lambda status: (
                status["ready"] and status["current_version"] == status["target_version"] == version
            ),
            database,
            timeout,
        )

    def wait_problem(
        self, environment: str, reason: str, database: str | None = None, timeout: float = PATIENCE
    ) -> Status:
        """Wait until `reason` stands against a database, and return its problem."""
        status = self.wait_for(
            environment,
            lambda status: status["problem"] is not None and status["problem"]["reason"] == reason,
            database,
            timeout,
        )
        problem = status["problem"]
        assert isinstance(problem, dict)
        return problem

    def wait_observed(self, environment: str, commit: str, database: str | None = None) -> Status:
        """Wait until a pass has acted on `commit`."""
        return self.wait_for(
            environment,
            lambda status: (status["observed_revision"] or "").endswith(commit) and status["running"] is None,
            database,
        )

    def _look_through(self) -> None:
        """Look for canaries in what it shows to everybody."""
        WATCH.see_titles(self.pid)
        if self._url:
            for path in ("/metrics", "/api/v1/environments", "/"):
                self.get(path)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            WATCH.see("log", line)
            with self._news:
                self._lines.append(line)
                self._news.notify_all()


def wait_until(predicate: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Poll until `predicate` is true."""
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(_PAUSE)


def manifest(dsn: str, target: int, extra: str = "") -> str:
    """A manifest of one database. `dsn` is a connection string, or YAML: a reference such as `{env: NAME}`."""
    return f"target_version: {target}\ndatabase:\n  dsn: {_kept(dsn)}\n{extra}"


def manifest_of_several(dsns: Mapping[str, str], target: int, extra: str = "") -> str:
    """A manifest of several databases, in this order."""
    databases = "".join(f"  {name}:\n    dsn: {_kept(dsn)}\n" for name, dsn in dsns.items())
    return f"target_version: {target}\ndatabases:\n{databases}{extra}"


def _kept(dsn: str) -> str:
    """A reference to a file in which the connection string has a canary for a password. What is none stays as it is."""
    if dsn.startswith("{") or planted(dsn) == dsn:
        return dsn
    return f"{{file: {planted_file(dsn)}}}"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
