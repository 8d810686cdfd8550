"""The log file that `initdb` and the server write to, and its end, which says what went wrong."""

from __future__ import annotations

import os
from pathlib import Path

_LARGEST_LOG = 10 * 1024 * 1024
"""Bytes."""


class ServerLog:
    """The log file, remembering where it ended when we came."""

    _TAIL_BYTES = 4000
    _TAIL_LINES = 15

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> ServerLog:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._start = os.fstat(self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor to hand to a program that writes to it."""
        return self._descriptor

    def tail(self) -> str:
        """The end of what was written since."""
        size = os.fstat(self._descriptor).st_size
        start = max(self._start, size - self._TAIL_BYTES)
        text = os.pread(self._descriptor, size - start, start).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-self._TAIL_LINES :])


def rotate(log: Path) -> None:
    """Begin a new log when the old one has grown large; one old one is kept."""
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_name(f"{log.name}.old"))
