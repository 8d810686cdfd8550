"""One client of the simulated server: its life, and its messages taken apart into statements."""

from __future__ import annotations

import asyncio
import contextlib

from tests.cockroach import faults, messages
from tests.cockroach.backend import Gone, error_in
from tests.cockroach.execution import FAILED, OPEN, Cut, Execution
from tests.cockroach.grammar import Kind, Refusal, split
from tests.wire import read_message


class Session(Execution):
    """A connected client; see `Execution` for the arguments."""

    _work: asyncio.Task[None] | None = None

    # its life

    async def serve(self) -> None:
        """Answer its messages until it goes."""
        self._work = asyncio.ensure_future(self._serve())
        reading = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait([self._work, reading], return_when=asyncio.FIRST_COMPLETED)
            if not self._work.done():
                # what is asked for by one who has gone is not worth doing; jobs are another matter
                await self._backend.cancel()
        finally:
            for task in (self._work, reading):
                task.cancel()
            results = await asyncio.gather(self._work, reading, return_exceptions=True)
            self._backend.close()
            self._writer.close()
            for result in results:
                if isinstance(result, Exception):
                    self._simulator.broken.append(result)

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._inbox.put(await read_message(self._reader))

    async def _serve(self) -> None:
        with contextlib.suppress(Cut, Gone, ConnectionError):
            pending: list[bytes] = []
            while True:
                data = await self._inbox.get()
                kind = data[:1]
                if kind == b"X":
                    return
                if kind == b"Q":
                    await self._simple(data[5:-1].decode())
                elif kind == b"H":
                    self._say(messages.report(messages.ERROR, "0A000", "the simulator knows no Flush"))
                    raise Cut
                else:
                    pending.append(data)
                    if kind == b"S":
                        await self._extended(pending)
                        pending = []
                        await self._flush()
        with contextlib.suppress(ConnectionError):
            await self._flush()

    async def cancel(self) -> None:
        """A cancel request has come for it."""
        if self._waits_for_job:
            self.canceled.set()
        else:
            await self._backend.cancel()

    def end(self) -> None:
        """End it as a server does that goes away."""
        self._writer.write(messages.report(messages.FATAL, "57P01", "server is shutting down"))
        self._writer.close()
        if self._work is not None:
            self._work.cancel()

    # messages

    async def _simple(self, text: str) -> None:
        """A message of the simple protocol: statements in one implicit transaction, as far as they begin none."""
        try:
            statements = split(text)
        except Refusal as refusal:
            self._simulator.refused(text, refusal)
            self._fail(refusal.sqlstate, refusal.message)
            await self._abort()
            statements = []
        else:
            if not statements:
                self._say(messages.message(b"I"))
        self._changed_schema = False
        for index, statement in enumerate(statements):
            following = statements[index + 1] if index + 1 < len(statements) else None
            if not await self._statement(statement, index, len(statements), following):
                break
        else:
            await self._end_implicit()
        self._ready()
        await self._flush()

    async def _extended(self, batch: list[bytes]) -> None:
        """Messages of the extended protocol up to Sync. One statement a batch; several go as they are, if they are plain."""
        texts: list[str] = []
        changed: list[bytes] = []
        plain = True
        try:
            for data in batch:
                changed.append(data)
                if data[:1] == b"P":
                    name, text, rest = data[5:].split(b"\0", 2)
                    found = split(text.decode())
                    if len(found) > 1:
                        raise Refusal("42601", "prepared statement had multiple statements")
                    texts.append(text.decode())
                    self._prepared[name.decode()] = text.decode()
                    if found and found[0].kind is not Kind.OTHER:
                        plain = False
                    elif found:
                        runnable = self._translated(found[0]).encode()
                        changed[-1] = messages.message(b"P", name + b"\0" + runnable + b"\0" + rest)
                elif data[:1] == b"B":
                    name = data[5:].split(b"\0", 2)[1]
                    if name:
                        texts.append(self._prepared.get(name.decode(), ""))
        except Refusal as refusal:
            self._simulator.refused(texts[-1] if texts else "", refusal)
            self._fail(refusal.sqlstate, refusal.message)
            await self._abort()
            self._ready()
            return
        if not plain:
            await self._extended_alone(batch, texts)
            return
        seen = [self._see(split(text)[0], 0, 1) for text in texts if split(text)]
        faults_found = [each_fault for each in seen if (each_fault := self._simulator.fault_for(each))]
        fault = faults_found[0] if faults_found else None
        if fault is not None and fault.when == faults.BEFORE and not await self._harm(fault, seen[-1], b""):
            self._ready()
            return
        found_messages = await self._backend.send(b"".join(changed))
        error = error_in(found_messages)
        for each in seen:
            each.outcome = error.get("C", "done")
        if error and self._state == OPEN:
            self._state = FAILED
        answer = b"".join(found_messages)
        if (
            fault is not None
            and fault.when != faults.BEFORE
            and not await self._harm(fault, seen[-1], answer)
        ):
            self._ready()
            return
        self._say(*found_messages)
        self._ready()

    async def _extended_alone(self, batch: list[bytes], texts: list[str]) -> None:
        """A statement that is more than a query, sent by the extended protocol without parameters."""
        if len(texts) != 1 or not any(data[:1] == b"E" for data in batch):
            self._fail(
                "0A000", f"the simulator runs such statements one by one and does not keep them: {texts}"
            )
            self._ready()
            return
        for data in batch:
            kind = data[:1]
            if kind in (b"P", b"B", b"C"):
                self._say(messages.message({b"P": b"1", b"B": b"2", b"C": b"3"}[kind]))
            elif kind == b"E" and await self._statement(split(texts[0])[0], 0, 1, None):
                await self._end_implicit()
        self._ready()
