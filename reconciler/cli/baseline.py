"""`reconciler baseline`: take over a database that already has the schema."""

from __future__ import annotations

import click

from reconciler.cli.confirming import Consent, consent_options
from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    VERSION,
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)


@click.command(
    "baseline",
    epilog=example(
        "reconciler baseline -e production -d orders --version 7 --reason 'schema was made by hand'",
        "reconciler baseline --dsn env:DSN --version 7 --reason 'restored from a dump' --yes",
    ),
)
@click.option(
    "--version", type=VERSION, metavar="N", required=True, help="The newest migration whose schema is there."
)
@consent_options
@database_options(working_tree=False, migrations=True)
def command(
    version: int,
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Take over a database that already has the schema of version N: every migration up to N counts as applied.

    No script runs. For a database without a history, or with the beginning of one. It shows what it writes, and asks.
    """
    from reconciler.cli.repairing import run_repair
    from reconciler.cli.running import run_to_end
    from reconciler.errors import UsageError
    from reconciler.model import RepairKind

    if version == 0:
        raise UsageError(
            "there is nothing to take over at version 0", remedy="name the newest migration that is there"
        )
    return run_to_end(
        run_repair("baseline", RepairKind.BASELINE, version, consent, repository, selection, output_as)
    )
