"""`reconciler run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    ALLOW_HOOKS,
    DURATION,
    SHOW_QUERIES,
    RepositoryOptions,
    example,
    repository_options,
)

if TYPE_CHECKING:
    from reconciler.daemon import DaemonOptions


@click.command(
    "run",
    epilog=example(
        "reconciler run",
        "reconciler run --repo https://git.example.org/team/schema.git --branch main --git-token env:GIT_TOKEN",
        "reconciler run -e staging --listen 0.0.0.0:9840",
    ),
)
@repository_options(working_tree=True, secrets=True)
@click.option(
    "-e",
    "--environment",
    "environments",
    multiple=True,
    metavar="NAME",
    help="Only this environment; may be given several times.  [default: all]",
)
@click.option(
    "--interval",
    type=DURATION,
    default="30s",
    show_default=True,
    help="Between two looks at a remote repository.",
)
@click.option(
    "--resync", type=DURATION, default="60s", show_default=True, help="Between two looks at a quiet database."
)
@click.option(
    "--listen",
    default="127.0.0.1:9840",
    show_default=True,
    metavar="HOST:PORT",
    help="Where metrics, health and status are served; port 0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Databases worked on at a time.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(0, 10_000),
    default=50,
    show_default=True,
    metavar="N",
    help="Connections kept open between looks.",
)
@click.option(
    "--grace",
    type=DURATION,
    default="25s",
    show_default=True,
    help="What a running transaction has to end when the daemon is told to stop.",
)
@click.option(
    "--state-folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="PATH",
    help="For the mirror of a remote repository and the embedded server.  "
    "[default: .reconciler/ in the repository; for a URL, in the XDG state folder]",
)
@click.option(
    "--log-json/--log-text", default=None, help="How to log.  [default: text on a terminal, else JSON]"
)
@ALLOW_HOOKS
@SHOW_QUERIES
@click.option("-v", "--verbose", count=True, help="Log more.")
def command(
    repository: RepositoryOptions,
    environments: tuple[str, ...],
    interval: float,
    resync: float,
    listen: str,
    workers: int,
    max_connections: int,
    grace: float,
    state_folder: Path | None,
    log_json: bool | None,
    allow_hooks: bool,
    show_queries: bool,
    verbose: int,
) -> Exit:
    """Follow a repository and keep every declared database at the version it says, up or down, until told to stop.

    SIGTERM or Ctrl-C: nothing new begins, what runs ends or rolls back within --grace, and the exit code is 0.
    """
    import asyncio

    from reconciler.daemon import DaemonOptions
    from reconciler.errors import UsageError

    for option, seconds in (("--interval", interval), ("--resync", resync)):
        if seconds <= 0:
            raise UsageError(f"{option} is 0", remedy="give a time to wait, 30s say")
    options = DaemonOptions(
        repository=repository.repo,
        branch=repository.branch,
        working_tree=repository.working_tree,
        interval=interval,
        resync=resync,
        listen=listen,
        workers=workers,
        grace=grace,
        environments=environments,
        max_connections=max_connections,
        state_folder=state_folder,
        allow_hooks=allow_hooks,
        show_queries=show_queries,
        verbosity=verbose,
        log_json=log_json,
    )
    return Exit(asyncio.run(_run(repository, options)))


async def _run(repository: RepositoryOptions, options: DaemonOptions) -> int:
    from dataclasses import replace

    from reconciler.cli.opening import git_credentials, secret_rules
    from reconciler.daemon import run_daemon

    options = replace(options, secret_rules=secret_rules(repository))
    return await run_daemon(replace(options, credentials=await git_credentials(repository)))
