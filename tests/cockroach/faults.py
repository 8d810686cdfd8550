"""What went through the simulator, and what harm it is told to do at which statement."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BEFORE = "before"
"""The statement never runs."""
DURING = "during"
"""Of a schema change: its job has begun, and goes on behind."""
AFTER = "after"
"""The statement ran, and what it did stays (a COMMIT is in force)."""

_ENDS_CONNECTION = frozenset({"57P01", "57P02", "57P03"})
_MESSAGES = {
    "40001": "restart transaction: TransactionRetryWithProtoRefreshError: injected",
    "40003": "result is ambiguous: injected",
    "55P03": "canceling statement due to lock timeout on row",
    "57014": "query execution canceled",
    "57P01": "server is shutting down",
    "58C00": "replica unavailable: injected",
    "58C01": "inter-node communication failed: injected",
    "XXA00": "transaction committed but schema change aborted with error: injected",
}


@dataclass
class Seen:
    """A statement that a client sent.

    Args:
        number: from 0, among those that `Simulator.arm` counts; -1 for the others.
        session: of which connection, from 0 over the life of the simulator.
        application_name: of the client when it connected.
        text: as sent, with comments before it.
        kind: what the server does with it: `begin`, `commit`, `rollback`, `ddl`, `setting`, `other`, ...
        transaction: `none`, `implicit` (behind another statement of the same message), `open` or `failed`, before it.
        index: which statement of its message, from 0.
        of: how many statements that message has.
        outcome: `running`, `done`, the SQLSTATE of the error, or `cut`.
    """

    number: int
    session: int
    application_name: str
    text: str
    kind: str
    transaction: str
    index: int
    of: int
    outcome: str = "running"
    moment: float = field(default_factory=time.monotonic)


@dataclass
class Fault:
    """Harm to be done at a statement.

    Args:
        at: the number of the statement since `Simulator.arm`; None: the first that fits the rest.
        matching: a regular expression to be found in its text, in any letter case.
        on: whatever else must be true of it.
        when: `before`, `during` or `after` the statement does its work.
        sqlstate: the error that is answered. 57P01 and its like end the connection too. 40001 means that the whole
            transaction did nothing, whatever `when` says.
        message: of the error; the one that CockroachDB is known for, if empty.
        cut: the connection ends, without a word.
        portion: how much of the statement's answer still passes before the cut, from 0 to 1; only `after`.
        commits: the transaction that is open is committed, as before a change of the schema, and the client told by a notice.
        delay: seconds to wait first. A fault that has nothing else lets the statement go on then.
        times: how often it happens.
    """

    at: int | None = None
    matching: str = ""
    on: Callable[[Seen], bool] = field(default=lambda _: True)
    when: str = BEFORE
    sqlstate: str = ""
    message: str = ""
    cut: bool = False
    portion: float = 0.0
    commits: bool = False
    delay: float = 0.0
    times: int = 1
    done: int = 0

    def __post_init__(self) -> None:
        if self.when not in (BEFORE, DURING, AFTER):
            raise ValueError(f"when is {self.when!r}, not one of before, during, after")
        if self.sqlstate and not re.fullmatch(r"[0-9A-Z]{5}", self.sqlstate):
            raise ValueError(f"{self.sqlstate!r} is no SQLSTATE")
        if self.sqlstate == "40001":
            self.when = BEFORE

    def fits(self, seen: Seen) -> bool:
        """Whether it is to happen at this statement."""
        return (
            self.done < self.times
            and self.at in (None, seen.number)
            and re.search(self.matching, seen.text, re.IGNORECASE) is not None
            and self.on(seen)
        )

    @property
    def text(self) -> str:
        """The message of its error."""
        return self.message or _MESSAGES.get(self.sqlstate, f"injected {self.sqlstate}")

    @property
    def ends_connection(self) -> bool:
        """Whether the connection is over after it."""
        return self.cut or self.sqlstate in _ENDS_CONNECTION
