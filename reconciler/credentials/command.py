"""A secret that a program writes to its standard output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from reconciler.credentials.content import LARGEST, decoded, unavailable, unreachable
from reconciler.manifest import CommandReference
from reconciler.processes import run_group
from reconciler.redaction import Redactor

PATIENCE = 20.0
"""Seconds that a program may take."""
TRY_LATER = os.EX_TEMPFAIL
"""The exit status of a program that could not reach whom it asks."""
_LONGEST_ERROR = 4096
"""Bytes of standard error that are looked at."""
_SHOWN = 300


async def secret_of_command(
    reference: CommandReference, environ: Mapping[str, str], redactor: Redactor, patience: float = PATIENCE
) -> str:
    """Run the program of a reference and return what it writes.

    No shell reads the command. The program has the environment variables of this process, since it authenticates itself by
    them, no standard input, and `/` as working directory. Whatever it started is ended with it.

    Args:
        reference: which program.
        environ: its environment variables.
        redactor: is told what it wrote, and masks the message it gave.
        patience: seconds it may take.

    Raises:
        UnreachableError: it took too long, or said so by its exit status, 75.
        ProblemError: `SecretUnavailable`: it failed, or wrote nothing of use.
    """
    output, errors = bytearray(), bytearray()
    too_much = asyncio.get_running_loop().create_future()

    def take(data: bytes) -> None:
        output.extend(data[: LARGEST + 1 - len(output)])
        if len(output) > LARGEST and not too_much.done():
            too_much.set_result(None)

    name = f"the program of {reference}"
    by_hand = "run it by hand, as the reconciler's user, to see why"
    try:
        status = await run_group(
            reference.command,
            environ,
            Path("/"),
            timeout=patience,
            on_output=take,
            stop=too_much,
            on_error_output=lambda data: errors.extend(data[: _LONGEST_ERROR - len(errors)]),
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no command"
        raise unavailable(f"{name} cannot be started: {why}", "install it, or correct its path") from None
    if status is None and not too_much.done():
        raise unreachable(f"{name} took longer than {patience:g} s and was ended", by_hand)
    written = output.decode(errors="replace").strip()
    redactor.add(written)
    said = _last_line(errors, redactor)
    if status == TRY_LATER:
        raise unreachable(f"{name} ended with exit status {status}, that is: try again later{said}", by_hand)
    if status is not None and status != 0:
        how = f"ended with exit status {status}" if status > 0 else f"was ended by signal {-status}"
        raise unavailable(f"{name} {how}{said}", by_hand)
    return decoded(
        bytes(output), f"what {name} wrote", f"have it write the secret and nothing else; {by_hand}"
    )


def _last_line(errors: bytearray, redactor: Redactor) -> str:
    """The last line of standard error, masked, for the end of a message."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return ""
    # masked whole before it is cut: half a secret is not recognised
    last = "".join(character if character.isprintable() else " " for character in redactor(lines[-1]))
    return f": {last[:_SHOWN]}"
