"""`reconciler unlock`: who holds the lock, and freeing it."""

from __future__ import annotations

import click

from reconciler.cli.confirming import Consent, consent_options
from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    OutputOptions,
    RepositoryOptions,
    SelectionOptions,
    database_options,
    example,
)


@click.command(
    "unlock",
    epilog=example(
        "reconciler unlock -e production -d orders --reason 'its machine is gone'",
        "reconciler unlock --dsn env:DSN --reason 'frozen for an hour, INC-7' --yes",
    ),
)
@consent_options
@database_options(working_tree=False)
def command(
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Show who holds the lock of a database and since when, and free it.

    The lock belongs to a session of the server, so freeing it ends that session: your role must be the holder's, a member of
    it, or a member of pg_signal_backend. What ran in it is rolled back. Needed only where a holder hangs, or its machine has
    gone without a word: a holder that ends frees the lock by itself.
    """
    from reconciler.cli.confirmed import run_confirmed
    from reconciler.cli.running import run_to_end
    from reconciler.cli.unlocking import Unlocking

    change = Unlocking(consent.reason.strip())
    return run_to_end(run_confirmed(change, consent, repository, selection, output_as))
