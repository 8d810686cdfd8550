"""Git as the source of truth: a local repository, a remote one, or a working tree under development.

Snapshots are read from git's object store, regular files only, never from a checkout. A repository is not trusted: see
`git.py` for what that means.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import UsageError
from reconciler.source.access import GitCredentials
from reconciler.source.url import is_remote

if TYPE_CHECKING:
    from reconciler.source.local import LocalSource
    from reconciler.source.remote import RemoteSource
    from reconciler.source.working_tree import WorkingTreeSource

    GitSource = LocalSource | RemoteSource | WorkingTreeSource
    """What `open_source` returns: a `Source` with `root`, the top level of its working tree, if it has one."""


def open_source(
    repository: str | None,
    *,
    branch: str | None,
    working_tree: bool,
    state_folder: Path,
    interval: float,
    credentials: GitCredentials,
) -> GitSource:
    """Open the repository to follow.

    Args:
        repository: a URL, or a folder; None for the repository that contains the working directory.
        branch: its short name; None pins the one that is checked out (of a URL: that HEAD names).
        working_tree: read uncommitted files of a local repository, for development.
        state_folder: where mirrors of remote repositories are kept.
        interval: seconds between looks at a remote repository.
        credentials: for a remote repository.

    Raises:
        UsageError: the arguments make no sense, alone or together.
        ProblemError: there is no such local repository, it is not to be trusted, or no branch is checked out.
    """
    if repository is not None and is_remote(repository):
        from reconciler.source.remote import RemoteSource

        if working_tree:
            raise UsageError("--working-tree needs a repository on this machine, not a URL")
        return RemoteSource(
            repository, branch=branch, state_folder=state_folder, interval=interval, credentials=credentials
        )
    if repository is not None and (not repository or repository.startswith("-") or "\0" in repository):
        raise UsageError(f"{repository!r} is neither a folder nor a repository URL")
    # without a name, a repository of another user is not accepted: it may have been put there for us to find
    path, trusted = (Path.cwd(), False) if repository is None else (Path(repository).expanduser(), True)
    if working_tree:
        from reconciler.source.working_tree import open_working_tree

        return open_working_tree(path, branch, trusted=trusted)
    from reconciler.source.local import open_local

    return open_local(path, branch, trusted=trusted)


__all__ = ["GitCredentials", "open_source"]
