"""Locks between processes: `flock` on a file, freed by the kernel when the last process that holds it dies.

A process id in a file can belong to somebody else by the time it is read; a lock cannot.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_POLL_INTERVAL = 0.01
"""Seconds between two tries. Blocking for good in `flock` could be neither bounded nor interrupted."""


class FileLock:
    """One holder of a lock file. Not inherited by programs this process starts, unless its descriptor is passed on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """True between a successful acquire and the release."""
        return self._descriptor is not None

    @property
    def is_current(self) -> bool:
        """True while the lock is held and its path still names the file it is held on."""
        return self._descriptor is not None and _is_at(self._descriptor, self.path)

    def fileno(self) -> int:
        """The descriptor to pass on to a program that is to hold the lock as well."""
        if self._descriptor is None:
            raise ValueError(f"lock {self.path} is not held")
        return self._descriptor

    def acquire(self, *, exclusive: bool, timeout: float) -> bool:
        """Take the lock, shared or exclusive, within `timeout` seconds; 0 tries once. False when it stayed taken."""
        if self._descriptor is not None:
            raise ValueError(f"lock {self.path} is already held")
        deadline = time.monotonic() + timeout
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # a lock on a file that was deleted meanwhile keeps nobody out
            if _try_lock(descriptor, exclusive=exclusive) and _is_at(descriptor, self.path):
                self._descriptor = descriptor
                return True
            os.close(descriptor)
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL)

    def try_upgrade(self) -> bool:
        """Turn a shared lock into an exclusive one if nobody else holds it; otherwise give it up and return False.

        Of several holders that do this at the same time at least one succeeds or sees another succeed: each drops its
        share before it asks, so the last one to ask finds nobody.
        """
        if _try_lock(self.fileno(), exclusive=True):
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give the lock up, for everybody it was passed on to as well."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.hand_over()

    def hand_over(self) -> None:
        """Let go of the lock without freeing it: the program it was passed on to holds it from now on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_free(path: Path) -> bool:
    """Tell whether nobody holds the lock exclusively. Asks by a shared lock, so that two who ask do not see each other."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _try_lock(descriptor, exclusive=False)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
