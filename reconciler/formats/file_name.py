"""The names of migration files: `00001_add_multitenancy.sql`."""

from __future__ import annotations

import re
from typing import NamedTuple

from reconciler.model import Place, Problem, ProblemError, Reason

HIGHEST_VERSION = 2**63 - 1
"""What a BIGINT holds."""
LONGEST_NAME = 255
"""What the column `name` of the history holds, in characters."""
_EXPECTED = "name it <number>_<what_it_does>.sql, such as 00042_add_invoices.sql"
_NAME = re.compile(r"(?P<number>[0-9]+)_(?P<name>.+)\.sql", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+")


class FileName(NamedTuple):
    """What a file's name says: version and name."""

    version: int
    name: str


def parse_file_name(path: str) -> FileName:
    """Read version and name out of the last part of `path`.

    Raises:
        ProblemError: `MigrationInvalid`, when it does not fit.
    """
    file_name = path.rpartition("/")[2]
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise _invalid(path, f"{_shown(file_name)} is not the name of a migration", _EXPECTED)
    version = leading_version(path)
    if version is None:
        raise _invalid(
            path,
            f"the number of {_shown(file_name)} is out of range",
            f"versions go from 1 to {HIGHEST_VERSION}; {_EXPECTED}",
        )
    name = match["name"]
    if not name.isprintable() or not name.strip():
        raise _invalid(
            path, f"the name of {_shown(file_name)} has characters that cannot be printed", _EXPECTED
        )
    if len(name) > LONGEST_NAME:
        raise _invalid(
            path,
            f"the name of {_shown(file_name)} has {len(name)} characters",
            f"at most {LONGEST_NAME} fit into the history",
        )
    return FileName(version, name)


def leading_version(path: str) -> int | None:
    """The number a file's name begins with, whatever follows it; None when there is none in range."""
    match = _NUMBER.match(path, path.rfind("/") + 1)
    if match is None or len(match[0].lstrip("0")) > len(str(HIGHEST_VERSION)):
        return None
    version = int(match[0])
    return version if 1 <= version <= HIGHEST_VERSION else None


def _shown(file_name: str) -> str:
    shown = file_name if len(file_name) <= 80 else file_name[:80] + "…"
    return shown if shown.isprintable() else ascii(shown)


def _invalid(path: str, message: str, remedy: str) -> ProblemError:
    return ProblemError(
        Problem(
            reason=Reason.MIGRATION_INVALID,
            message=message,
            remedy=remedy,
            place=Place(path, 1),
            version=leading_version(path),
        )
    )
