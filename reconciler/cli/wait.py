"""`reconciler wait`: what an application calls before it starts."""

from __future__ import annotations

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    DURATION,
    VERSION,
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)


@click.command(
    "wait",
    epilog=example(
        "reconciler wait --dsn env:DSN --version 42 --timeout 60s",
        "reconciler wait -e production --version 42",
        "reconciler wait --server http://reconciler:9840 -e production --version 42",
    ),
)
@click.option(
    "--version",
    type=VERSION,
    metavar="N",
    help="The version to reach; a higher one will do.  [default: the declared one]",
)
@click.option("--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait in all.")
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="Between two looks.")
@database_options(working_tree=False, server=True)
def command(
    version: int | None,
    timeout: float,
    interval: float,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Wait until every chosen database is at a version or above, and nothing runs on it.

    A database, repository or daemon that cannot be reached yet is waited for; what only a person can mend, a manifest that
    cannot be read say, ends it at once. Exit code 0 when the version is reached, 3 when the time is up or all is suspended.
    """
    from reconciler.cli.running import run_to_end
    from reconciler.cli.terminal import write, write_json
    from reconciler.cli.waiting import wait_until
    from reconciler.errors import UsageError

    if version is None and selection.dsn is not None:
        raise UsageError("a DSN alone does not say which version to wait for", remedy="give --version")
    if interval <= 0:
        raise UsageError("--interval is 0", remedy="give a time to wait between two looks, 1s say")
    sightings, reached = run_to_end(
        wait_until(
            version, repository, selection, timeout=timeout, interval=interval, verbose=output_as.verbose > 0
        )
    )
    if output_as.json:
        write_json({"reached": reached, "databases": [each.as_dict() for each in sightings]})
    elif reached:
        for each in sightings:
            write(str(each))
    if not reached:
        from reconciler.cli.terminal import write_error
        from reconciler.model.duration import format_duration

        seen = "\n".join(f"  last seen: {each}" for each in sightings) or "  nothing was seen at all"
        if not output_as.json:
            write_error(f"error: the version was not reached within {format_duration(timeout)}\n{seen}")
    return Exit.DONE if reached else Exit.OUT_OF_SYNC
