"""A repository on this machine, followed on one branch. Only committed files are read, never the working tree."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from reconciler.model import Change, ProblemError, Revision, Snapshot
from reconciler.source.base import Objects, nothing_to_obtain, revision_of, tip
from reconciler.source.discovery import (
    Repository,
    checked_out_branch,
    claim_identity,
    discover,
    existing_branches,
)
from reconciler.source.failures import fetch_failed, no_such_branch, no_such_commit, repository_empty
from reconciler.source.folders import Limits
from reconciler.source.git import Git
from reconciler.source.history import is_ancestor
from reconciler.source.lane import Lane
from reconciler.source.names import check_branch
from reconciler.source.objects import Commit, CommitUnknown, ObjectsUnreadable
from reconciler.source.watching import ticks

_SLOWEST_LOOK = 2.0
"""Seconds between looks at the references where the system reports no events."""


def open_local(
    path: Path, branch: str | None = None, *, trusted: bool = True, limits: Limits | None = None
) -> LocalSource:
    """Open the repository that contains `path`.

    Args:
        path: a folder of a working tree, or a bare repository.
        branch: its short name; None pins the one checked out now, so that a later checkout moves no database.
        trusted: accept a repository of another user, because a person named it.
        limits: what is refused.

    Raises:
        ProblemError: there is no repository, it is not to be trusted, or no branch is checked out.
        UsageError: `branch` cannot be a branch.
    """
    lane = Lane()
    repository = discover(path, lane.processes, trusted=trusted)
    git = Git(lane.processes, git_dir=str(repository.git_dir))
    name = check_branch(branch) if branch is not None else checked_out_branch(repository, git)
    return LocalSource(repository, name, lane, trusted=trusted, limits=limits or Limits())


class LocalSource:
    """Implements `reconciler.model.Source`. Made by `open_local`."""

    def __init__(
        self, repository: Repository, branch: str, lane: Lane, *, trusted: bool, limits: Limits
    ) -> None:
        self._place = repository.top or repository.git_dir
        self._branch = branch
        self._lane = lane
        self._trusted = trusted
        self._limits = limits
        self._objects = Objects(limits)
        self._use(repository)
        self._identity: str | None = None
        self._seen: object = None

    @property
    def repository(self) -> str:
        """See `Source.repository`: the one of its `origin`, else its absolute path."""
        if self._identity is None:
            self._identity = claim_identity(self._repository, self._git)
        return self._identity

    @property
    def place(self) -> str:
        """See `Source.place`: the top level of the working tree, or the bare repository's folder."""
        return str(self._place)

    @property
    def branch(self) -> str:
        """See `Source.branch`."""
        return self._branch

    @property
    def root(self) -> Path | None:
        """The top level of the working tree, None for a bare repository."""
        return self._repository.top

    async def head(self) -> Revision:
        """See `Source.head`."""
        return await self._lane.run(self._head)

    async def read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        """See `Source.read`."""
        return await self._lane.run(self._read, revision, tuple(folders))

    async def last_change(self, revision: Revision, path: str) -> Change | None:
        """See `Source.last_change`."""
        return await self._lane.run(self._objects.last_change, self._git, revision.commit, path)

    async def is_ancestor(self, older: str, newer: str) -> bool | None:
        """See `Source.is_ancestor`."""
        return await self._lane.run(is_ancestor, self._git, older, newer)

    async def changes(self) -> AsyncIterator[None]:
        """See `Source.changes`. Yields when the branch points elsewhere than at the last `head()`, or what else counts moved."""
        async with aclosing(ticks(self._watched_folders, slowest=_SLOWEST_LOOK)) as beats:
            if self._moved():
                yield
            async for _ in beats:
                if self._moved():
                    yield

    async def close(self) -> None:
        """See `Source.close`."""
        self._lane.processes.stop()

    def _use(self, repository: Repository) -> None:
        self._repository = repository
        self._known = _inode(repository.git_dir)
        self._git = Git(self._lane.processes, git_dir=str(repository.git_dir))

    def _head(self) -> Revision:
        self._seen = self._reference_state()
        if _inode(self._repository.git_dir) != self._known:
            self._rediscover()
        commit = self._tip()
        if commit is None:
            raise self._missing()
        return revision_of(commit, self._branch)

    def _tip(self) -> Commit | None:
        try:
            return tip(self._git, self._branch)
        except ObjectsUnreadable as error:
            raise fetch_failed(
                f"could not read the branch {self._branch} of {self._repository}: {error}",
                remedy="check the repository with git fsck",
            ) from error

    def _rediscover(self) -> None:
        """What stood there is gone or was replaced, perhaps by a repository that keeps its parts elsewhere."""
        try:
            self._use(discover(self._place, self._lane.processes, trusted=self._trusted))
        except ProblemError as error:
            raise fetch_failed(
                f"the repository {self._place} cannot be read any more: {error.message}",
                remedy="it is picked up again as soon as it is back",
            ) from error

    def _missing(self) -> ProblemError:
        branches = existing_branches(self._git)
        if branches is None:
            return fetch_failed(f"the references of {self._repository} cannot be read")
        if not branches:
            return repository_empty(str(self._repository))
        if self._branch in branches:
            return fetch_failed(
                f"the branch {self._branch} of {self._repository} points at a commit that is missing",
                remedy="check the repository with git fsck",
            )
        return no_such_branch(str(self._repository), self._branch, branches)

    def _read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        try:
            return self._objects.snapshot(self._git, revision, folders, nothing_to_obtain)
        except CommitUnknown:
            raise no_such_commit(str(self._repository), revision.commit) from None
        except ObjectsUnreadable as error:
            raise self._unreadable(revision.commit, error) from error

    def _unreadable(self, commit: str, error: ObjectsUnreadable) -> ProblemError:
        return fetch_failed(
            f"could not read {commit[:12]} of {self._repository}: {error}",
            remedy="check the repository with git fsck; a partial clone needs git fetch --refetch --no-filter",
        )

    def _moved(self) -> bool:
        state = self._reference_state()
        if state == self._seen:
            return False
        self._seen = state
        return True

    def _reference_state(self) -> object:
        """Changes whenever the branch may point elsewhere; costs three system calls."""
        common = self._repository.common_dir
        return (
            _content(common / "refs" / "heads" / self._branch),
            _stamp(common / "packed-refs"),
            _content(common / "reftable" / "tables.list"),
            _inode(common),
        )

    def _watched_folders(self) -> list[str]:
        common = self._repository.common_dir
        heads = common / "refs" / "heads"
        nested = [str(heads.joinpath(*parts)) for parts in _prefixes(self._branch)]
        return [str(common), str(common / "refs"), str(heads), *nested, str(common / "reftable")]


def _prefixes(branch: str) -> list[list[str]]:
    parts = branch.split("/")[:-1]
    return [parts[: length + 1] for length in range(len(parts))]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
