"""Applying and rolling back many small migrations, against one psql process and against other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Measure, Row, compared, take_turns
from tests.benchmarks.migrations import Small, all_three, in_turn
from tests.benchmarks.peers import peers
from tests.benchmarks.psql import PsqlScripts
from tests.benchmarks.repository import make_repository, manifest


def applying(context: Context) -> list[Row]:
    """All of it up, each in its own transaction."""
    count = context.sizes.migrations
    return [
        *_applying(
            context,
            all_three(count),
            f"{count} migrations up (a table, an index and a column in each)",
            1.0,
            1.1,
        ),
        *_applying(
            context, in_turn(count), f"{count} migrations up (a single statement in each)", None, None
        ),
    ]


def _applying(
    context: Context, migrations: Sequence[Small], what: str, limit: float | None, equal_limit: float | None
) -> list[Row]:
    bench = _Applying(context, migrations)
    found = take_turns(
        {
            "ours": bench.measure(lambda _: [context.installed.reconciler, "up"]),
            "floor": bench.measure(bench.scripts.up),
            "waiting": bench.measure(lambda _: context.installed.program("waiting_up")),
            "lagging": bench.measure(lambda database: bench.scripts.up(database, lagging=True)),
        },
        context.runs,
        warm_up=False,
    )
    return [
        compared(f"{what}, default mode", found["ours"], found["floor"], limit=limit, floor_name="psql"),
        compared(
            f"{what}, equal durability: every commit waits, on both sides",
            found["waiting"],
            found["floor"],
            limit=equal_limit,
            floor_name="psql",
        ),
        compared(
            f"{what}, equal durability: only the last commit waits, on both sides",
            found["ours"],
            found["lagging"],
            limit=None,
            floor_name="psql, synchronous_commit = off",
        ),
    ]


def rolling_back(context: Context) -> list[Row]:
    """The newest down again."""
    count = context.sizes.downs
    migrations = in_turn(count + count // 2)
    bench = _Applying(context, migrations)
    repository = bench.repository
    repository.commit("Back", {"manifests/bench.yaml": manifest(len(migrations) - count)})
    target = repository.head

    rests: list[float] = []

    def ours() -> float:
        repository.reset("HEAD~1")
        database = context.server.create_database()
        variables = {"BENCH_DSN": context.server.dsn(database)}
        context.installed.timed(
            [context.installed.reconciler, "up"], folder=repository.path, variables=variables
        )
        repository.reset(target)
        context.server.settle()
        elapsed = context.installed.timed(
            [context.installed.reconciler, "down", "--version", str(len(migrations) - count)],
            folder=repository.path,
            variables=variables,
        )
        _check(context, database, len(migrations) - count)
        # with nothing left to do, the rest of a command remains: start-up, reading the repository, connecting
        rests.append(
            context.installed.timed(
                [context.installed.reconciler, "up"], folder=repository.path, variables=variables
            )
        )
        return elapsed

    def floor() -> float:
        database = context.server.create_database()
        context.installed.timed(bench.scripts.up(database))
        context.server.settle()
        elapsed = context.installed.timed(bench.scripts.down(database, count))
        _check(context, database, len(migrations) - count)
        return elapsed

    found = take_turns({"ours": ours, "floor": floor}, context.runs, warm_up=False)
    less = [max(whole - rest, 0.0) for whole, rest in zip(found["ours"], rests, strict=True)]
    return [
        compared(f"{count} migrations down", found["ours"], found["floor"], limit=1.2, floor_name="psql"),
        compared(
            f"{count} migrations down, less an `up` that finds nothing to do",
            less,
            found["floor"],
            limit=None,
            floor_name="psql",
        ),
    ]


def other_tools(context: Context) -> list[Row]:
    """The same migrations by other tools, in their own formats."""
    if context.peers is None:
        return []
    migrations = in_turn(context.sizes.migrations)
    bench = _Applying(context, migrations)
    ways: dict[str, Measure] = {
        "reconciler": bench.measure(lambda _: [context.installed.reconciler, "up"]),
        "psql": bench.measure(bench.scripts.up),
    }
    missing = []
    for peer in peers(context, context.peers, migrations):
        if peer.why_not:
            missing.append(Row(f"{len(migrations)} migrations up: {peer.name}", "", verdict=peer.why_not))
        else:
            ways[peer.name] = bench.measure(peer.command, peer.folder, peer.count)
    found = take_turns(ways, context.runs, warm_up=False)
    floor = found.pop("psql")
    rows = [
        compared(f"{len(migrations)} migrations up: {name}", figures, floor, limit=None, floor_name="psql")
        for name, figures in found.items()
    ]
    return rows + missing


class _Applying:
    """The same migrations as a repository and as psql scripts."""

    def __init__(self, context: Context, migrations: Sequence[Small]) -> None:
        self._context = context
        self._count = len(migrations)
        self.repository = make_repository(
            context.new_folder("repository"), migrations, target=migrations[-1].version
        )
        self.scripts = PsqlScripts(context.server, context.new_folder("psql"), migrations)

    def measure(
        self,
        command: Callable[[str], Sequence[str]],
        folder: Path | None = None,
        count: str = "SELECT count(*) FROM schema_migrations",
    ) -> Measure:
        """A measurement of what `command` makes of a new database, whole process.

        Args:
            command: made for the name of a database, whose DSN is in `BENCH_DSN`.
            folder: its working directory; the repository by default.
            count: the statement that tells how many migrations are applied.
        """
        server, installed = self._context.server, self._context.installed

        def measured() -> float:
            database = server.create_database()
            server.settle()
            elapsed = installed.timed(
                command(database),
                folder=folder or self.repository.path,
                variables={"BENCH_DSN": server.dsn(database)},
            )
            _check(self._context, database, self._count, count)
            return elapsed

        return measured


def _check(
    context: Context, database: str, expected: int, count: str = "SELECT count(*) FROM schema_migrations"
) -> None:
    """Make sure that what was measured was done."""
    with psycopg.connect(context.server.dsn(database)) as connection:
        found = connection.execute(count.encode()).fetchall()[0][0]
    if found != expected:
        raise RuntimeError(f"{found} of {expected} migrations are applied to {database}")
