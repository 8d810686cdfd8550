"""Reading a secret's file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from reconciler.credentials.content import LARGEST, decoded, unavailable


class ReadFile(NamedTuple):
    """A secret that was read from a file.

    Args:
        text: the secret.
        place: where the file that was read is, behind all symbolic links.
    """

    text: str
    place: Path


def read_secret_file(path: Path, name: str) -> ReadFile:
    """Read the secret in a file. Blocking.

    Args:
        path: of the file; absolute.
        name: what messages call it.

    Raises:
        ProblemError: `SecretUnavailable`.
    """
    try:
        content, place = _read(path)
    except FileNotFoundError:
        raise unavailable(f"{name} does not exist", "create it, or correct the path") from None
    except PermissionError:
        raise unavailable(
            f"{name} may not be read", "give the reconciler's user the right to read it"
        ) from None
    except OSError as error:
        raise unavailable(
            f"{name} cannot be read: {error.strerror or error}", "put a plain file there"
        ) from None
    if content is None:
        raise unavailable(f"{name} is no plain file", "put a plain file there")
    return ReadFile(decoded(content, name, "put the secret into it"), place)


def _read(path: Path) -> tuple[bytes | None, Path]:
    """The content of `path`, one byte more than `LARGEST` at most, and where that is; None when it is no regular file."""
    # O_NONBLOCK: opening a pipe that nobody writes to must not hang
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None, path
        place = Path(os.path.realpath(path))
        if not os.path.samestat(found, os.stat(place)):
            # a link was moved meanwhile: what was read and where it is must belong together
            raise OSError("it was replaced while it was read")
        return file.read(LARGEST + 1), place
