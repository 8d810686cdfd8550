"""Git repositories for benchmarks: manifests that name DSNs of the environment, and migrations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.migrations import Small, native
from tests.git import Repository


def make_repository(
    folder: Path, migrations: Iterable[Small], *, target: int, databases: int = 0
) -> Repository:
    """A repository with one environment, `bench`.

    Args:
        folder: a folder that does not exist.
        migrations: its files.
        target: the manifest's target.
        databases: 0 for a single one, whose DSN is in `BENCH_DSN`; else so many, in `BENCH_DSN_1` and so on.
    """
    repository = Repository(folder)
    files: dict[str, str | bytes | None] = {
        f"migrations/{name}": content for name, content in map(native, migrations)
    }
    files["manifests/bench.yaml"] = manifest(target, databases)
    repository.commit("Begin", files)
    return repository


def manifest(target: int, databases: int = 0) -> str:
    """The manifest of environment `bench`."""
    head = f"target_version: {target}\npolicy: {{max_down_steps: 100000}}\n"
    if not databases:
        return head + "database:\n  dsn: {env: BENCH_DSN}\n"
    lines = [f"  db{number}:\n    dsn: {{env: BENCH_DSN_{number}}}" for number in range(1, databases + 1)]
    return head + "databases:\n" + "\n".join(lines) + "\n"
