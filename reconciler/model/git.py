"""What git says: revisions, files and who changed them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from reconciler.model.value import value


@value
class Revision:
    """One commit at the tip of the tracked branch, or the uncommitted working tree on top of it.

    Args:
        commit: 40 or 64 hex digits.
        branch: the short name of the branch that was followed.
        committed_at: the committer's date, UTC.
        author: `Name <address>` of the commit's author.
        working_tree: True when uncommitted files were read (`--working-tree`).
        digest: of the uncommitted files' names and contents, so that two states of them are two revisions; else empty.
    """

    commit: str
    branch: str
    committed_at: datetime
    author: str
    working_tree: bool = False
    digest: str = ""

    @property
    def short(self) -> str:
        """Twelve hex digits, with `+` when the working tree was read."""
        return self.commit[:12] + ("+" if self.working_tree else "")

    def __str__(self) -> str:
        return f"{self.branch}@sha1:{self.commit}" + ("+" if self.working_tree else "")


@value
class File:
    """A regular file at one revision.

    Args:
        path: from the repository's root, `/` separated.
        blob: git's object id of the content; equal ids mean equal bytes.
        content: the bytes.
    """

    path: str
    blob: str
    content: bytes


@value
class Snapshot:
    """The files of some folders at one revision.

    Args:
        revision: the commit that was read.
        files: path -> file, regular files only (modes 100644 and 100755).
        skipped: path -> why it was not read, for entries that are not plain files (symbolic link, submodule) or break
            a limit (too large). Never silently: whoever needs such a path gets to say so.
    """

    revision: Revision
    files: Mapping[str, File]
    skipped: Mapping[str, str]


@value
class Change:
    """The commit that last changed a path."""

    commit: str
    author: str
    committed_at: datetime
