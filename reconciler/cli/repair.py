"""`reconciler repair`: say what is true where a history cannot tell."""

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
    "repair",
    epilog=example(
        "reconciler repair -e production --mark-applied 7 --reason 'finished by hand, INC-7'",
        "reconciler repair -e dev --mark-rolled-back 7 --reason 'index dropped by hand'",
        "reconciler repair -e dev --accept-checksum 3 --reason 'reformatted' --yes",
        "reconciler repair -e production --claim --reason 'the repository has moved'",
    ),
)
@click.option(
    "--accept-checksum",
    type=VERSION,
    metavar="V",
    help="The file of migration V was changed on purpose: its digests and down script are taken from it as it is now.",
)
@click.option(
    "--mark-applied",
    type=VERSION,
    metavar="V",
    help="What migration V does is in force, all of it: it counts as applied.",
)
@click.option(
    "--mark-rolled-back",
    type=VERSION,
    metavar="V",
    help="Nothing of what migration V does is in force: it counts as not applied.",
)
@click.option("--claim", is_flag=True, help="Hand the database over to the environment it is run for.")
@consent_options
@database_options(working_tree=False, migrations=True)
def command(
    accept_checksum: int | None,
    mark_applied: int | None,
    mark_rolled_back: int | None,
    claim: bool,
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Set a database's history right by your word, where no migration can.

    No script runs and nothing but the history changes, so look at the database first. It shows what it changes, and asks; your
    reason goes to the journal. A running daemon goes on from there within seconds.
    """
    from reconciler.cli.repairing import run_repair
    from reconciler.cli.running import run_to_end
    from reconciler.errors import UsageError
    from reconciler.model import RepairKind

    wanted = [
        (kind, version)
        for kind, version in (
            (RepairKind.ACCEPT_CHECKSUM, accept_checksum),
            (RepairKind.MARK_APPLIED, mark_applied),
            (RepairKind.MARK_ROLLED_BACK, mark_rolled_back),
            (RepairKind.CLAIM, 0 if claim else None),
        )
        if version is not None
    ]
    if len(wanted) != 1:
        raise UsageError(
            "it is not said what to repair" if not wanted else "it is said to repair several things at once",
            remedy="give exactly one of --accept-checksum, --mark-applied, --mark-rolled-back and --claim",
        )
    ((kind, version),) = wanted
    if version == 0 and kind is not RepairKind.CLAIM:
        raise UsageError("there is no migration 0", remedy="name the number of a migration")
    return run_to_end(run_repair("repair", kind, version, consent, repository, selection, output_as))
