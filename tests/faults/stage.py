"""What rounds are played on: servers, repositories, and how everything looks when nobody disturbs it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg.conninfo import make_conninfo

from reconciler.embedded.cluster import SUPERUSER
from tests.applying import bring, database_at, declare
from tests.command_line import start
from tests.faults.looking import look
from tests.faults.promises import Shapes
from tests.faults.proxy import Proxy
from tests.faults.scenario import FURNITURE, SCENARIOS, Scenario
from tests.git import Repository
from tests.servers import TestServer, installation
from tests.wire import Loop

VARIABLE = "FAULTS_DSN"
ORIGIN = "https://example.org/team/faults.git"
"""Both repositories of a scenario say so: to a database they are one."""
MANIFEST = """target_version: {target}
policy: {{max_down_steps: 100}}
timeouts: {{acquire: 60s, lock_timeout: 20s}}
database: {{dsn: {{env: {variable}}}}}
"""


class Stage:
    """Servers and repositories that all rounds share. Use it as a context manager.

    Args:
        folder: for everything; other accounts must be able to enter it.
        majors: the PostgreSQL versions to run on; those that are not installed are left out.
    """

    def __init__(self, folder: Path, majors: tuple[int, ...] = (18, 15)) -> None:
        self.folder = folder
        self.loop = Loop()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.shapes: dict[tuple[str, int], Shapes] = {}
        """By scenario and PostgreSQL version."""
        self._majors = majors
        self._servers: list[TestServer] = []
        self._servers_to_crash: list[TestServer] = []
        self._idle: list[TestServer] = []
        self._choosing = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Stage:
        self.loop.__enter__()
        for major in self._majors:
            found = installation(major)
            if found is not None:
                server = TestServer(found, self.folder / f"postgresql{major}")
                self._servers.append(server)
                server.start()
                furnish(server)
        for scenario in SCENARIOS.values():
            self._rehearse(scenario)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self._servers, *self._servers_to_crash):
            server.close()
        self.loop.__exit__()

    @property
    def versions(self) -> str:
        """The servers, in words."""
        return ", ".join(f"PostgreSQL {server.major}" for server in self._servers)

    def server(self, number: int) -> TestServer:
        """One of the servers, by turns."""
        return self._servers[number % len(self._servers)]

    @contextmanager
    def own_server(self, number: int) -> Iterator[TestServer]:
        """A server that may be crashed: nothing that makes it safe is switched off. It is kept for the next who asks."""
        with self._choosing:
            idle = self._idle.pop() if self._idle else None
        if idle is None:
            like = self.server(number)
            folder = self.folder / f"crashed{next(self._numbers)}"
            idle = TestServer(like.installation, folder, settings={"fsync": "on", "full_page_writes": "on"})
            self._servers_to_crash.append(idle)
            idle.start()
            furnish(idle)
        yield idle
        if idle.cluster.alive:
            with self._choosing:
                self._idle.append(idle)

    def create_database(self, server: TestServer) -> str:
        """A new database with the harness' furniture, by name."""
        return server.create_database(template="furnished")

    def proxy(self, server: TestServer) -> Proxy:
        """A proxy before `server`, not started."""
        return Proxy(self.loop, server.socket_directory / f".s.PGSQL.{server.port}")

    def run(
        self, scenario: Scenario, direction: str, dsn: str, *, output: str = "json"
    ) -> subprocess.Popen[str]:
        """Start `reconciler up` to the scenario's target, or `down` to 0."""
        repository = self.repositories[scenario.name, direction]
        arguments = ["up"] if direction == "up" else ["down", "--version", "0"]
        return start(
            *arguments,
            "--repo",
            str(repository.path),
            "--output",
            output,
            folder=self.folder,
            **{VARIABLE: dsn},
        )

    def _rehearse(self, scenario: Scenario) -> None:
        """Make the scenario's repositories, and note how its versions look."""
        for direction, target in (("up", scenario.target), ("down", 0)):
            repository = Repository(self.folder / f"{scenario.name}-{direction}")
            repository.run("remote", "add", "origin", ORIGIN)
            files: dict[str, str | bytes | None] = {
                f"migrations/{name}": text for name, text in scenario.files.items()
            }
            files["manifests/dev.yaml"] = MANIFEST.format(target=target, variable=VARIABLE)
            repository.commit("Begin", files)
            self.repositories[scenario.name, direction] = repository
        for server in self._servers:
            name = self.create_database(server)
            self.shapes[scenario.name, server.major] = asyncio.run(_shapes(server.dsn(name), scenario))
            server.drop_database(name)


def furnish(server: TestServer) -> None:
    """Make the database that all others are copies of."""
    name = server.create_database("furnished")
    with server.connect(name) as connection:
        connection.execute(FURNITURE.encode())


def through(proxy: Proxy, name: str) -> str:
    """The DSN of a database by way of a proxy."""
    return make_conninfo(
        host="127.0.0.1",
        port=str(proxy.port),
        user=SUPERUSER,
        dbname=name,
        sslmode="disable",
        gssencmode="disable",
    )


def settled(dsn: str, patience: float = 30.0) -> bool:
    """Wait until no connection of ours is left in a database. False when that takes too long."""
    from time import monotonic, sleep

    deadline = monotonic() + patience
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler'"
        ).fetchone():
            if monotonic() > deadline:
                return False
            sleep(0.01)
    return True


async def _shapes(dsn: str, scenario: Scenario) -> Shapes:
    shapes = {0: look(dsn).shape}
    database = database_at(dsn)
    for version in range(1, scenario.target + 1):
        outcome = await bring(database, declare(dict(scenario.files), version, claim=None))
        assert outcome.problem is None, outcome.problem
        shapes[version] = look(dsn).shape
    for version in reversed(range(scenario.target)):
        outcome = await bring(database, declare(dict(scenario.files), version, claim=None))
        assert outcome.problem is None, outcome.problem
        assert look(dsn).shape == shapes[version], f"{scenario.name}: the down to {version} is no inverse"
    await database.close()
    return shapes
