"""One-off commands, whole process: what a person waits for after pressing return."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.context import Context
from tests.benchmarks.measuring import Row, bounded, compared, mebibytes, take_turns
from tests.benchmarks.migrations import Small, in_turn
from tests.benchmarks.repository import make_repository

_SMALL_HISTORY = 20
_FILE_BYTES = 2048
_MEMORY_LIMIT = 80 * 1024 * 1024


def commands(context: Context) -> list[Row]:
    """`status`, `up` with nothing to do, `--help` and `--version`."""
    installed, server = context.installed, context.server
    repository = make_repository(
        context.new_folder("repository"), in_turn(_SMALL_HISTORY), target=_SMALL_HISTORY
    )
    dsn = server.dsn(server.create_database())
    variables = {"BENCH_DSN": dsn}
    command = installed.reconciler
    installed.timed([command, "up"], folder=repository.path, variables=variables)

    def timed(*arguments: str) -> float:
        return installed.timed(arguments, folder=repository.path, variables=variables)

    one_off, click_program = installed.program("one_off"), installed.program("click_program")
    found = take_turns(
        {
            "floor": lambda: timed(*one_off, dsn),
            "status": lambda: timed(command, "status"),
            "up": lambda: timed(command, "up"),
            "click": lambda: timed(*click_program, "--help"),
            "help": lambda: timed(command, "--help"),
            "pass": lambda: timed(installed.python, "-c", "pass"),
            "version": lambda: timed(command, "--version"),
        },
        context.sizes.commands,
    )
    floor = "script with the same imports"
    return [
        compared("`status`", found["status"], found["floor"], limit=1.3, floor_name=floor),
        compared("`up`, nothing to do", found["up"], found["floor"], limit=1.3, floor_name=floor),
        compared("`--help`", found["help"], found["click"], limit=1.5, floor_name="click program"),
        compared("`--version`", found["version"], found["pass"], limit=2.0, floor_name="python3 -c pass"),
    ]


def memory(context: Context) -> list[Row]:
    """The most memory that `up` takes for many files."""
    migrations = [_padded(migration) for migration in in_turn(context.sizes.migrations)]
    repository = make_repository(context.new_folder("repository"), migrations, target=len(migrations))
    peaks = []
    for _ in range(context.runs):
        dsn = context.server.dsn(context.server.create_database())
        peaks.append(
            context.installed.peak_memory(
                [context.installed.reconciler, "up"], folder=repository.path, variables={"BENCH_DSN": dsn}
            )
        )
    what = f"peak memory of `up` with {len(migrations)} files of {_FILE_BYTES // 1024} KB"
    return [bounded(what, [median(peaks)], limit=_MEMORY_LIMIT, unit=mebibytes)]


def _padded(migration: Small) -> Small:
    """The same, with so many comments that its file has two kilobytes."""
    padding = _FILE_BYTES - len(migration.up) - len(migration.down) - 150
    comment = "-- Why this is done, and what became of the alternatives.\n"
    return migration._replace(up=comment * (padding // len(comment)) + migration.up)
