"""The uncommitted files of a working tree, for development: what an editor saves is seen without a commit.

Regular files only. Every folder on the way is opened without following symbolic links, so that nothing outside the
repository can be read through it. The digest of all that was read is part of the revision: two states of the files that
differ are two revisions.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.errors import UsageError
from reconciler.model import File, Revision, Snapshot
from reconciler.source.discovery import checked_out_branch, discover
from reconciler.source.failures import branch_not_found, fetch_failed, printable
from reconciler.source.folders import Limits, check_count, file_name, oversize
from reconciler.source.git import Git
from reconciler.source.lane import Lane
from reconciler.source.local import LocalSource
from reconciler.source.names import check_branch, path_parts

_USUAL_FOLDERS = ("manifests", "migrations")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# a named pipe must not keep us waiting for its writer
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Listing = tuple[dict[str, File], dict[str, str]]
"""Files and skipped paths."""


def open_working_tree(
    path: Path, branch: str | None = None, *, trusted: bool = True, limits: Limits | None = None
) -> WorkingTreeSource:
    """Open the working tree that contains `path`.

    Args:
        path: a folder in it.
        branch: must be the one that is checked out; None pins it.
        trusted: accept a repository of another user, because a person named it.
        limits: what is refused.

    Raises:
        ProblemError: there is no repository, it is not to be trusted, or no branch is checked out.
        UsageError: it has no working tree, or `branch` cannot be a branch.
    """
    lane = Lane()
    repository = discover(path, lane.processes, trusted=trusted)
    if repository.top is None:
        raise UsageError(
            f"the repository {repository} has no working tree", remedy="leave --working-tree out"
        )
    git = Git(lane.processes, git_dir=str(repository.git_dir))
    name = check_branch(branch) if branch is not None else checked_out_branch(repository, git)
    return WorkingTreeSource(repository, name, lane, trusted=trusted, limits=limits or Limits())


class WorkingTreeSource(LocalSource):
    """Implements `reconciler.model.Source`. Made by `open_working_tree`."""

    _folders: tuple[str, ...] = _USUAL_FOLDERS
    _held: tuple[str, dict[str, Listing]] = ("", {})
    _files_seen: object = None

    def _head(self) -> Revision:
        revision = super()._head()
        self._check_checked_out()
        self._files_seen = self._file_state()
        listings = {folder: self._list(folder) for folder in self._folders}
        digest = _digest(listings)
        self._held = (digest, listings)
        return replace(revision, working_tree=True, digest=digest)

    def _read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        """Files as `head()` found them, so that the revision's digest is the one of what is returned."""
        digest, held = self._held
        files: dict[str, File] = {}
        skipped: dict[str, str] = {}
        for folder in folders:
            known = held.get(folder) if digest == revision.digest else None
            found, left_out = known if known is not None else self._list(folder)
            files |= found
            skipped |= left_out
        # the next head() looks at these, too
        self._folders = tuple(dict.fromkeys((*self._folders, *folders)))
        return Snapshot(revision, files, skipped)

    def _check_checked_out(self) -> None:
        current = checked_out_branch(self._repository, self._git)
        if current != self._branch:
            raise branch_not_found(
                f"the working tree {self._repository} now has {printable(current)} checked out, not {self._branch}",
                remedy=f"check out {self._branch} again, or start again to follow {printable(current)}",
            )

    def _list(self, folder: str) -> Listing:
        parts = path_parts(folder)
        if parts is None:
            return {}, {printable(folder): "it is not a path inside the repository"}
        place = "/".join(parts)
        descriptor, flaw = self._open_folder(parts)
        if descriptor is None:
            return {}, {place: flaw} if flaw else {}
        try:
            return _read_folder(descriptor, place, self._limits)
        finally:
            os.close(descriptor)

    def _open_folder(self, parts: Sequence[str]) -> tuple[int | None, str]:
        """Open a folder component by component. Without one: None and the reason, empty when it just does not exist."""
        try:
            descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise fetch_failed(f"the working tree {self._place} cannot be read: {error.strerror}") from error
        for part in parts:
            try:
                below = os.open(part, _FOLDER, dir_fd=descriptor)
            except FileNotFoundError:
                return None, ""
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    return None, "it is not a folder, or reached through a symbolic link"
                return None, f"it cannot be read: {error.strerror}"
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor, ""

    def _moved(self) -> bool:
        state = self._file_state()
        files_changed = state != self._files_seen
        self._files_seen = state
        return super()._moved() or files_changed

    def _file_state(self) -> object:
        """Names, sizes and times of the files: cheap, and changed whenever a file is written."""
        found = []
        for folder in self._folders:
            parts = path_parts(folder)
            descriptor = self._open_folder(parts)[0] if parts is not None and self._place.is_dir() else None
            if descriptor is None:
                continue
            try:
                with os.scandir(descriptor) as entries:
                    found += [(folder, entry.name, *_stamp(entry)) for entry in entries]
            finally:
                os.close(descriptor)
        return sorted(found)

    def _watched_folders(self) -> list[str]:
        parts = [path_parts(folder) for folder in self._folders]
        ways = {
            str(self._place.joinpath(*way[:depth])) for way in parts if way for depth in range(len(way) + 1)
        }
        return [*super()._watched_folders(), str(self._repository.git_dir), *sorted(ways)]


def _read_folder(descriptor: int, folder: str, limits: Limits) -> Listing:
    prefix = folder + "/" if folder else ""
    files: dict[str, File] = {}
    skipped: dict[str, str] = {}
    names = sorted(os.listdir(descriptor))
    check_count(folder, len(names), limits)
    total = 0
    for raw in names:
        name, flaw = file_name(os.fsencode(raw), len(prefix.encode()), limits)
        if not flaw:
            content = _read_file(descriptor, raw, limits)
            if content is None:
                continue
            if isinstance(content, bytes):
                files[prefix + name] = File(prefix + name, _blob_id(content), content)
                total += len(content)
                if total > limits.total_bytes:
                    raise fetch_failed(
                        f"the files of {folder or '/'} have more than {limits.total_bytes} bytes in all"
                    )
                continue
            flaw = content
        skipped[prefix + name] = flaw
    return files, skipped


def _read_file(folder: int, name: str, limits: Limits) -> bytes | str | None:
    """The content; or why it is skipped; or None for a folder and for what vanished in this moment."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "it is a symbolic link, not a regular file"
        return f"it cannot be read: {error.strerror}"
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            return "it is not a regular file"
        if status.st_size > limits.file_bytes:
            return oversize(status.st_size, limits)
        return _read_all(descriptor, limits)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, limits: Limits) -> bytes | str:
    content = bytearray()
    # it may grow while it is read
    while len(content) <= limits.file_bytes:
        more = os.read(descriptor, 1 << 20)
        if not more:
            return bytes(content)
        content += more
    return oversize(len(content), limits)


def _blob_id(content: bytes) -> str:
    """The id git gives to this content (in a repository with SHA-1 ids)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _digest(listings: dict[str, Listing]) -> str:
    state = hashlib.sha256()
    for files, skipped in listings.values():
        for file in files.values():
            state.update(f"{file.path}\0{file.blob}\n".encode("utf-8", "surrogateescape"))
        for path, why in skipped.items():
            state.update(f"{path}\0{why}\n".encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns
