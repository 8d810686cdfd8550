"""The files of folders at a commit. What a new commit left alone is not read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reconciler.model import File, ProblemError
from reconciler.model.value import value
from reconciler.source.failures import fetch_failed, printable
from reconciler.source.names import path_parts
from reconciler.source.objects import Entry, ObjectReader

Obtain = Callable[[Sequence[str], Sequence[str]], None]
"""Makes sure that blobs are on this machine: called with the trees that name them and the blobs' own ids."""


@value
class Limits:
    """What is refused, to keep a hostile or mistaken repository from filling the memory.

    Args:
        files: entries of one folder.
        file_bytes: size of one file; a larger one is skipped.
        total_bytes: size of all files of one reading.
        path_bytes: length of a path; a longer one is skipped.
    """

    files: int = 20_000
    file_bytes: int = 16 << 20
    total_bytes: int = 256 << 20
    path_bytes: int = 1024


@value
class Folder:
    """The files directly in one folder.

    Args:
        tree: the id of the tree object; empty when there is no such folder.
        files: path -> file.
        skipped: path -> why.
        too_large: blob -> size, of the files over the limit.
        size: bytes of all contents.
    """

    tree: str
    files: Mapping[str, File]
    skipped: Mapping[str, str]
    too_large: Mapping[str, int]
    size: int


_NOTHING = Folder("", {}, {}, {}, 0)


class FolderCache:
    """The newest state of each folder read so far; bounded in number and in bytes."""

    def __init__(self, *, folders: int = 64, total_bytes: int = Limits().total_bytes) -> None:
        self._most_folders = folders
        self._most_bytes = total_bytes
        self._folders: dict[str, Folder] = {}

    def __getitem__(self, path: str) -> Folder:
        return self._folders.get(path, _NOTHING)

    def __setitem__(self, path: str, folder: Folder) -> None:
        self._folders.pop(path, None)
        self._folders[path] = folder
        total = sum(kept.size for kept in self._folders.values())
        while len(self._folders) > self._most_folders or (
            total > self._most_bytes and len(self._folders) > 1
        ):
            oldest = next(iter(self._folders))
            total -= self._folders.pop(oldest).size


def read_folders(
    reader: ObjectReader,
    root: str,
    paths: Sequence[str],
    *,
    cache: FolderCache,
    obtain: Obtain,
    limits: Limits,
) -> list[Folder]:
    """Read the regular files directly in each of `paths`.

    Args:
        reader: of the repository.
        root: the id of the commit's tree.
        paths: folders from the repository's root; one that does not exist has no files.
        cache: what earlier calls read; brought up to date.
        obtain: see `Obtain`.
        limits: see `Limits`.

    Raises:
        ObjectsUnreadable: the repository is damaged or incomplete.
        ProblemError: a folder has too many files, or all of them together are too large.
    """
    trees: dict[str, list[Entry]] = {}
    listings: list[_Listing] = []
    for path in dict.fromkeys(paths):
        listing = _list(reader, root, path, trees, cache, limits)
        if listing is not None:
            listings.append(listing)
    changed = [listing for listing in listings if listing.wanted]
    missing = list(dict.fromkeys(blob for listing in changed for _, blob in listing.wanted))
    loaded: dict[str, bytes | int] = {}
    if missing:
        obtain([listing.tree for listing in changed], missing)
        budget = limits.total_bytes - sum(file_size(listing.kept) for listing in listings)
        for blob, content in reader.blobs(missing, limits.file_bytes):
            loaded[blob] = content
            budget -= len(content) if isinstance(content, bytes) else 0
            if budget < 0:
                raise _too_large(listings, limits)
    folders = [_complete(listing, loaded, limits) for listing in listings]
    if sum(folder.size for folder in folders) > limits.total_bytes:
        raise _too_large(listings, limits)
    for listing, folder in zip(listings, folders, strict=True):
        if folder.tree:
            cache[listing.path] = folder
    return folders


def file_size(files: Mapping[str, File]) -> int:
    """Bytes of all contents."""
    return sum(len(file.content) for file in files.values())


@value
class _Listing:
    path: str
    tree: str
    kept: dict[str, File]
    wanted: list[tuple[str, str]]
    skipped: dict[str, str]
    too_large: dict[str, int]


def _walk(
    reader: ObjectReader, root: str, parts: Sequence[str], trees: dict[str, list[Entry]]
) -> Entry | None:
    entry: Entry | None = Entry(b"40000", b"", root)
    for part in parts:
        if entry is None or not entry.is_folder:
            return None
        if entry.id not in trees:
            trees[entry.id] = reader.tree(entry.id)
        name = part.encode()
        entry = next((candidate for candidate in trees[entry.id] if candidate.name == name), None)
    return entry


def _list(
    reader: ObjectReader,
    root: str,
    path: str,
    trees: dict[str, list[Entry]],
    cache: FolderCache,
    limits: Limits,
) -> _Listing | None:
    parts = path_parts(path)
    if parts is None:
        return _Listing(path, "", {}, [], {printable(path): "it is not a path inside the repository"}, {})
    folder = "/".join(parts)
    entry = _walk(reader, root, parts, trees)
    if entry is None:
        return None
    if not entry.is_folder:
        return _Listing(folder, "", {}, [], {folder: f"it is {entry.kind}, not a folder"}, {})
    known = cache[folder]
    if known.tree == entry.id:
        return _Listing(folder, entry.id, dict(known.files), [], dict(known.skipped), dict(known.too_large))
    if entry.id not in trees:
        trees[entry.id] = reader.tree(entry.id)
    return _compare(folder, entry.id, trees[entry.id], known, limits)


def _compare(folder: str, tree: str, entries: Sequence[Entry], known: Folder, limits: Limits) -> _Listing:
    """Tell what is known already from what must be read."""
    check_count(folder, len(entries), limits)
    prefix = folder + "/" if folder else ""
    listing = _Listing(folder, tree, {}, [], {}, {})
    for entry in entries:
        if entry.is_folder:
            continue
        name, flaw = file_name(entry.name, len(prefix.encode()), limits)
        path = prefix + name
        if flaw:
            listing.skipped[path] = flaw
        elif not entry.is_file:
            listing.skipped[path] = f"it is {entry.kind}, not a regular file"
        elif entry.id in known.too_large:
            size = listing.too_large[entry.id] = known.too_large[entry.id]
            listing.skipped[path] = oversize(size, limits)
        elif (file := known.files.get(path)) is not None and file.blob == entry.id:
            listing.kept[path] = file
        else:
            listing.wanted.append((path, entry.id))
    return listing


def _complete(listing: _Listing, loaded: Mapping[str, bytes | int], limits: Limits) -> Folder:
    for path, blob in listing.wanted:
        content = loaded[blob]
        if isinstance(content, bytes):
            listing.kept[path] = File(path, blob, content)
        else:
            listing.too_large[blob] = content
            listing.skipped[path] = oversize(content, limits)
    return Folder(listing.tree, listing.kept, listing.skipped, listing.too_large, file_size(listing.kept))


def _too_large(listings: Sequence[_Listing], limits: Limits) -> ProblemError:
    return fetch_failed(
        f"the files of {', '.join(listing.path or '/' for listing in listings)} have more than "
        f"{limits.total_bytes} bytes in all",
        remedy="remove what does not belong there from the repository",
    )


def file_name(raw: bytes, prefix_bytes: int, limits: Limits) -> tuple[str, str]:
    """A file's name as text, and why it cannot be used (empty when it can)."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return raw.decode("ascii", "backslashreplace"), "its name is not UTF-8"
    if name in (".", "..") or "/" in name or not name.isprintable():
        return raw.decode("ascii", "backslashreplace") if name.isprintable() else printable(name), (
            "its name has characters that a file's name should not have"
        )
    if prefix_bytes + len(raw) > limits.path_bytes:
        return name, f"its path is longer than {limits.path_bytes} bytes"
    return name, ""


def check_count(folder: str, entries: int, limits: Limits) -> None:
    """Refuse a folder with too many entries."""
    if entries > limits.files:
        raise fetch_failed(
            f"the folder {folder or '/'} has {entries} entries, more than {limits.files}",
            remedy="remove what does not belong there from the repository",
        )


def oversize(size: int, limits: Limits) -> str:
    """Why a file of `size` bytes is skipped."""
    return f"it has {size} bytes, more than the {limits.file_bytes} that a file may have"
