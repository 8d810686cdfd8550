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

With `--through-pooler` the ways to the shared servers lead through a PgBouncer in transaction mode; only tests that take such a way
are run then, and those marked `direct` are skipped. The tests' own `psycopg.connect` goes past it, as does `server.direct_dsn`.

Over all of them the canaries watch that no secret gets out: `tests/canaries.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.canaries import canaries, pytest_runtest_makereport
from tests.cockroach.simulator import Simulator
from tests.command_line import CommandLine
from tests.git import Repository
from tests.poolers import Pooler, past_poolers, require_pgbouncer
from tests.servers import TestServer, installation
from tests.wire import Loop

# fixtures and hooks of every test
__all__ = ["canaries", "pytest_runtest_makereport"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what stands in the background so, the programs that tests start inherit it, and some are to hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


_POOL_SIZE = 6
"""Connections to the server for each role and database: fewer than there are clients, and more than those that tests keep busy."""
_WAYS_TO_SERVERS = {"server", "any_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--through-pooler",
        action="store_true",
        help="run the tests that use a shared server through a PgBouncer in transaction mode, and no others",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--through-pooler"):
        return
    kept: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        fixtures = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
        (kept if fixtures & _WAYS_TO_SERVERS else others).append(item)
        direct = item.get_closest_marker("direct")
        if direct is not None:
            item.add_marker(pytest.mark.skip(reason=f"not through a pooler: {direct.args[0]}"))
    items[:] = kept
    config.hook.pytest_deselected(items=others)


class _Servers:
    """The session's servers by major version, each started when first asked for."""

    def __init__(self, folder: Path, *, through_pooler: bool) -> None:
        self._folder = folder
        self._through_pooler = through_pooler
        self._poolers: list[Pooler] = []
        self.pooled: dict[int, TestServer] = {}
        """The servers by the port of the pooler before them."""
        self._running: dict[int, TestServer] = {}

    def get(self, major: int) -> TestServer:
        if major not in self._running:
            server = make_server(major, self._folder / str(major))
            server.start()
            self._running[major] = server
            if self._through_pooler:
                pooler = Pooler(server, pool_size=_POOL_SIZE)
                self._poolers.append(pooler)
                pooler.start()
                server.pooler_port = pooler.port
                self.pooled[pooler.port] = server
        return self._running[major]

    def close(self) -> None:
        for pooler in self._poolers:
            pooler.close()
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
def servers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[_Servers]:
    through_pooler = bool(pytestconfig.getoption("--through-pooler"))
    if through_pooler:
        require_pgbouncer()
    servers = _Servers(tmp_path_factory.mktemp("servers"), through_pooler=through_pooler)
    with pytest.MonkeyPatch.context() as patch:
        if through_pooler:
            # what is tested goes through the pooler; the tests' own sessions, which look on and stand in the way, do not
            patch.setattr(psycopg, "connect", past_poolers(servers.pooled))
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
