"""The protocols that sibling layers meet by. Each belongs to its consumers and holds only what they use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from reconciler.model.git import Change, Revision, Snapshot
from reconciler.model.history import (
    AppliedMigration,
    Claim,
    JournalEvent,
    LockHolder,
    Observation,
    StoredDown,
)
from reconciler.model.hooks import Hook, HookOccasion, HookResult
from reconciler.model.plan import Pin, Step
from reconciler.model.problem import Problem
from reconciler.model.repair import LockState, Repair
from reconciler.model.status import DaemonStatus, Work
from reconciler.model.value import value
from reconciler.model.watching import Blocker, StepProgress
from reconciler.redaction import Secret


@value(kw_only=True)
class Actor:
    """Who runs something, written to the lock row and to each journal event.

    Args:
        claim: what the database is to belong to; None for a one-off command that has only a DSN.
        verb: `run`, `up`, `down`, `retry`, ...
        git_revision: the commit being applied; empty without a repository.
        git_author: the author of the manifest's last change; empty without a repository.
        host: name of the machine.
        pid: process id.
        user: login name of the person or the service.
    """

    claim: Claim | None
    verb: str
    git_revision: str
    git_author: str
    host: str
    pid: int
    user: str

    @property
    def owner(self) -> str:
        """One line that tells a person whom to ask."""
        return f"reconciler {self.verb} on {self.host}, pid {self.pid}, user {self.user}"


@value(kw_only=True)
class StepResult:
    """A step that is in force.

    Args:
        duration: seconds, by the server's clock.
        durable: False when the server was told not to wait for its log; a later durable commit makes it so.
        warnings: what a person should see to although the step is in force.
    """

    duration: float
    durable: bool
    warnings: tuple[Problem, ...] = ()


class StepWatcher(Protocol):
    """Hears what a second connection sees of a step that takes its time. Of a step that is over soon it hears nothing."""

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        """The step has come further; None when what runs now counts nothing."""

    def blocked(self, step: Step, blockers: Sequence[Blocker]) -> None:
        """Others hold what the step waits for. Told at each look, about once a second; once without any when that is over."""

    def waited(self, step: Step, seconds: float) -> None:
        """The step waited for locks on tables, so long in all, pauses between attempts included; and that is over."""

    def unwatched(self, step: Step, problem: Problem) -> None:
        """Nobody could look. The step runs on; told once a step."""


class Writer(Protocol):
    """A database whose lock we hold. Every write it makes is fenced: it fails with `LockLost` once the lock is gone."""

    async def observe(self) -> Observation:
        """Read the database again, now that nobody else writes."""
        ...

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`, without those that have none."""
        ...

    async def look_at(self, objects: Sequence[str]) -> dict[str, str]:
        """Return the state of each of `objects`, as `HistoryRow.intent_object` names them: `absent`, `valid`, ..."""
        ...

    @property
    def holds_lock(self) -> bool:
        """True: nobody else writes meanwhile."""
        ...

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Complete the rows of the earlier tool with digests and down scripts."""
        ...

    async def forget_downs(self, versions: Sequence[int]) -> None:
        """Let the rows of `versions`, whose downs changed nothing, say again that they are applied."""
        ...

    async def run(self, step: Step, *, durable: bool, following: Sequence[Step] = ()) -> StepResult:
        """Run one step and record it.

        Args:
            step: what to run.
            durable: wait for the server's log at commit. Passing False is safe for a step that a later durable one follows.
            following: the next two steps that will run if all goes well. That the first of them begins is recorded with this
                one; the second may be prepared while the server works.

        Raises:
            ProblemError: the step failed or its outcome is not known; it is recorded in history and journal as far as
                the database could be reached.
        """
        ...

    async def flush(self) -> None:
        """Make every step run so far durable."""
        ...

    async def confirm_lock(self) -> None:
        """Ask whether the lock is still ours.

        Raises:
            ProblemError: `LockLost`, or the database could not be reached.
        """
        ...

    async def record_hook(self, result: HookResult) -> None:
        """Write a `hook` event to the journal, unless an earlier run of the same plan said just the same.

        Raises:
            ProblemError: `LockLost`, or the database could not be reached.
        """
        ...


class HookRunner(Protocol):
    """Runs the hooks of one database. Whoever hands one out has consented to run what git says."""

    async def run(
        self, hook: Hook, occasion: HookOccasion, *, stop: Awaitable[str] | None = None
    ) -> HookResult:
        """Run one hook to its end. That it failed is in the result; when the task is cancelled, the hook is ended.

        Args:
            hook: what to run.
            occasion: what it is told.
            stop: once it is done, the hook is ended for the reason it gives, and that is in the result.
        """
        ...


class Repairer(Protocol):
    """A database whose lock we hold, to change its history by a person's word. Every write is fenced."""

    async def observe(self) -> Observation:
        """Read the database again, now that nobody else writes."""
        ...

    async def repair(self, repair: Repair, reason: str) -> None:
        """Make a repair and write it into the journal, in one transaction.

        Args:
            repair: decided on what `observe` said under this lock.
            reason: the person's, for the journal.

        Raises:
            ProblemError: nothing of it is in force.
        """
        ...


class Database(Protocol):
    """One database of one environment. One task at a time uses it."""

    async def observe(self) -> Observation:
        """Read history, lock, claim and last failure in as few round trips as possible. Needs no write privilege.

        Raises:
            ProblemError: the database cannot be reached or read.
        """
        ...

    async def stored_downs(self, versions: Sequence[int]) -> dict[int, StoredDown]:
        """Return the stored down scripts of `versions`, without those that have none."""
        ...

    async def look_at(self, objects: Sequence[str]) -> dict[str, str]:
        """Return the state of each of `objects`, as `HistoryRow.intent_object` names them: `absent`, `valid`, ..."""
        ...

    @property
    def holds_lock(self) -> bool:
        """False: somebody else may write at any time."""
        ...

    def writer(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        watcher: StepWatcher | None = None,
    ) -> AbstractAsyncContextManager[Writer]:
        """Take the lock, make our tables if need be, claim the database, and hand out a writer.

        Args:
            actor: who asks.
            acquire_timeout: seconds to wait for the lock; 0 tries once.
            on_waiting: called once when somebody else holds the lock.
            watcher: hears how long steps get on, and who is in their way.

        Raises:
            ProblemError: `LockHeld`, `ClaimedByOther`, `ForeignHistory`, `PermissionDenied`, `ReadOnly`, ...
        """
        ...

    async def request_retry(self, actor: Actor) -> None:
        """Write a `retry` event to the journal: the last failure no longer stands against a new attempt."""
        ...

    async def record_refusal(self, actor: Actor, problem: Problem) -> None:
        """Write a refusal to the journal, if it is not already the newest event there."""
        ...

    def repairer(
        self,
        actor: Actor,
        *,
        acquire_timeout: float,
        on_waiting: Callable[[LockHolder], None] | None = None,
        taking_over: bool = False,
    ) -> AbstractAsyncContextManager[Repairer]:
        """Take the lock as `writer` does, to repair.

        Args:
            actor: who asks.
            acquire_timeout: seconds to wait for the lock; 0 tries once.
            on_waiting: called once when somebody else holds the lock.
            taking_over: whom the database belongs to stands as it is, and not in the way.

        Raises:
            ProblemError: as `writer`.
        """
        ...

    async def read_lock(self) -> LockState:
        """Read all there is to know of the lock. Needs no privilege on our tables as long as they are not there."""
        ...

    async def read_work(self) -> Work | None:
        """Read what the process that holds the lock is at. Needs no write privilege.

        Returns:
            None when nobody holds the lock, or its holder runs no migration just now.

        Raises:
            ProblemError: the database cannot be reached or read.
        """
        ...

    async def unlock(self, state: LockState, actor: Actor, reason: str) -> None:
        """Free the lock: end the session that holds it, withdraw a lease, clear a forgotten row; and say so in the journal.

        Args:
            state: what was shown to whoever said yes; when it is not so any more, nothing is done.
            actor: who asks.
            reason: the person's, for the journal.

        Raises:
            ProblemError: `RepairRefused` when the state has changed, `PermissionDenied`, ...
        """
        ...

    async def applied(self, version: int | None = None) -> list[AppliedMigration]:
        """The rows of `schema_migrations`, oldest first."""
        ...

    async def journal(self, version: int | None = None, limit: int = 100) -> list[JournalEvent]:
        """The newest `limit` events, oldest first."""
        ...

    async def close(self) -> None:
        """Close the connection. The next use opens a new one."""
        ...


class Source(Protocol):
    """A git repository followed on one branch."""

    @property
    def repository(self) -> str:
        """What identifies the repository in a claim: host and path of its URL, without scheme, user and `.git`."""
        ...

    @property
    def place(self) -> str:
        """What a person calls the repository: the path of a local one, the URL of another without user and password."""
        ...

    @property
    def branch(self) -> str:
        """The short name of the branch that is followed."""
        ...

    @property
    def root(self) -> Path | None:
        """The top level of a local repository; None for a remote one."""
        ...

    async def head(self) -> Revision:
        """The newest revision of the branch; fetches when the repository is remote and has changed.

        Raises:
            ProblemError: `FetchFailed`, `AuthenticationFailed`, `BranchNotFound`, `RepositoryEmpty`.
        """
        ...

    async def read(self, revision: Revision, folders: Sequence[str]) -> Snapshot:
        """Read the regular files directly in `folders` (not below them) at `revision`, in one batch."""
        ...

    async def last_change(self, revision: Revision, path: str) -> Change | None:
        """The newest commit at or before `revision` that changed `path`, None when there is none."""
        ...

    async def is_ancestor(self, older: str, newer: str) -> bool | None:
        """True when commit `older` is part of the history of `newer`; None when `older` is not known here."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield whenever `head()` may have something new. Runs until cancelled; survives the repository's absence."""
        ...

    async def close(self) -> None:
        """Free helper processes."""
        ...


class Secrets(Protocol):
    """Turns a manifest's references into secrets."""

    async def resolve(self, reference: object, environment: str) -> Secret:
        """Return the secret that `reference` (a `reconciler.manifest` reference) points at.

        Args:
            reference: where the secret is.
            environment: whose manifest says so; empty for a reference that the operator gave, who may use any.

        Raises:
            ProblemError: `SecretUnavailable` or `SecretNotAllowed`, naming the reference and never the value.
        """
        ...

    async def stale(self, reference: object) -> Problem | None:
        """Why an older value of `reference` than the newest may be in use: who keeps it cannot be reached. None otherwise."""
        ...

    async def close(self) -> None:
        """Close connections to secret managers. The next use opens new ones."""
        ...


class StatusView(Protocol):
    """What the web server and the metrics read."""

    def snapshot(self) -> DaemonStatus:
        """One immutable, consistent reading. Cheap: no I/O."""
        ...
