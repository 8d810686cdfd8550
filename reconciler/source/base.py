"""What every source has in common: reading files and history of a commit that is on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model import Change, File, Revision, Snapshot
from reconciler.source.folders import FolderCache, Limits, Obtain, read_folders
from reconciler.source.git import Git
from reconciler.source.history import History
from reconciler.source.names import is_commit
from reconciler.source.objects import Commit, CommitUnknown, ObjectReader


class Objects:
    """Reads commits that a repository on this machine has. Blocking; one thread at a time.

    Args:
        limits: what is refused.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cache = FolderCache(total_bytes=limits.total_bytes)
        self._history = History()

    def snapshot(self, git: Git, revision: Revision, folders: Sequence[str], obtain: Obtain) -> Snapshot:
        """Read `folders` at `revision` with a single git process, unless blobs must be obtained first.

        Raises:
            CommitUnknown: the repository does not have the commit.
            ObjectsUnreadable: the repository is damaged or incomplete.
            ProblemError: a limit is exceeded.
        """
        with ObjectReader(git) as reader:
            commit = reader.commit(revision.commit) if is_commit(revision.commit) else None
            if commit is None:
                raise CommitUnknown(f"the repository has no commit {revision.commit[:12]}")
            found = read_folders(
                reader, commit.tree, folders, cache=self._cache, obtain=obtain, limits=self._limits
            )
        files: dict[str, File] = {}
        skipped: dict[str, str] = {}
        for folder in found:
            files |= folder.files
            skipped |= folder.skipped
        return Snapshot(revision, files, skipped)

    def last_change(self, git: Git, commit: str, path: str) -> Change | None:
        """See `Source.last_change`."""
        return self._history.last_change(git, commit, path)


def tip(git: Git, branch: str) -> Commit | None:
    """The newest commit of `branch`, None when there is no such branch (or no such repository)."""
    with ObjectReader(git) as reader:
        return reader.commit(f"refs/heads/{branch}")


def revision_of(commit: Commit, branch: str) -> Revision:
    """The revision that `commit` is, as the tip of `branch`."""
    return Revision(commit.id, branch, commit.committed_at, commit.author)


def nothing_to_obtain(trees: Sequence[str], blobs: Sequence[str]) -> None:
    """A local repository has all its objects, or it is damaged."""
