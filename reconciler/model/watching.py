"""What a second connection sees of a step that takes its time: how far it has come, and who is in its way."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.value import value

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


@value(kw_only=True)
class StepProgress:
    """How far the statement that runs now has come.

    Args:
        phase: what the server is about, in its own words: `building index: scanning table`.
        percent: of this phase, 0 to 100; None when the server does not count it.
        object: the index or table it works on; empty when others cannot see it yet.
    """

    phase: str
    percent: float | None = None
    object: str = ""

    def __str__(self) -> str:
        of = f" ({self.object})" if self.object else ""
        percent = "" if self.percent is None else f", {self.percent:.0f} %"
        return f"{self.phase}{of}{percent}"


@value(kw_only=True)
class Blocker:
    """A transaction that holds, or was there first to wait for, a lock that a step needs.

    What a server keeps from us is empty or None: of the sessions of other roles it shows only pid, user and application, unless
    our role may read all statistics (`pg_read_all_stats`).

    Args:
        pid: its backend; 0 for a prepared transaction, which has none.
        user: its role.
        application: as it calls itself, or what kind of background process it is.
        state: `active`, `idle in transaction`, ...
        transaction_age: seconds since its transaction began.
        query_id: identifies its newest query without showing it; None where the server computes none (always before PostgreSQL 14).
        query: the text of its newest query; only where that was asked for, since it may hold personal data.
        prepared: the identifier of a prepared transaction.
    """

    pid: int
    user: str = ""
    application: str = ""
    state: str = ""
    transaction_age: float | None = None
    query_id: int | None = None
    query: str = ""
    prepared: str = ""

    def __str__(self) -> str:
        known = [
            # double quotes: what stands in single ones is masked as a literal in the journal
            f"user {self.user}" if self.user else "",
            f'application "{self.application}"' if self.application else "",
            self.state,
            f"begun {_approximately(self.transaction_age)} ago" if self.transaction_age is not None else "",
            f"query id {self.query_id}" if self.query_id is not None else "",
            f"query: {' '.join(self.query.split())}" if self.query else "",
        ]
        details = ", ".join(each for each in known if each)
        return self.name + (f" ({details})" if details else "")

    @property
    def name(self) -> str:
        """Which one, in the fewest words."""
        if self.pid:
            return f"pid {self.pid}"
        return f'prepared transaction "{self.prepared}"' if self.prepared else "a prepared transaction"


def how_to_end(blockers: Sequence[Blocker]) -> str:
    """The SQL that ends what is in the way, as clauses; empty when there is nothing to be ended by us.

    Args:
        blockers: none of them twice.
    """
    pids = [blocker.pid for blocker in blockers if blocker.pid]
    ways = [f"`SELECT pg_terminate_backend({pid})`" for pid in pids]
    for blocker in blockers:
        if blocker.prepared:
            identifier = blocker.prepared.replace("'", "''")
            ways.append(f"`ROLLBACK PREPARED '{identifier}'` (or `COMMIT PREPARED`)")
        elif not blocker.pid:
            ways.append("`ROLLBACK PREPARED` of the one in `pg_prepared_xacts`")
    return " and ".join(ways)


def _approximately(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
