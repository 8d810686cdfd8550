"""Files on disk, for the verbs that read what is not committed yet, or no repository at all. Nothing here runs git."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from reconciler.model import File, Revision, Snapshot

MANIFESTS = "manifests"
MIGRATIONS = "migrations"
_LARGEST = 16 << 20
"""Bytes of a file that are still read, as from git."""


def repository_root(start: Path) -> Path | None:
    """The top level of the repository that contains `start`, None when there is none."""
    absolute = Path(os.path.abspath(start))
    for folder in (absolute, *absolute.parents):
        if (folder / ".git").exists():
            return folder
    return None


def is_bare_repository(folder: Path) -> bool:
    """True for a repository without a working tree, or the inside of one with."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def migrations_folder(root: Path) -> str:
    """The folder of the migrations: the one that the manifests on disk name, `migrations` if they do not agree."""
    from reconciler.manifest import Manifest, read_manifests

    # a manifest that cannot be read is no reason not to write a file; `validate` tells what is wrong with it
    found = read_manifests(read_folders(root, [MANIFESTS])).values()
    folders = {manifest.migrations for manifest in found if isinstance(manifest, Manifest)}
    return folders.pop() if len(folders) == 1 else MIGRATIONS


def read_folders(root: Path, folders: Sequence[str]) -> Snapshot:
    """Read the regular files directly in `folders` of `root`. A folder that does not exist has no files.

    Raises:
        OSError: a folder cannot be listed.
    """
    files: dict[str, File] = {}
    skipped: dict[str, str] = {}
    for folder in folders:
        place = root / folder
        try:
            names = sorted(os.listdir(place))
        except FileNotFoundError:
            continue
        for name in names:
            path = name if folder in ("", ".") else f"{folder.strip('/')}/{name}"
            content = _read(place / name)
            if isinstance(content, bytes):
                blob = hashlib.sha256(content).hexdigest()
                files[path] = File(path, blob, content)
            elif content is not None:
                skipped[path] = content
    return Snapshot(_REVISION, files, skipped)


_REVISION = Revision("", "", datetime.fromtimestamp(0, UTC), "", working_tree=True)
"""Files on disk are of no commit."""


def _read(path: Path) -> bytes | str | None:
    """The content of a regular file; why it was not read; or None for a folder, which is none of our business."""
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return None
        if stat.S_ISLNK(status.st_mode):
            return "it is a symbolic link"
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if status.st_size > _LARGEST:
            return f"it has {status.st_size:,} bytes, and {_LARGEST:,} are the most that is read"
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
