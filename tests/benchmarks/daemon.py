"""The daemon as a process: from commit to applied, and what it takes when nothing happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import LiteralString

import psycopg

from tests.benchmarks.context import Context
from tests.benchmarks.installed import environment
from tests.benchmarks.measuring import Row, bounded, mebibytes, percent, seconds
from tests.benchmarks.migrations import in_turn
from tests.benchmarks.psql import PsqlScripts
from tests.benchmarks.repository import make_repository, manifest
from tests.git import Repository

_DEADLINE = 60.0
_OVERHEAD_LIMIT = 0.1
_MEMORY_LIMIT = 100 * 1000 * 1000
_CPU_LIMIT = 0.01
_REMOTE_INTERVAL = 2.0


def commit_to_applied(context: Context) -> list[Row]:
    """What a commit waits for longer than `psql -f` of the same file takes."""
    found, floor = _commits(context, context.sizes.commits, remote=False)
    overheads = [ours - theirs for ours, theirs in zip(found, floor, strict=True)]
    rows = [
        bounded("commit to applied, local repository", found, limit=None, unit=seconds),
        bounded("the same, less `psql -f` of the file", overheads, limit=_OVERHEAD_LIMIT, unit=seconds),
    ]
    if context.sizes.remote_commits:
        remote, _ = _commits(context, context.sizes.remote_commits, remote=True)
        what = f"commit to applied, file:// repository looked at every {_REMOTE_INTERVAL:g} s"
        rows.append(bounded(what, remote, limit=None, unit=seconds))
    return rows


def idle(context: Context) -> list[Row]:
    """Memory and processor time of a daemon that has nothing to do."""
    count = context.sizes.idle_databases
    migrations = in_turn(20)
    repository = make_repository(
        context.new_folder("repository"), migrations, target=len(migrations), databases=count
    )
    dsns = [context.server.dsn(context.server.create_database()) for _ in range(count)]
    variables = {f"BENCH_DSN_{number}": dsn for number, dsn in enumerate(dsns, 1)}
    with _daemon(context, ["--repo", str(repository.path)], variables) as pid:
        for dsn in dsns:
            with psycopg.connect(dsn, autocommit=True) as connection:
                _wait(connection, "SELECT count(*) = 20 FROM schema_migrations")
        # what is done once at the beginning is over
        time.sleep(min(5.0, context.sizes.idle_seconds))
        began, used = perf_counter(), _cpu_seconds(pid)
        time.sleep(context.sizes.idle_seconds)
        share = (_cpu_seconds(pid) - used) / (perf_counter() - began)
        resident = _resident(pid)
    what = f"idle daemon, {count} databases"
    return [
        bounded(f"{what}: resident memory", [resident], limit=_MEMORY_LIMIT, unit=mebibytes),
        bounded(
            f"{what}: share of one core over {context.sizes.idle_seconds:g} s",
            [share],
            limit=_CPU_LIMIT,
            unit=percent,
        ),
    ]


def _commits(context: Context, count: int, *, remote: bool) -> tuple[list[float], list[float]]:
    """Seconds from commit to applied, and of `psql -f`, for one migration after the other."""
    # tables only: each commit has the same work
    migrations = [
        migration._replace(version=number)
        for number, migration in enumerate(in_turn(3 * (count + 2))[::3], 1)
    ]
    repository = make_repository(context.new_folder("repository"), migrations, target=1)
    scripts = PsqlScripts(context.server, context.new_folder("psql"), migrations)
    ours, floor = context.server.create_database(), context.server.create_database()
    where = (
        ["--repo", repository.url, "--interval", f"{_REMOTE_INTERVAL:g}s"]
        if remote
        else ["--repo", str(repository.path)]
    )
    state = ["--state-folder", str(context.new_folder("state"))]
    found: list[float] = []
    floors: list[float] = []
    with (
        _daemon(context, [*where, *state], {"BENCH_DSN": context.server.dsn(ours)}),
        psycopg.connect(context.server.dsn(ours), autocommit=True) as connection,
    ):
        _wait(connection, "SELECT count(*) = 1 FROM schema_migrations")
        # the first one after the start is not counted
        for number in range(2, count + 3):
            elapsed = _commit(repository, connection, number)
            script = scripts.up_file(migrations[number - 1])
            below = context.installed.timed(scripts.file(floor, script))
            if number > 2:
                found.append(elapsed)
                floors.append(below)
            # anywhere between two looks
            time.sleep(0.3 + (number % 7) * 0.1)
    return found, floors


def _commit(repository: Repository, connection: psycopg.Connection[tuple[object, ...]], target: int) -> float:
    """Make `target` the newest commit's target and return the seconds until it is applied."""
    repository.write({"manifests/bench.yaml": manifest(target)})
    repository.run("add", "--all")
    tree = repository.run("write-tree")
    commit = repository.run("commit-tree", tree, "-p", "HEAD", "-m", f"Go to {target}")
    began = perf_counter()
    # the moment in which `git commit` makes the commit the branch's newest
    repository.run("update-ref", "refs/heads/main", commit)
    _wait(connection, f"SELECT count(*) = {int(target)} FROM schema_migrations")
    return perf_counter() - began


def _wait(connection: psycopg.Connection[tuple[object, ...]], condition: LiteralString | str) -> None:
    deadline = perf_counter() + _DEADLINE
    while True:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            if connection.execute(condition.encode()).fetchall()[0][0]:
                return
        if perf_counter() > deadline:
            raise RuntimeError(f"not so within {_DEADLINE:g} s: {condition}")
        time.sleep(0.001)


@contextlib.contextmanager
def _daemon(context: Context, arguments: list[str], variables: Mapping[str, str]) -> Iterator[int]:
    """A running daemon's process id; ended when the block is left."""
    log = context.new_folder("daemon.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [context.installed.reconciler, "run", "--listen", "127.0.0.1:0", *arguments],
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield process.pid
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log.read_text()[-4000:]}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_DEADLINE)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process, its threads, and the processes it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """Bytes of a process in memory."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")
    )
    return int(line.split()[1]) * 1024
