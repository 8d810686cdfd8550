"""Certificates and keys as files, whichever way they were given: libpq takes only paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from reconciler.database.tls import SYSTEM
from reconciler.model import Problem, ProblemError, Reason

_PEM = "-----BEGIN "
_FOLDER = "reconciler-tls-"
_LOCK = "in-use"


class PemUse(NamedTuple):
    """What a certificate or key is for: each use has one at a time.

    Args:
        environment: the environment's name.
        database: the database's name.
        key: the key of the manifest that gives it, such as `ca`.
    """

    environment: str
    database: str
    key: str


class PemFiles:
    """Files, open to their owner only, that hold the PEM texts in use until `close`.

    A text that changes gets a new file, since a connection or a hook may be about to read the old one; the one before
    that is removed. What a process that was killed left behind is removed by the next one that writes any.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock: int | None = None
        """Held for as long as the folder is in use."""
        self._texts: dict[PemUse, list[tuple[str, Path]]] = {}

    def path(self, use: PemUse, given: str, base: Path | None) -> str:
        """The path of a file that holds what was given.

        Args:
            use: what it is for.
            given: PEM text, or a path, or `system` for an authority. Line ends of a text that are written out as a backslash and
                an n, as in files of variables, are made real.
            base: the folder that a relative path begins in; None for the working directory.

        Raises:
            ProblemError: `TlsFailed`: there is no such file, or it may not be read.
        """
        if _PEM not in given:
            return _existing(use.key, given.strip(), base)
        known = self._texts.setdefault(use, [])
        if not known or known[-1][0] != given:
            known.append((given, self._write(given)))
            if len(known) > 2:
                known.pop(0)[1].unlink(missing_ok=True)
        return str(known[-1][1])

    def close(self) -> None:
        """Remove every file."""
        if self._folder is None:
            return
        from shutil import rmtree

        rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        self._folder = self._lock = None
        self._texts.clear()

    def _write(self, text: str) -> Path:
        import tempfile

        if self._folder is None:
            _remove_left_behind(Path(tempfile.gettempdir()))
            self._folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
            self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            _is_ours(self._lock)
        if "\\n" in text and "\n" not in text.strip():
            text = text.replace("\\n", "\n")
        # mode 0600, as libpq demands of a key
        handle, name = tempfile.mkstemp(suffix=".pem", dir=self._folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        return Path(name)


def _remove_left_behind(folder: Path) -> None:
    """Remove the folders of processes that have ended without doing so."""
    from shutil import rmtree

    for left in folder.glob(f"{_FOLDER}*"):
        try:
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # another account's, or one that is being made
        try:
            if os.fstat(lock).st_uid == os.getuid() and _is_ours(lock):
                rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def _is_ours(lock: int) -> bool:
    """Take a lock; false when another process holds it."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _existing(key: str, given: str, base: Path | None) -> str:
    if key == "ca" and given == SYSTEM:
        return given
    path = Path(os.path.expanduser(given))
    if base is not None:
        path = base / path
    try:
        with open(path, "rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise ProblemError(
            Problem(
                reason=Reason.TLS_FAILED,
                message=f"`{key}` is no PEM text and names a file that cannot be read: {path}: {why}",
                remedy=f"correct the path, let the reconciler's user read the file, or give the PEM text itself as `{key}`",
            )
        ) from None
    return str(path)
