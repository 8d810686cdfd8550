"""A server that says it is CockroachDB: a proxy in front of PostgreSQL that speaks and acts as the documentation says.

What it takes from there: how transactions and schema changes go together, jobs, session settings, errors, what is missing.
What it does not imitate: CockroachDB's own SQL (UPSERT, STRING, USING HASH, ...), its planner, its types (INT is four
bytes here), the `cockroach_restart` savepoint, privileges, more than one node. What passes here has not been shown to
pass there.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.cockroach import messages, settings
from tests.cockroach.backend import Backend
from tests.cockroach.faults import Fault, Seen
from tests.cockroach.grammar import Refusal, split, uses_advisory_locks
from tests.cockroach.jobs import Jobs
from tests.cockroach.session import Session
from tests.servers import TestServer
from tests.wire import Loop, read_message

VERSION = "CockroachDB CCL v26.2.3 (x86_64-pc-linux-gnu, built 2026/06/08 17:20:13, go1.25.3)"
EMULATED = "13.0.0"
_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class Simulator:
    """One simulated cluster with one node. Use it as a context manager; see the fixture `simulator`.

    Attributes that may be set at any time and count for connections made afterwards: `reports_version` (False: no
    `crdb_version` parameter, as behind some poolers), `version`, `defaults` (CockroachDB's own settings). At once:
    `job_notices` (False: an older server, which says nothing of its jobs), `tolerant` (True: the fixture does not mind
    violations).

    Args:
        loop: where it runs.
        server: the PostgreSQL behind it.
        database: to which its DSN leads.
    """

    def __init__(self, loop: Loop, server: TestServer, database: str) -> None:
        self._loop = loop
        self._postgresql = server.dsn(database)
        self.socket = server.socket_directory / f".s.PGSQL.{server.port}"
        self.jobs = Jobs(self._call)
        self.reports_version = True
        self.version = VERSION
        self.defaults = dict(settings.OWN)
        self.job_notices = True
        self.tolerant = False
        self.sessions: list[Session] = []
        self.violations: list[str] = []
        """Statements that break a rule of the adapter's: unsafe internals, advisory locks."""
        self.refusals: list[tuple[str, str]] = []
        """SQLSTATE and text of every statement that was refused because CockroachDB has nothing of the kind."""
        self.broken: list[BaseException] = []
        """What went wrong in the simulator itself."""
        self._seen: list[Seen] = []
        self._faults: list[Fault] = []
        self._counting: Callable[[Seen], bool] = lambda _: True
        self._counted = 0
        self._clients = 0
        self._keys: dict[bytes, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    # its life

    def __enter__(self) -> Simulator:
        self._loop.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._close())

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for session in list(self.sessions):
            session.end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def dsn(self) -> str:
        """How clients connect."""
        return self.dsn_with()

    def dsn_with(self, **parameters: str) -> str:
        """The same with more or other libpq parameters."""
        assert self._listener is not None
        parts = conninfo_to_dict(self._postgresql)
        return make_conninfo(
            **{
                "host": "127.0.0.1",
                "port": str(self._listener.sockets[0].getsockname()[1]),
                "user": str(parts["user"]),
                "dbname": str(parts["dbname"]),
                "sslmode": "disable",
                "gssencmode": "disable",
                **parameters,
            }
        )

    @property
    def postgresql(self) -> str:
        """DSN of the database itself, past the simulator, to see what is really there."""
        return self._postgresql

    # what tests say and ask

    def arm(self, *faults: Fault, counting: Callable[[Seen], bool] | None = None) -> None:
        """Do this harm, and number statements anew from 0.

        Args:
            faults: what to do; of several that fit a statement the first that is not used up is done.
            counting: which statements are numbered, kept in `statements` and open to harm; all, if None. One who
                walks through the statements of a runner leaves out its heartbeat.
        """

        def arm() -> None:
            self._seen.clear()
            self._counted = 0
            self._faults = list(faults)
            self._counting = counting or (lambda _: True)

        self._call(arm)

    @property
    def statements(self) -> list[Seen]:
        """The statements counted since `arm`, in the order in which they came."""
        return list(self._seen)

    def drain(self) -> None:
        """End every connection as a node does that is shut down: 57P01. Jobs go on; new connections are accepted."""

        def drain() -> None:
            for session in list(self.sessions):
                session.end()

        self._call(drain)

    def _call(self, work: Callable[[], object]) -> object:
        """Run a function on the simulator's own thread."""

        async def run() -> object:
            return work()

        return self._loop.run(run())

    # what its sessions ask

    @property
    def answers(self) -> dict[str, str]:
        """What SHOW says of settings that cannot be set."""
        major, minor, _ = EMULATED.split(".")
        return {
            "crdb_version": self.version,
            "max_identifier_length": "128",
            "server_version": EMULATED,
            "server_version_num": f"{int(major) * 10000 + int(minor)}",
        }

    def see(self, seen: Seen) -> Seen:
        """Note a statement and number it."""
        if self._counting(seen):
            seen.number = self._counted
            self._counted += 1
            self._seen.append(seen)
        if uses_advisory_locks(split(seen.text)[0]):
            self.violations.append(seen.text)
        return seen

    def fault_for(self, seen: Seen) -> Fault | None:
        """The harm to be done at it, which is thereby used up."""
        for fault in self._faults if seen.number >= 0 else ():
            if fault.fits(seen):
                fault.done += 1
                return fault
        return None

    def refused(self, text: str, refusal: Refusal) -> None:
        """Note a statement that was not run."""
        self.refusals.append((refusal.sqlstate, text))
        if refusal.violation:
            self.violations.append(text)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a job run by itself."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.broken.append(task.exception() or AssertionError())

    # clients

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                data = await read_message(reader, untyped=True)
                (code,) = struct.unpack("!i", data[4:8])
                if code in (_SSL, _GSS):
                    writer.write(b"N")
                    continue
                if code == _CANCEL:
                    session = self._keys.get(data[8:])
                    if session is not None:
                        await session.cancel()
                else:
                    await self._welcome(messages.startup_parameters(data), reader, writer)
                break
        writer.close()

    async def _welcome(
        self, parameters: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        options, unknown = settings.startup_options(parameters.get("options", ""), self.defaults)
        if unknown:
            text = f'unrecognized configuration parameter "{unknown}"'
            writer.write(messages.report(messages.FATAL, "42704", text))
            return
        try:
            backend, greeting = await Backend.open(self.socket, {**parameters, "options": options})
        except OSError:
            return
        if backend is None:
            writer.writelines(greeting)
            return
        for data in greeting:
            if data.startswith(b"server_version\0", 5):
                data = messages.parameter("server_version", EMULATED)
            writer.write(data)
        if self.reports_version:
            writer.write(messages.parameter("crdb_version", self.version))
        writer.write(messages.ready(messages.IDLE))
        session = Session(self, self._clients, backend, parameters, reader, writer)
        self._clients += 1
        self.sessions.append(session)
        self._keys[backend.key] = session
        try:
            await session.serve()
        finally:
            self.sessions.remove(session)
            del self._keys[backend.key]
