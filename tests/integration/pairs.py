"""Two databases under one daemon: trouble comes to one, and the other must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.applying import table
from tests.daemon import Daemon, manifest
from tests.git import Repository
from tests.servers import TestServer


class Pair(NamedTuple):
    """Two environments: `dev`, which trouble comes to, and `good`, which must not notice."""

    repository: Repository
    dev: str
    good: str

    def commit(self, script: str, extra: str = "", *, dsn: str = "") -> None:
        """Commit a migration for `dev`."""
        self.repository.commit(
            files={
                "manifests/dev.yaml": manifest(dsn or self.dev, 2, f"migrations: dev\n{extra}"),
                "dev/1_t.sql": table("t"),
                "dev/2_x.sql": script,
            }
        )

    def others_go_on(self, daemon: Daemon) -> None:
        """`good` follows a new target now."""
        self.repository.commit(files={"manifests/good.yaml": manifest(self.good, 2)})
        daemon.wait_ready("good", 2)


@contextmanager
def made_pair(git_repository: Repository, server: TestServer) -> Iterator[Pair]:
    """A pair with two databases of its own; `good` is declared in the repository."""
    names = [server.create_database() for _ in range(2)]
    dev, good = (server.dsn(name) for name in names)
    git_repository.commit(
        files={
            "manifests/good.yaml": manifest(good, 1),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        }
    )
    yield Pair(git_repository, dev, good)
    for name in names:
        server.drop_database(name)
