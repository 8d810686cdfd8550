"""Reading a large catalog from git: the first time, and at a new revision that changed one file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import perf_counter

from reconciler.catalog import CatalogReader
from reconciler.source import GitCredentials, open_source
from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Row, bounded, seconds
from tests.benchmarks.migrations import in_turn, native
from tests.benchmarks.repository import make_repository
from tests.git import Repository

_LIMIT = 0.1


def reading(context: Context) -> list[Row]:
    """The first load, and the ones after."""
    count = context.sizes.files
    migrations = in_turn(count)
    repository = make_repository(context.new_folder("repository"), migrations, target=0)
    firsts, later = asyncio.run(_measure(context, repository))
    return [
        bounded(f"catalog of {count} files, first load", [median(firsts)], limit=None, unit=seconds),
        bounded(
            f"catalog of {count} files at a new revision with one changed file",
            later,
            limit=_LIMIT,
            unit=seconds,
        ),
    ]


async def _measure(context: Context, repository: Repository) -> tuple[list[float], list[float]]:
    firsts: list[float] = []
    later: list[float] = []
    count = context.sizes.files
    for _ in range(context.runs):
        loader = _Loader(repository, context.folder, count)
        firsts.append(await loader.load())
        for number in range(context.sizes.revisions // context.runs):
            changed = in_turn(count)[count // 2]
            name, content = native(changed)
            repository.commit("Change", {f"migrations/{name}": f"{content}-- {len(later)} {number}\n"})
            later.append(await loader.load())
        await loader.source.close()
    return firsts, later


class _Loader:
    """Reads the newest revision's catalog, and remembers what it has read."""

    def __init__(self, repository: Repository, folder: Path, count: int) -> None:
        self.source = open_source(
            str(repository.path),
            branch="main",
            working_tree=False,
            state_folder=folder,
            interval=60,
            credentials=GitCredentials(),
        )
        self._reader = CatalogReader()
        self._count = count

    async def load(self) -> float:
        """Read it and return the seconds that took."""
        began = perf_counter()
        revision = await self.source.head()
        snapshot = await self.source.read(revision, ["manifests", "migrations"])
        catalog = self._reader.read(snapshot, "migrations")
        elapsed = perf_counter() - began
        assert len(catalog) == self._count, catalog.problems
        return elapsed
