"""A repository behind a URL, followed on one branch through a mirror on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from reconciler.errors import UsageError
from reconciler.model import Change, Revision, Snapshot
from reconciler.source.access import GitCredentials, remote_access
from reconciler.source.base import Objects, revision_of
from reconciler.source.failures import (
    branch_not_found,
    fetch_failed,
    no_such_branch,
    no_such_commit,
    repository_empty,
)
from reconciler.source.folders import Limits
from reconciler.source.history import is_ancestor
from reconciler.source.lane import Lane
from reconciler.source.mirror import Deadlines, Mirror
from reconciler.source.names import check_branch
from reconciler.source.objects import CommitUnknown, ObjectsUnreadable
from reconciler.source.url import parse_url

_JITTER = 0.1
_UNKNOWN_BRANCH = "HEAD"


class RemoteSource:
    """Implements `reconciler.model.Source`. Opening it touches neither disk nor network.

    Args:
        url: of the repository.
        branch: its short name; None pins the one that the server's HEAD names at the first look.
        state_folder: where mirrors are kept.
        interval: seconds between looks at the server, give or take a tenth.
        credentials: see `GitCredentials`.
        deadlines: see `Deadlines`.
        limits: what is refused.

    Raises:
        UsageError: the URL, branch or a credential is not acceptable.
    """

    def __init__(
        self,
        url: str,
        *,
        branch: str | None,
        state_folder: Path,
        interval: float,
        credentials: GitCredentials,
        deadlines: Deadlines | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._url = parse_url(url)
        self._branch = check_branch(branch) if branch is not None else None
        if interval <= 0:
            raise UsageError(f"the interval is {interval:g} s, and must be positive")
        self._interval = interval
        self._poked = asyncio.Event()
        self._objects = Objects(limits or Limits())
        self._credentials = credentials
        access = remote_access(self._url, credentials)
        # reading what is here must not wait for a server that does not answer
        self._fetching, self._reading = Lane(), Lane()
        self._server, self._mirror = (
            Mirror(state_folder, self._url, access, lane.processes, deadlines or Deadlines())
            for lane in (self._fetching, self._reading)
        )

    @property
    def repository(self) -> str:
        """See `Source.repository`."""
        return self._url.identity

    @property
    def place(self) -> str:
        """See `Source.place`."""
        return self._url.shown

    @property
    def branch(self) -> str:
        """See `Source.branch`. `HEAD` until the first `head()` when no branch was named."""
        return self._branch or _UNKNOWN_BRANCH

    @property
    def root(self) -> Path | None:
        """None: there is no working tree."""
        return None

    async def head(self) -> Revision:
        """See `Source.head`."""
        await self._renew_token()
        return await self._fetching.run(self._head)

    async def read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        """See `Source.read`."""
        return await self._reading.run(self._read, revision, tuple(folders))

    async def last_change(self, revision: Revision, path: str) -> Change | None:
        """See `Source.last_change`."""
        return await self._reading.run(self._objects.last_change, self._mirror.git, revision.commit, path)

    async def is_ancestor(self, older: str, newer: str) -> bool | None:
        """See `Source.is_ancestor`."""
        return await self._reading.run(is_ancestor, self._mirror.git, older, newer)

    async def changes(self) -> AsyncIterator[None]:
        """See `Source.changes`. Yields at every interval, and at once after `poke`."""
        import random

        while True:
            delay = self._interval * random.uniform(1 - _JITTER, 1 + _JITTER)
            try:
                async with asyncio.timeout(delay):
                    await self._poked.wait()
            except TimeoutError:
                pass
            self._poked.clear()
            yield

    def poke(self) -> None:
        """Have `changes` yield now: somebody says that the repository has changed."""
        self._poked.set()

    async def close(self) -> None:
        """See `Source.close`."""
        self._fetching.processes.stop()
        self._reading.processes.stop()

    async def _renew_token(self) -> None:
        if self._credentials.renew is None:
            return
        token = await self._credentials.renew()
        if token != self._credentials.token:
            renewed = replace(self._credentials, token=token)
            try:
                access = remote_access(self._url, renewed)
            except UsageError as error:
                raise fetch_failed(f"the new token cannot be used: {error.message}") from None
            self._credentials = renewed
            self._server.access = self._mirror.access = access

    def _head(self) -> Revision:
        branch = self._branch
        if branch is None:
            branch = self._branch = self._default_branch()
        branches = self._server.branches()
        if not branches:
            raise repository_empty(self._url.shown)
        if branch not in branches:
            raise no_such_branch(self._url.shown, branch, sorted(branches))
        return revision_of(self._server.update(branch, branches[branch]), branch)

    def _default_branch(self) -> str:
        branch = self._server.default_branch()
        if branch is not None:
            return check_branch(branch)
        if not self._server.branches():
            raise repository_empty(self._url.shown)
        raise branch_not_found(
            f"the server does not say which branch of {self._url.shown} is the default one",
            remedy="name one with --branch",
        )

    def _read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        obtain = partial(self._mirror.obtain, revision.branch)
        try:
            return self._objects.snapshot(self._mirror.git, revision, folders, obtain)
        except ObjectsUnreadable as error:
            if isinstance(error, CommitUnknown) and self._mirror.is_readable(revision.branch):
                raise no_such_commit(self._url.shown, revision.commit) from None
            self._mirror.rebuild(revision.branch)
        try:
            return self._objects.snapshot(self._mirror.git, revision, folders, obtain)
        except ObjectsUnreadable as error:
            raise fetch_failed(
                f"could not read {revision.short} of {self._url.shown}, even from a new mirror: {error}"
            ) from error
