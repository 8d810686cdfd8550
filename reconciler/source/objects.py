"""Reads git's object store through one `git cat-file --batch`: commits, trees and blobs by their ids.

Folders are found by walking tree objects, never by handing a path to git, so that no path can be taken for anything
else. Only regular files have a content; links and submodules are reported and left alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from subprocess import Popen
from types import TracebackType
from typing import IO, NamedTuple

from reconciler.model.value import value
from reconciler.source.failures import excerpt, printable
from reconciler.source.git import READ_DEADLINE, Git, kill

_AT_ONCE = 48
"""Requests written before the answers are read: they fit the smallest pipe there is (4 KiB), so nobody waits for ever."""
_LARGEST_TREE = 64 << 20
_LARGEST_COMMIT = 4 << 20
_ENTRY = {
    20: re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL),
    32: re.compile(rb"([0-7]+) ([^\0]+)\0(.{32})", re.DOTALL),
}
_SIGNATURE = re.compile(r"(?P<author>.*) (?P<seconds>-?\d+) [+-]\d+")
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


class ObjectsUnreadable(Exception):
    """An object that should be there is missing or damaged. The text says which, and what git said."""


class CommitUnknown(ObjectsUnreadable):
    """There is no such commit here: damage, or a branch that was rewritten."""


@value
class Commit:
    """A commit object."""

    id: str
    tree: str
    author: str
    committed_at: datetime


class Entry(NamedTuple):
    """One entry of a tree: octal mode, raw name, object id."""

    mode: bytes
    name: bytes
    id: str

    @property
    def is_file(self) -> bool:
        """A regular file, executable or not."""
        return self.mode in (b"100644", b"100755")

    @property
    def is_folder(self) -> bool:
        """Another tree."""
        return self.mode in (b"40000", b"040000")

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if self.is_file:
            return "a file"
        kinds = {b"120000": "a symbolic link", b"160000": "a submodule"}
        return (
            "a folder"
            if self.is_folder
            else kinds.get(self.mode, f"of the unknown mode {self.mode.decode()}")
        )


class ObjectReader:
    """A running `git cat-file --batch`; a context manager. Not for several threads at once."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._process: Popen[bytes]
        self._requests: IO[bytes]
        self._answers: IO[bytes]
        self._watchdog: threading.Timer

    def __enter__(self) -> ObjectReader:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(kind, error, trace)

    def commit(self, name: str) -> Commit | None:
        """The commit of this id or full reference name, None when there is none."""
        found = self._one(name, _LARGEST_COMMIT)
        if found is None:
            return None
        id, kind, content = found
        return _parse_commit(id, content) if kind == "commit" else None

    def tree(self, id: str) -> list[Entry]:
        """The entries of the tree object `id`."""
        found = self._one(id, _LARGEST_TREE)
        if found is None or found[1] != "tree":
            raise ObjectsUnreadable(f"the tree object {id} is missing or damaged: {self._reason(id)}")
        return _parse_tree(found[2], len(found[0]) // 2)

    def blobs(self, ids: Sequence[str], largest: int) -> Iterator[tuple[str, bytes | int]]:
        """Each blob's id and content, in order; the size instead of the content when that is over `largest` bytes.

        Raises:
            ObjectsUnreadable: a blob is missing or damaged.
        """
        position = 0
        while position < len(ids):
            some = ids[position : position + _AT_ONCE]
            self._ask(some)
            for id in some:
                header = self._header(id)
                if header is None or header[1] != "blob":
                    raise ObjectsUnreadable(f"the blob object {id} is missing or damaged: {self._reason(id)}")
                position += 1
                if header[2] > largest:
                    # unpacking it takes longer than a new process
                    yield id, header[2]
                    self._restart()
                    break
                yield id, self._content(id, header[2])

    def _start(self) -> None:
        self._context = self._git.conversation("cat-file", "--batch")
        self._process = self._context.__enter__()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._watchdog = threading.Timer(READ_DEADLINE, kill, (self._process,))
        self._watchdog.daemon = True
        self._watchdog.start()

    def _stop(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._context.__exit__(kind, error, trace)

    def _restart(self) -> None:
        self._stop(None, None, None)
        self._start()

    def _one(self, name: str, largest: int) -> tuple[str, str, bytes] | None:
        self._ask([name])
        header = self._header(name)
        if header is None:
            return None
        id, kind, size = header
        if size > largest:
            raise ObjectsUnreadable(f"the {kind} object {id} has {size} bytes, more than {largest}")
        return id, kind, self._content(id, size)

    def _ask(self, names: Sequence[str]) -> None:
        try:
            self._requests.write("".join(f"{name}\n" for name in names).encode())
            self._requests.flush()
        except BrokenPipeError:
            raise ObjectsUnreadable(f"git ended early: {self._reason(names[0])}") from None

    def _header(self, name: str) -> tuple[str, str, int] | None:
        line = self._answers.readline()
        parts = line.split()
        if len(parts) == 3 and line.endswith(b"\n") and parts[2].isdigit():
            return parts[0].decode(), parts[1].decode(), int(parts[2])
        if line.endswith(b" missing\n"):
            return None
        raise ObjectsUnreadable(f"the object {name} cannot be read: {self._reason(name)}")

    def _content(self, id: str, size: int) -> bytes:
        content = self._answers.read(size + 1)
        if len(content) != size + 1:
            raise ObjectsUnreadable(f"the object {id} is damaged: {self._reason(id)}")
        return content[:-1]

    def _reason(self, name: str) -> str:
        """Ask again with a command whose error output can be read to its end."""
        result = self._git.run("cat-file", "-p", name)
        return excerpt(result.errors)


def _parse_commit(id: str, content: bytes) -> Commit:
    head = content.partition(b"\n\n")[0]
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        fields.setdefault(key, value)
    encoding = fields.get(b"encoding", b"utf-8").decode("ascii", "replace")
    author, _ = _signature(fields.get(b"author", b""), encoding)
    _, committed_at = _signature(fields.get(b"committer", b""), encoding)
    tree = fields.get(b"tree", b"").decode("ascii", "replace")
    return Commit(id, tree, author, committed_at)


def _signature(raw: bytes, encoding: str) -> tuple[str, datetime]:
    try:
        text = raw.decode(encoding, "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    match = _SIGNATURE.fullmatch(text)
    if match is None:
        return printable(text), datetime.fromtimestamp(0, UTC)
    return printable(match["author"]), moment(match["seconds"])


def moment(seconds: str) -> datetime:
    """A commit's time; what lies beyond the calendar, as its nearest end."""
    return datetime.fromtimestamp(max(0, min(int(seconds[:20]), _LAST_SECOND)), UTC)


def _parse_tree(content: bytes, id_length: int) -> list[Entry]:
    entries = []
    end = 0
    for match in _ENTRY[id_length].finditer(content):
        if match.start() != end:
            break
        mode, name, id = match.groups()
        entries.append(Entry(mode, name, id.hex()))
        end = match.end()
    if end != len(content):
        raise ObjectsUnreadable("a tree object is malformed")
    return entries
