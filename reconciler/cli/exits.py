"""The exit codes, which scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """How a command ended. Several databases: an error comes before being out of sync."""

    DONE = 0
    """In sync, or done."""
    ERROR = 1
    """An error, or a finding that is one."""
    USAGE = 2
    """The command line makes no sense."""
    OUT_OF_SYNC = 3
    """Out of sync, pending, waiting, refused or drifted."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C: 128 and the number of the signal, as shells have it."""
    READER_GONE = 141
    """Whoever read the output went away first."""
    TERMINATED = 143
    """Stopped by SIGTERM."""


def worst(exits: Iterable[Exit]) -> Exit:
    """The exit code of several databases together: an error before being out of sync, that before success."""
    found = set(exits)
    return next((each for each in (Exit.ERROR, Exit.OUT_OF_SYNC) if each in found), Exit.DONE)
