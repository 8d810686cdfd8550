"""The benchmarks still run, with tiny sizes. No time is asserted: figures are what the command is for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks import applying, commands, daemon, passes, reading, splitting
from tests.benchmarks.context import Context, Sizes
from tests.benchmarks.installed import Installed
from tests.benchmarks.measuring import Measure, Row, bounded, compared, mebibytes, seconds, table, take_turns
from tests.benchmarks.server import BenchmarkServer

_TINY = Sizes(
    migrations=3,
    downs=2,
    commits=1,
    remote_commits=0,
    databases=2,
    history=30,
    passes=1,
    files=9,
    revisions=1,
    idle_databases=2,
    idle_seconds=0.1,
    commands=1,
    splits=1,
)


def test_every_benchmark_runs() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with BenchmarkServer(folder) as server:
            context = Context(
                server=server, installed=Installed.here(), folder=folder, runs=1, sizes=_TINY, peers=None
            )
            rows = [
                row
                for benchmark in (
                    applying.applying,
                    applying.rolling_back,
                    applying.other_tools,
                    commands.commands,
                    commands.memory,
                    daemon.commit_to_applied,
                    daemon.idle,
                    passes.passes,
                    reading.reading,
                    splitting.splitting,
                )
                for row in benchmark(context)
            ]
    assert len({row.what for row in rows}) == len(rows)
    assert all(row.ours and row.verdict for row in rows)


def test_ways_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def way(name: str, value: float) -> Measure:
        def measure() -> float:
            order.append(name)
            return value

        return measure

    found = take_turns({"a": way("a", 1.0), "b": way("b", 2.0)}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_a_ratio_is_of_measurements_of_the_same_turn() -> None:
    row = compared("x", [1.0, 20.0, 3.0], [1.0, 10.0, 1.0], limit=1.3, floor_name="psql")
    assert row == Row("x", "3.00 s", "1.00 s psql", "2.00 (1.00-3.00)", "1.3", "**over**")


def test_a_figure_is_held_against_its_limit() -> None:
    assert bounded("x", [0.05], limit=0.1, unit=seconds).verdict == "ok"
    assert bounded("x", [0.2], limit=0.1, unit=seconds).verdict == "**over**"
    assert bounded("x", [2.0**20], limit=None, unit=mebibytes) == Row("x", "1 MiB", verdict="reported")


def test_the_table_is_markdown() -> None:
    text = table([Row("a", "1 s", "2 s", "0.5", "1", "ok")])
    assert text.splitlines()[1:] == [
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 1 s | 2 s | 0.5 | 1 | ok |",
    ]
