"""The processes of one PostgreSQL data folder: made by `initdb`, started, found again, stopped.

Whether a server lives is asked of a lock that it inherits and holds until the last of its processes is gone; its
process id is used only to send it a signal, and only after making sure that it is the server's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reconciler.embedded.account import Account
from reconciler.embedded.failure import explain
from reconciler.embedded.installation import Installation
from reconciler.embedded.locks import FileLock, is_free
from reconciler.embedded.log import ServerLog, rotate
from reconciler.embedded.wire import WireConnection, WireError
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.value import value

SUPERUSER = "postgres"
PORT = 5432
"""Part of the socket's name; no TCP port is opened unless the options say so."""

_HERE = "/proc/self/cwd"
_POLL_INTERVAL = 0.005
_STARTING_UP = "57P03"
_STALE_SERVER_TIMEOUT = 10.0


class PidFile(NamedTuple):
    """What a server writes about itself to `postmaster.pid`."""

    pid: int
    port: int
    socket_directory: str
    ready: bool

    @property
    def socket_path(self) -> str:
        """The socket file that the server listens on."""
        return f"{self.socket_directory}/.s.PGSQL.{self.port}"


@value
class Cluster:
    """One data folder.

    Args:
        data: the data folder.
        log: file that takes what `initdb` and the server write.
        lock: file whose lock the server holds while it lives.
    """

    data: Path
    log: Path
    lock: Path

    @property
    def exists(self) -> bool:
        """True when `initdb` has finished here."""
        return (self.data / "PG_VERSION").exists()

    @property
    def major(self) -> int | None:
        """The major version that the data belongs to, None without data."""
        try:
            text = (self.data / "PG_VERSION").read_text(errors="replace")
        except FileNotFoundError:
            return None
        number = text.strip().partition(".")[0]
        if not number.isdigit():
            raise ProblemError(explain("postgres", "PANIC: PG_VERSION holds no version", self.log, self.data))
        return int(number)

    @property
    def alive(self) -> bool:
        """True while a process of the server lives."""
        return not is_free(self.lock)

    def initialise(self, installation: Installation, account: Account, *, sync: bool = True) -> None:
        """Make the data folder. It gets its name only when it is complete, so an interruption leaves nothing half done.

        Args:
            installation: the programs to use.
            account: as whom to run them.
            sync: wait until everything is on disk.

        Raises:
            ProblemError: `initdb` failed; the message holds the end of what it wrote.
        """
        unfinished = self.data.with_name(self.data.name + ".unfinished")
        with self._own_lock() as lock, ServerLog(self.log) as log:
            if self.data.exists() and any(self.data.iterdir()):
                raise ProblemError(_not_a_data_folder(self.data))
            _remove_tree(unfinished)
            unfinished.mkdir(mode=0o700)
            if account.uid is not None and account.gid is not None:
                os.chown(unfinished, account.uid, account.gid)
            process = account.start(
                [
                    installation.program("initdb"),
                    f"--pgdata={_HERE if _must_use_here(account, unfinished) else unfinished}",
                    f"--username={SUPERUSER}",
                    "--encoding=UTF8",
                    *_locale_options(installation.major),
                    # the socket's folder is open to its owner only; TCP is off, and if somebody turns it on, he decides
                    "--auth-local=trust",
                    "--auth-host=reject",
                    *([] if sync else ["--no-sync"]),
                ],
                output=log.fileno(),
                folder=unfinished,
                keep_open=[lock.fileno()],
            )
            if process.wait() != 0:
                raise ProblemError(explain("initdb", log.tail(), self.log, unfinished))
            unfinished.rename(self.data)
            if sync:
                _sync_folder(self.data.parent)

    def launch(
        self,
        installation: Installation,
        account: Account,
        *,
        socket_directory: Path,
        options: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> PidFile:
        """Start the server and wait until it takes connections.

        Args:
            installation: the programs to use; of the data's major version.
            account: as whom to run them.
            socket_directory: an existing folder, short enough for a socket's path, open to its owner only.
            options: server settings that go before those of `postgresql.conf`.
            timeout: seconds to wait. A server that is still recovering after that is left to it.

        Raises:
            ProblemError: it did not start; the message holds the end of its log.
        """
        settings = {"listen_addresses": "", "port": str(PORT), **(options or {})}
        settings |= {"unix_socket_permissions": "0700"}
        arguments = [f"{name}={value}" for name, value in settings.items()]
        arguments.append(_socket_setting(str(socket_directory)))
        with self._own_lock() as lock:
            rotate(self.log)
            self._remove_stale_pid_file()
            if account.uid is not None and account.gid is not None:
                _give(self.data, account.uid, account.gid)
            with ServerLog(self.log) as log:
                self._start(installation, account, arguments, lock, log)
                return self._wait_until_ready(log, timeout)

    def find(self, *, timeout: float = 60.0) -> PidFile | None:
        """Return the server that runs on this data, waiting until it takes connections; None when none runs."""
        if not self.alive:
            return None
        with ServerLog(self.log) as log:
            try:
                return self._wait_until_ready(log, timeout)
            except ProblemError:
                if self.alive:
                    raise
                return None

    def stop(self, *, timeout: float = 60.0) -> None:
        """Stop the server: disconnect everybody, write everything, end. Does nothing when none runs.

        Args:
            timeout: seconds until it is ended at once; it then recovers from its log at the next start.

        Raises:
            ProblemError: it is still there.
        """
        for name, patience in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            if not self.alive or self._signal_until_gone(name, patience):
                return
        raise ProblemError(
            Problem(
                reason=Reason.INTERNAL_ERROR,
                message=f"the PostgreSQL server of {self.data} did not stop",
                remedy=f"see {self.log}",
            )
        )

    def kill(self) -> None:
        """End the server as a power failure would."""
        self._signal_until_gone(signal.SIGKILL, 10.0)

    def pid_file(self) -> PidFile | None:
        """What the data folder says of its server, alive or not."""
        try:
            lines = (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 5 or not lines[0].lstrip("-").isdigit() or not lines[3].isdigit():
            return None
        ready = len(lines) > 7 and lines[7].strip() in ("ready", "standby")
        return PidFile(abs(int(lines[0])), int(lines[3]), lines[4], ready)

    def _start(
        self,
        installation: Installation,
        account: Account,
        settings: list[str],
        lock: FileLock,
        log: ServerLog,
    ) -> None:
        process = account.start(
            [
                installation.program("postgres"),
                "-D",
                _HERE if _must_use_here(account, self.data) else str(self.data),
                *(part for setting in settings for part in ("-c", setting)),
            ],
            output=log.fileno(),
            folder=self.data,
            keep_open=[lock.fileno()],
        )
        lock.hand_over()
        # collects the exit status whenever it comes, also after somebody else has stopped the server
        threading.Thread(target=process.wait, name="embedded PostgreSQL", daemon=True).start()

    def _own_lock(self) -> _ServerLock:
        return _ServerLock(self.lock, self.data)

    def _wait_until_ready(self, log: ServerLog, timeout: float) -> PidFile:
        deadline = time.monotonic() + timeout
        complaint = "it does not answer on its socket"
        while self.alive:
            found = self.pid_file()
            if found is not None and found.ready and self._is_ours(found):
                try:
                    WireConnection(
                        found.socket_path, user=SUPERUSER, database="postgres", timeout=max(1.0, timeout)
                    ).close()
                    return found
                except OSError as error:
                    complaint = f"{found.socket_path}: {error}"
                except WireError as error:
                    if error.sqlstate != _STARTING_UP:
                        return found
                    complaint = error.message
            if time.monotonic() >= deadline:
                raise ProblemError(
                    Problem(
                        reason=Reason.CONNECTION_FAILED,
                        message=(
                            f"the embedded PostgreSQL of {self.data} runs but takes no connection "
                            f"after {timeout:g} s: {complaint}"
                        ),
                        remedy=f"if it is recovering, wait; otherwise see {self.log}",
                        detail=log.tail(),
                    )
                )
            time.sleep(_POLL_INTERVAL)
        raise ProblemError(explain("postgres", log.tail(), self.log, self.data))

    def _signal_until_gone(self, number: signal.Signals, timeout: float) -> bool:
        """Send a signal to the server and wait until none of its processes is left."""
        deadline = time.monotonic() + timeout
        signalled: int | None = None
        while self.alive:
            found = self.pid_file()
            # a server that has only just been started writes its process id a moment later
            if found is not None and found.pid != signalled and self._is_ours(found):
                try:
                    os.kill(found.pid, number)
                    signalled = found.pid
                except ProcessLookupError:
                    pass
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL)
        return True

    def _remove_stale_pid_file(self) -> None:
        """Remove the `postmaster.pid` of a dead server if its process id lives on as something else.

        PostgreSQL itself only sees that a process of that number exists, and refuses to start. That no server lives is
        known from the lock, which the caller holds; a server that somebody started by hand is told by its folder.
        """
        found = self.pid_file()
        if found is not None and not self._is_ours(found):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _is_ours(self, found: PidFile) -> bool:
        """Tell whether the process of `found` is a server on this data, and not another one of the same number.

        A server's working directory is its data folder. Looking there takes the right to trace, which root lacks in
        many containers for another account's processes; then, and on other systems than Linux, the command line tells.
        """
        if Path(_HERE).exists():
            try:
                return os.path.samestat(os.stat(f"/proc/{found.pid}/cwd"), os.stat(self.data))
            except (FileNotFoundError, ProcessLookupError):
                return False
            except PermissionError:
                pass
        return _socket_setting(found.socket_directory) in _command_line(found.pid)


class _ServerLock:
    """The lock of a server about to be started, taken by us until the server has inherited it."""

    def __init__(self, path: Path, data: Path) -> None:
        self._lock = FileLock(path)
        self._data = data

    def __enter__(self) -> FileLock:
        # an interrupted initdb, or the last processes of a killed server, may be about to end
        if not self._lock.acquire(exclusive=True, timeout=_STALE_SERVER_TIMEOUT):
            raise ProblemError(
                Problem(
                    reason=Reason.CONNECTION_FAILED,
                    message=f"processes of an earlier PostgreSQL server still use {self._data}",
                    remedy="it is tried again by itself; if it lasts, end the `postgres` or `initdb` processes that use it",
                )
            )
        return self._lock

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _not_a_data_folder(data: Path) -> Problem:
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"{data} is neither empty nor a folder that PostgreSQL made: it has no file PG_VERSION",
        remedy="move it away, or, if its content is not needed, delete it",
    )


def _locale_options(major: int) -> list[str]:
    """Sort by code point and know every letter's case: the same everywhere, whatever the machine's C library has."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    import locale

    saved = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        return ["--locale=C", "--lc-ctype=C.UTF-8"]
    except locale.Error:
        return ["--locale=C"]
    finally:
        locale.setlocale(locale.LC_CTYPE, saved)


def _socket_setting(directory: str) -> str:
    return f"unix_socket_directories={directory}"


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
    except OSError:
        pass  # not Linux, or the process is gone, and then `ps` does not find it either
    command = ["ps", "-o", "args=", "-p", str(pid)]
    return subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", check=False
    ).stdout


def _must_use_here(account: Account, folder: Path) -> bool:
    """True when `account` may use `folder` but cannot walk there, as below a home folder of mode 700.

    The program is then started inside and told that its folder is the working directory: all its processes stay there.
    """
    if account == Account() or not Path(_HERE).exists():
        return False
    return not account.can('cd "$1"', folder)


def _give(folder: Path, uid: int, gid: int) -> None:
    """Make everything in `folder` belong to the account that is to use it, if it does not yet."""
    if folder.stat().st_uid == uid:
        return
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)


def _remove_tree(path: Path) -> None:
    from shutil import rmtree

    if path.exists():
        rmtree(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
