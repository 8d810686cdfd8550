"""What a server needs while it runs and not after: a folder for its socket, and programs its account can read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from reconciler.embedded.account import Account
from reconciler.embedded.installation import Installation
from reconciler.model import Problem, ProblemError, Reason

_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes a Unix socket's address has room for."""
_SOCKET_NAME = ".s.PGSQL.65535"
_LINK = "runtime"
_PREFIX = "reconciler-"


class Runtime:
    """The passing things of one server, in its own folder where that works and else in a folder for temporary files.

    Beside the data is best: no cleaner of `/tmp` finds it, and it is the same folder for a service that has a `/tmp` of
    its own. But a socket's path is short, its folder is a comma-separated list to PostgreSQL, and another account may
    not be able to walk there.

    Args:
        home: the folder of everything that belongs to the server.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._temporary: Path | None = None

    def prepare(self, account: Account, installation: Installation) -> tuple[Path, Installation]:
        """Return the socket's folder, new and open to `account` only, and programs that `account` can run.

        Raises:
            ProblemError: there is no place for the socket, or `account` cannot run the programs.
        """
        self.remove()
        beside = self._home / "socket"
        if _fits(beside) and (account == Account() or account.can('cd "$1"', self._home)):
            socket_directory = beside
        else:
            socket_directory = self._folder(account) / "socket"
        socket_directory.mkdir(mode=0o700)
        if account.uid is not None and account.gid is not None:
            os.chown(socket_directory, account.uid, account.gid)
        return socket_directory, self._readable(account, installation)

    def remove(self) -> None:
        """Remove everything, also what an earlier process left. The server must be down."""
        from shutil import rmtree

        rmtree(self._home / "socket", ignore_errors=True)
        link = self._home / _LINK
        # ours from memory as well: the link is gone when somebody deleted the whole folder
        temporary = [self._temporary] if self._temporary is not None else []
        if link.is_symlink():
            temporary.append(Path(os.readlink(link)))
            link.unlink()
        for folder in temporary:
            # only what we made: by now a folder of that name might be somebody else's
            if folder.name.startswith(_PREFIX) and _belongs_to_us(folder):
                rmtree(folder, ignore_errors=True)
        self._temporary = None

    def _readable(self, account: Account, installation: Installation) -> Installation:
        if account == Account() or account.can('"$1" --version', installation.program("postgres")):
            return installation
        if not installation.from_wheel:
            raise ProblemError(
                Problem(
                    reason=Reason.PERMISSION_DENIED,
                    message=f"the account that is to run PostgreSQL cannot run {installation.program('postgres')}",
                    remedy="make that folder readable to everybody, or run the reconciler as an ordinary user",
                )
            )
        return _copy(installation, self._folder(account))

    def _folder(self, account: Account) -> Path:
        """The temporary folder, made when first needed and remembered by a link beside the data."""
        if self._temporary is None:
            self._temporary = _make_temporary(account)
            os.symlink(self._temporary, self._home / _LINK)
        return self._temporary


def _fits(folder: Path) -> bool:
    """Tell whether a socket can be in `folder` and be named to PostgreSQL and libpq, which split at commas."""
    path = os.fsencode(folder / _SOCKET_NAME)
    return (
        len(path) <= _LONGEST_SOCKET_PATH and not set(str(folder)) & set(',"\n\r') and _takes_sockets(folder)
    )


def _takes_sockets(folder: Path) -> bool:
    """Tell whether the file system knows sockets: those shared with a virtual machine's host often do not."""
    import socket

    probe = folder.with_name(f"probe-{os.getpid()}")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(probe))
        except OSError:
            return False
        probe.unlink()
    return True


def _make_temporary(account: Account) -> Path:
    import tempfile

    refused: list[str] = []
    for parent in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if not parent or not os.path.isabs(parent):
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            refused.append(f"{parent}: {error.strerror}")
            continue
        if account.is_other:
            # to be walked through, not listed; what is inside has modes of its own
            folder.chmod(0o711)
        if _fits(folder / "socket") and (account == Account() or account.can('cd "$1"', folder)):
            return folder
        folder.rmdir()
        refused.append(f"{parent}: too long, or not to be reached by the server's account")
    raise ProblemError(
        Problem(
            reason=Reason.CONNECTION_FAILED,
            message=f"found no folder for the embedded PostgreSQL's socket: {'; '.join(refused)}",
            remedy="set TMPDIR to a folder with a short path that can be written to",
        )
    )


def _copy(installation: Installation, folder: Path) -> Installation:
    """Copy the wheel's programs, libraries and data files, in the places they have relative to each other."""
    from shutil import copytree, ignore_patterns

    package = installation.programs.parent.parent
    target = folder / "programs" / package.name
    for part in ("bin", "lib", "share"):
        copytree(
            package / "pginstall" / part,
            target / "pginstall" / part,
            ignore=ignore_patterns("*.a", "pgxs", "pkgconfig"),
        )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        copytree(libraries, target.with_name(libraries.name))
    for parent, _, files in os.walk(folder / "programs"):
        os.chmod(parent, 0o755)
        for name in files:
            path = os.path.join(parent, name)
            os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
    return Installation(target / "pginstall" / "bin", installation.major, from_wheel=True)


def _belongs_to_us(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False
