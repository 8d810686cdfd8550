"""The embedded PostgreSQL: one server for everything in a `.reconciler/` folder that says `dsn: embedded`.

Several processes use it at once: a daemon, and commands typed meanwhile. Each holds a shared lock for as long as it
does. The first one starts the server and the last one out stops it; who comes while it is being stopped waits for that
and starts it again. A process that is killed lets go of its lock by dying: the server it may leave behind is used, and
in the end stopped, by the next one.

Nobody is asked for a password, and nobody needs one: the server has no TCP port, and its socket lies in a folder that
only the user who runs it (and root) can enter. Whoever can enter can read the data files as well. A password would have
to lie beside them, and `peer` would compare users inside a user namespace, where root is called something else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reconciler.embedded.account import choose_account
from reconciler.embedded.cluster import SUPERUSER, Cluster, PidFile
from reconciler.embedded.installation import find_installation
from reconciler.embedded.locks import FileLock
from reconciler.embedded.naming import LONGEST_NAME, conninfo
from reconciler.embedded.runtime import Runtime
from reconciler.embedded.wire import WireConnection, WireError, quote_identifier, quote_literal
from reconciler.model import Problem, ProblemError, Reason

_MAINTENANCE_DATABASE = "postgres"
_LOCK_TIMEOUT = 120.0
"""Seconds to wait for another process that is starting or stopping the server."""
_QUERY_TIMEOUT = 60.0
_ALREADY_THERE = ("42P04", "23505")
"""duplicate_database, unique_violation: another process made it at the same moment."""

_Result = TypeVar("_Result")


class EmbeddedServer:
    """The PostgreSQL server of one `.reconciler/` folder, shared with other processes.

    Every method may be called at any time and more than once. The server is kept durable (`fsync` on) like any other.

    Args:
        folder: the `.reconciler` folder; made when first needed. Data, log and locks are in `postgresql/` below it.
        user_namespaces: False does without user namespaces when root, even where they work.
    """

    def __init__(self, folder: Path, *, user_namespaces: bool = True) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._home = self._folder / "postgresql"
        self._cluster = Cluster(self._home / "data", self._home / "log", self._home / "server.lock")
        self._runtime = Runtime(self._home)
        self._users = FileLock(self._home / "users.lock")
        self._user_namespaces = user_namespaces
        self._found: PidFile | None = None
        self._databases: dict[str, str] = {}
        self._mutex = threading.Lock()

    @property
    def log(self) -> Path:
        """The file the server writes its log to."""
        return self._cluster.log

    async def start(self) -> str:
        """Make sure that the server runs, and return a DSN of its maintenance database for the superuser.

        Raises:
            ProblemError: it cannot be started; the problem's detail holds the end of its log.
        """
        return await self._in_thread(lambda: self._dsn(self._ensure_running(), _MAINTENANCE_DATABASE))

    async def dsn(self, database_name: str) -> str:
        """Return the DSN of a database, starting the server and making the database if need be.

        Args:
            database_name: at most 63 bytes; see `database_name()` for one that fits an environment.

        Raises:
            ProblemError: the server cannot be started or the database cannot be made.
            ValueError: no database can have that name.
        """
        if not database_name or "\0" in database_name or len(database_name.encode()) > LONGEST_NAME:
            raise ValueError(f"a database cannot be named {database_name!r}")
        return await self._in_thread(lambda: self._dsn(self._ensure_database(database_name), database_name))

    async def stop(self) -> None:
        """Stop using the server; it is stopped if nobody else uses it. Connections to it are closed then.

        Raises:
            ProblemError: it cannot be stopped.
        """
        await self._in_thread(self._leave)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        """The one place where blocking work leaves the event loop. If cancelled, the work goes on and `stop` waits for it."""

        def locked() -> _Result:
            with self._mutex:
                try:
                    return work()
                except OSError as error:
                    raise ProblemError(_explain_os_error(error, self._home)) from error

        return await asyncio.to_thread(locked)

    def _dsn(self, found: PidFile, database: str) -> str:
        return conninfo(host=found.socket_directory, port=str(found.port), user=SUPERUSER, dbname=database)

    def _ensure_running(self) -> PidFile:
        alive = self._found is not None and self._users.is_current and self._cluster.alive
        # somebody else may have restarted it, with its socket in another place
        if self._found is not None and alive and self._cluster.pid_file() == self._found:
            return self._found
        self._databases.clear()
        self._make_home()
        if not self._users.is_current:
            # never taken, or the whole folder was deleted and is another one now
            self._users.release()
            _acquire(self._users, exclusive=False)
        start_lock = FileLock(self._home / "start.lock")
        _acquire(start_lock, exclusive=True)
        try:
            self._found = self._cluster.find() or self._launch()
        finally:
            start_lock.release()
        return self._found

    def _make_home(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        ignore = self._folder / ".gitignore"
        if not ignore.exists():
            # the folder is nobody's to commit, also where the repository does not say so
            ignore.write_text("*\n")
        self._home.mkdir(mode=0o700, exist_ok=True)

    def _launch(self) -> PidFile:
        account = choose_account(self._cluster.data, user_namespaces=self._user_namespaces)
        installation = find_installation(self._cluster.major)
        socket_directory, installation = self._runtime.prepare(account, installation)
        if not self._cluster.exists:
            self._cluster.initialise(installation, account)
        return self._cluster.launch(installation, account, socket_directory=socket_directory)

    def _ensure_database(self, name: str) -> PidFile:
        found = self._ensure_running()
        known = self._databases.get(name)
        # a database's files are in a folder of its number: gone means dropped, and asking the server takes far longer
        if known is not None and (self._cluster.data / "base" / known).is_dir():
            return found
        find = f"SELECT oid FROM pg_database WHERE datname ={quote_literal(name)}"
        try:
            with WireConnection(
                found.socket_path, user=SUPERUSER, database=_MAINTENANCE_DATABASE, timeout=_QUERY_TIMEOUT
            ) as connection:
                rows = connection.query(find)
                if not rows:
                    _create_database(connection, name)
                    rows = connection.query(find)
        except WireError as error:
            raise ProblemError(
                Problem(
                    reason=Reason.CONNECTION_FAILED,
                    message=f"the embedded PostgreSQL could not make database {name!r}: {error.message}",
                    remedy=f"it is tried again by itself; see {self.log}",
                    sqlstate=error.sqlstate,
                )
            ) from error
        self._databases[name] = str(rows[0][0]) if rows else ""
        return found

    def _leave(self) -> None:
        if not self._users.held:
            return
        self._found = None
        self._databases.clear()
        if self._users.try_upgrade():
            try:
                self._cluster.stop()
                self._runtime.remove()
            finally:
                self._users.release()


def _create_database(connection: WireConnection, name: str) -> None:
    try:
        # template1 could not be copied while anybody is connected to it
        connection.query(f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0")
    except WireError as error:
        if error.sqlstate not in _ALREADY_THERE:
            raise


def _acquire(lock: FileLock, *, exclusive: bool) -> None:
    if not lock.acquire(exclusive=exclusive, timeout=_LOCK_TIMEOUT):
        raise ProblemError(
            Problem(
                reason=Reason.CONNECTION_FAILED,
                message=(
                    "another process has been starting or stopping the embedded PostgreSQL "
                    f"for {_LOCK_TIMEOUT:g} s: {lock.path} is locked"
                ),
                remedy="it is tried again by itself; if it lasts, end the other reconciler",
            )
        )


def _explain_os_error(error: OSError, home: Path) -> Problem:
    place = error.filename or home
    what = f"the embedded PostgreSQL cannot use {place}: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return Problem(
            reason=Reason.PERMISSION_DENIED,
            message=what,
            remedy=f"run as the user who owns {home.parent}, or give that folder to the user who runs the reconciler",
        )
    if error.errno == errno.EROFS:
        remedy = "keep the repository on a file system that can be written to, or give the manifest the DSN of a server"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space; it is tried again by itself"
    elif error.errno in (errno.ENOTSUP, errno.ENOLCK):
        remedy = (
            "keep the repository on a file system that has locks, or give the manifest the DSN of a server"
        )
    else:
        remedy = f"see that {home.parent} is a folder this user can write to"
    return Problem(reason=Reason.CONNECTION_FAILED, message=what, remedy=remedy)
