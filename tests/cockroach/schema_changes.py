"""A schema change as a job: planned for its client, run on a connection of its own, whatever becomes of the client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from reconciler.sqltext.lexer import tokens
from tests.cockroach.backend import Backend, Gone, error_in
from tests.cockroach.grammar import literal
from tests.cockroach.jobs import CANCELED, FAILED, PAUSED, REVERTING, SUCCEEDED, Fate, Job

if TYPE_CHECKING:
    from tests.cockroach.simulator import Simulator

_CONTEXT = """SELECT concat_ws(E'\\x01', current_setting('search_path'), current_setting('role'),
    (SELECT setting FROM pg_settings WHERE name = 'statement_timeout'))"""


class SchemaChange:
    """One statement that became, or was refused to become, a job. Use `plan`.

    `refusal` is what the client is told when it never comes to a job, `answer` what it is told when the job succeeded.
    """

    def __init__(
        self, simulator: Simulator, backend: Backend | None, user: str, shown: str, text: str
    ) -> None:
        self._simulator = simulator
        self._backend = backend
        self._user = user
        self._shown = shown
        self._text = text
        self.refusal: list[bytes] = []
        self.answer: list[bytes] = []
        self.statement_timeout = 0.0
        """Seconds the client waits at most; 0: any time."""

    @classmethod
    async def plan(
        cls, simulator: Simulator, client: Backend, parameters: dict[str, str], shown: str, text: str
    ) -> SchemaChange:
        """See whether the statement makes sense; what does not is refused without a job.

        Args:
            simulator: in which it happens.
            client: the session's connection, whose search path and role count.
            parameters: with which the client connected.
            shown: the statement as sent.
            text: the same for PostgreSQL.
        """
        answer = await client.run(_CONTEXT)
        row = next(data for data in answer if data[:1] == b"D")
        path, role, timeout = row[11:].decode().split("\x01")
        user = parameters.get("user", "")
        backend, refused = await Backend.open(
            simulator.socket,
            {
                "user": user,
                "database": parameters.get("database", user),
                "application_name": "job",
                "client_encoding": "UTF8",
            },
        )
        self = cls(simulator, backend, user, shown, text)
        self.statement_timeout = int(timeout) / 1000
        if backend is None:
            self.refusal = refused
            return self
        await backend.run(f"SELECT set_config('search_path', {literal(path)}, false)")
        if role != "none":
            await backend.run(f"SELECT set_config('role', {literal(role)}, false)")
        if not any(token.text.upper() == "CONCURRENTLY" for token in tokens(text)):
            await backend.run("BEGIN")
            found = await backend.run(text)
            await backend.run("ROLLBACK")
            # what the data refuses is found by the job, what the schema refuses before there is one
            if error_in(found).get("C", "").startswith(("42", "0A", "2B", "3")):
                self.refusal = [data for data in found if data[:1] in (b"E", b"N")]
                backend.close()
        return self

    def start(self) -> Job:
        """Make it a job, which runs to its end by itself."""
        fate = self._simulator.jobs.fate_of(self._shown)
        job = self._simulator.jobs.create(self._shown, self._user, held=fate.hold)
        self._simulator.spawn(self._run(job, fate))
        return job

    async def _run(self, job: Job, fate: Fate) -> None:
        assert self._backend is not None
        jobs = self._simulator.jobs
        try:
            await jobs.begun(job)
            await asyncio.sleep(fate.delay)
            # it may have been paused meanwhile
            await jobs.begun(job)
            if fate.end == PAUSED:
                jobs.change(job, PAUSED)
                await jobs.begun(job)
            if job.is_over:
                return
            succeeds = fate.end in (SUCCEEDED, PAUSED)
            if succeeds or fate.applied:
                self.answer = await self._backend.run(self._text)
                await asyncio.sleep(fate.linger)
                error = error_in(self.answer)
                if error:
                    jobs.change(job, REVERTING)
                    jobs.change(job, FAILED, error=error["M"], sqlstate=error["C"])
                    return
            if succeeds:
                jobs.change(job, SUCCEEDED)
                return
            jobs.change(job, REVERTING)
            sqlstate = "57014" if fate.end == CANCELED else fate.sqlstate
            jobs.change(job, fate.end, error=fate.message or f"job {fate.end}", sqlstate=sqlstate)
        except Gone as error:
            jobs.change(
                job, FAILED, error="the server behind the simulator ended the connection", sqlstate="58C00"
            )
            self._simulator.broken.append(error)
        finally:
            self._backend.close()
