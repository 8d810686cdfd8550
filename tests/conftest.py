"""Fixtures for every test: throw-away PostgreSQL servers, a new database for each test, git repositories.

- `server`: PostgreSQL 18, for the whole session (each xdist worker has its own).
- `any_server`: the test runs once on 15 and once on 18.
- `fresh_database`: DSN of a new, empty database on 18; `any_database`: the same on 15 and 18.
- `own_server`: PostgreSQL 18 for this test alone, to be stopped, killed and started at will.
- `git_repository`: a new, empty git repository.
- `reconciler`: runs the command line in this process.
- `simulator`: a server that says it is CockroachDB, before a new, empty database; a test that sends it what no adapter for
  CockroachDB may send fails at its end.
- `cockroach_url`: DSN of a real CockroachDB, from COCKROACH_URL; for tests marked `cockroach`.

Over all of them the canaries watch that no secret gets out: `tests/canaries.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.canaries import canaries, pytest_runtest_makereport
from tests.cockroach.simulator import Simulator
from tests.command_line import CommandLine
from tests.git import Repository
from tests.servers import TestServer, installation
from tests.wire import Loop

# fixtures and hooks of every test
__all__ = ["canaries", "pytest_runtest_makereport"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what stands in the background so, the programs that tests start inherit it, and some are to hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Servers:
    """The session's servers by major version, each started when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[int, TestServer] = {}

    def get(self, major: int) -> TestServer:
        if major not in self._running:
            server = make_server(major, self._folder / str(major))
            server.start()
            self._running[major] = server
        return self._running[major]

    def close(self) -> None:
        for server in self._running.values():
            server.close()


def make_server(major: int, folder: Path) -> TestServer:
    """A server of one major version, not started. Skips the test where that version is not installed; fails it in CI."""
    found = installation(major)
    if found is None:
        message = f"PostgreSQL {major} is not installed (Debian: apt-get install postgresql-{major})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return TestServer(found, folder)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Servers]:
    servers = _Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def server(servers: _Servers) -> TestServer:
    """PostgreSQL 18, shared by the session: do not stop it."""
    return servers.get(18)


@pytest.fixture(params=[15, 18], ids=["postgresql15", "postgresql18"])
def any_server(request: pytest.FixtureRequest, servers: _Servers) -> TestServer:
    """PostgreSQL 15, then 18, shared by the session: do not stop it."""
    return servers.get(request.param)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[TestServer]:
    """A PostgreSQL 18 for this test alone."""
    with make_server(18, tmp_path / "server") as server:
        yield server


@pytest.fixture
def fresh_database(server: TestServer) -> Iterator[str]:
    """DSN of a new, empty database on PostgreSQL 18."""
    name = server.create_database()
    yield server.dsn(name)
    server.drop_database(name)


@pytest.fixture
def any_database(any_server: TestServer) -> Iterator[str]:
    """DSN of a new, empty database, on PostgreSQL 15, then on 18."""
    name = any_server.create_database()
    yield any_server.dsn(name)
    any_server.drop_database(name)


@pytest.fixture(scope="session")
def simulators() -> Iterator[Loop]:
    """The loop on which simulators run."""
    with Loop() as loop:
        yield loop


@pytest.fixture
def simulator(simulators: Loop, server: TestServer, fresh_database: str) -> Iterator[Simulator]:
    """A server that says it is CockroachDB, with a new, empty database."""
    with Simulator(simulators, server, str(conninfo_to_dict(fresh_database)["dbname"])) as simulator:
        yield simulator
    assert simulator.broken == [], "the simulator itself failed"
    assert simulator.tolerant or simulator.violations == [], "no adapter for CockroachDB may send these"


@pytest.fixture(scope="session")
def cockroach_url() -> str:
    """DSN of a real CockroachDB with which tests may do what they like."""
    url = os.environ.get("COCKROACH_URL", "")
    if not url:
        pytest.skip(
            'NOT TESTED on a real CockroachDB: COCKROACH_URL is not set (README, "What was run for CockroachDB")'
        )
    return url


@pytest.fixture
def git_repository(tmp_path: Path) -> Repository:
    """A new repository on branch `main`, without a commit."""
    return Repository(tmp_path / "repository")


@pytest.fixture
def reconciler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs commands in this process."""
    return CommandLine(monkeypatch, capsys)
