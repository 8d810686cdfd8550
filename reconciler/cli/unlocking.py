"""The body of `unlock`: show who holds the lock, ask, free it."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.assembly import utc_now
from reconciler.cli.confirmed import Picture
from reconciler.cli.subjects import Scope, Subject
from reconciler.model import Database, LockState, Problem
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value
from reconciler.report.repairs import lock_as_dict, lock_notes, lock_table, lock_title


@value
class Unlocking:
    """Free the lock of a database.

    Args:
        reason: the person's, for the journal.
    """

    reason: str

    async def look(self, subject: Subject, database: Database) -> LockState:
        """Who holds the lock."""
        return await database.read_lock()

    def due(self, found: LockState) -> bool:
        """There is something to free."""
        return found.held or found.forgotten

    def picture(self, subject: Subject, found: LockState) -> Picture:
        """The holder, and since when."""
        title = lock_title(subject.name, found)
        if not self.due(found):
            return Picture(title)
        return Picture(title, lock_table(found, utc_now()), lock_notes(found))

    def question(self, names: Sequence[str]) -> str:
        """What is asked."""
        return f"Free the lock of {', '.join(names)}?"

    async def act(self, scope: Scope, subject: Subject, database: Database, found: LockState) -> str:
        """Free it, if the same session holds it still."""
        await database.unlock(found, await scope.actor("unlock", subject), self.reason)
        if found.unrecorded:
            return f"the lock is freed; that is not recorded: {found.unrecorded}"
        return "the lock is freed, and that is recorded in its journal"

    def label(self, problem: Problem) -> str:
        """Whatever went wrong is an error."""
        return "error"

    def as_dict(self, found: LockState | None, *, done: bool) -> JsonObject:
        """The lock as it was found."""
        return {"freed": done, "lock": lock_as_dict(found) if found is not None else None}
