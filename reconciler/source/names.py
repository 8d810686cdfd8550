"""What may be handed to git: branch names, commits, folders and paths are checked here before they get near a command."""

from __future__ import annotations

import re

from reconciler.errors import UsageError

_FORBIDDEN_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 1024
"""Bytes of a branch name or a path."""


def check_branch(name: str) -> str:
    """Return `name` when it can be the short name of a branch, by the rules of git-check-ref-format.

    Raises:
        UsageError: it cannot.
    """
    parts = name.split("/")
    if (
        not name
        or len(name.encode("utf-8", "surrogateescape")) > _LONGEST
        or _FORBIDDEN_IN_BRANCH.search(name)
        or name.startswith("-")
        or name.endswith(".")
        or name in ("@", "HEAD")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
        or not _is_utf8(name)
    ):
        raise UsageError(
            f"{name!r} cannot be the name of a branch", remedy="give its short name, such as main"
        )
    return name


def is_commit(text: str) -> bool:
    """True for a full object id: 40 or 64 lower-case hex digits."""
    return _COMMIT.fullmatch(text) is not None


def path_parts(path: str) -> tuple[str, ...] | None:
    """The components of a path from the repository's root; `()` for the root, None for what cannot be in a repository."""
    if _CONTROL.search(path) or path.startswith("/") or not _is_utf8(path) or len(path.encode()) > _LONGEST:
        return None
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if any(part == ".." or part.lower() == ".git" for part in parts):
        return None
    return parts


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
