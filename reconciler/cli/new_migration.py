"""Naming, numbering and writing a new migration file."""

from __future__ import annotations

import fcntl
import os
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import ReconcilerError, UsageError
from reconciler.formats import leading_version
from reconciler.formats.file_name import HIGHEST_VERSION

_USUAL_WIDTH = 5
_TIMESTAMP = "%Y%m%d%H%M%S"
_TIMESTAMP_WIDTH = 14
_LONGEST_FILE_NAME = 255
"""Bytes, of nearly every file system."""


class Created(NamedTuple):
    """A file that was written."""

    path: Path
    version: int
    name: str


def write_migration(
    folder: Path, title: str, *, timestamp: bool, no_transaction: bool, now: datetime
) -> Created:
    """Write a new migration file.

    Two of these at the same time give two numbers: the folder is locked meanwhile.

    Args:
        folder: made if there is none.
        title: what it does, in words or already as a name.
        timestamp: number it by `now`; otherwise it is counted on from the highest number there is.
        no_transaction: ask for it to be run outside a transaction.
        now: the time, UTC.

    Raises:
        UsageError: `title` makes no name.
        ReconcilerError: the file cannot be written.
    """
    name = slug(title)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            number = next_number(os.listdir(folder), timestamp=timestamp, now=now)
            path = folder / f"{number}_{name}.sql"
            if len(os.fsencode(path.name)) > _LONGEST_FILE_NAME:
                raise UsageError(
                    f"the file's name would have more than {_LONGEST_FILE_NAME} bytes",
                    remedy="choose a shorter NAME",
                )
            text = template(path.name, title, now=now, no_transaction=no_transaction)
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        finally:
            os.close(handle)
    except OSError as error:
        raise ReconcilerError(
            f"cannot write a migration to {folder}: {error.strerror or error}",
            remedy="check the folder and its permissions, or name another one with --migrations",
        ) from error
    return Created(path, int(number), name)


def slug(title: str) -> str:
    """The part of the file's name that says what it does: letters and digits in lower case, joined by underscores.

    Raises:
        UsageError: nothing is left of it, or it is a path.
    """
    if "/" in title or "\\" in title or "\0" in title:
        raise UsageError(
            f"NAME {title!r} is a path", remedy="give the name only; the folder is given with --migrations"
        )
    title = unicodedata.normalize("NFC", title.strip()).removesuffix(".sql").lower()
    words = "".join(each if each.isalnum() else " " for each in title).split()
    if not words:
        raise UsageError(f"NAME {title!r} has no letter and no digit", remedy="say what the migration does")
    return "_".join(words)


def next_number(names: Iterable[str], *, timestamp: bool, now: datetime) -> str:
    """The number after the highest of the files `names`, as wide as its widest neighbour.

    Files that are no migrations by their ending count as well, if they begin with a number: a broken one is still in the
    way of another with its number.

    Raises:
        UsageError: there is no higher number.
    """
    numbers = {name: leading_version(name) for name in names if name.lower().endswith(".sql")}
    taken = {name: version for name, version in numbers.items() if version is not None}
    highest = max(taken.values(), default=0)
    if timestamp or _is_timestamp(highest):
        return str(max(int(now.strftime(_TIMESTAMP)), highest + 1))
    if highest >= HIGHEST_VERSION:
        raise UsageError(f"there is no number above {highest}", remedy="renumber the newest migration")
    widths = [len(name) - len(name.lstrip("0123456789")) for name in taken]
    return str(highest + 1).zfill(max(widths, default=_USUAL_WIDTH))


def template(file_name: str, title: str, *, now: datetime, no_transaction: bool) -> str:
    """The text of a new file: its header and two empty sections."""
    from reconciler.report.text import one_line

    description = one_line(title.strip().removesuffix(".sql").replace("_", " "))
    directive = "-- reconciler: no-transaction\n" if no_transaction else ""
    return (
        f"-- Migration: {file_name}\n"
        f"-- Description: {description[:1].upper()}{description[1:]}\n"
        f"-- Date: {now:%Y-%m-%d}\n"
        f"-- Author: {one_line(_author())}\n"
        f"{directive}"
        "\n"
        "-- UP MIGRATION\n"
        "\n"
        "\n"
        "-- DOWN MIGRATION\n"
        "\n"
    )


def _is_timestamp(version: int) -> bool:
    """True for a number that is a date and a time: whoever numbers like that goes on like that."""
    text = str(version)
    if len(text) != _TIMESTAMP_WIDTH:
        return False
    with suppress(ValueError):
        datetime.strptime(text, _TIMESTAMP)
        return True
    return False


def _author() -> str:
    """Who writes: as git is told by its environment, else the full name or the login name of the user."""
    if name := os.environ.get("GIT_AUTHOR_NAME", "").strip():
        return name
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        # the user id of a container may have no name
        return str(os.getuid())
    return entry.pw_gecos.partition(",")[0].strip() or entry.pw_name
