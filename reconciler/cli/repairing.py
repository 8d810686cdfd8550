"""The body of `baseline` and `repair`: show what changes, ask, change it."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.assembly import declaration_without_manifest
from reconciler.catalog import Catalog
from reconciler.cli.confirmed import Picture, run_confirmed
from reconciler.cli.confirming import Consent
from reconciler.cli.exits import Exit
from reconciler.cli.options import OutputOptions, RepositoryOptions, SelectionOptions
from reconciler.cli.subjects import Scope, Subject
from reconciler.cli.terminal import write_note
from reconciler.errors import UsageError
from reconciler.model import Database, LockHolder, Problem, Reason, Repair, RepairKind
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value
from reconciler.operations import Declaration
from reconciler.operations.repair import RepairRequest, plan_repair, repair
from reconciler.report.outcomes import waiting_line
from reconciler.report.repairs import repair_as_dict, repair_table, repair_title
from reconciler.report.text import one_line


async def run_repair(
    verb: str,
    kind: RepairKind,
    version: int,
    consent: Consent,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    output_as: OutputOptions,
) -> Exit:
    """Repair the chosen databases, and say what came of it.

    Args:
        verb: for lock and journal.
        kind: what is done.
        version: of the migration; 0 where none is meant.
        consent: the person's reason and whether they want to be asked.
        repository: which repository.
        selection: which databases.
        output_as: how to answer.
    """
    if kind is RepairKind.CLAIM and selection.dsn is not None:
        raise UsageError(
            "a database is handed over to an environment of a repository, and --dsn names none",
            remedy="run it in the repository, and name the environment by --environment",
        )
    change = _Repairing(
        verb=verb, kind=kind, version=version, reason=consent.reason.strip(), every=bool(output_as.verbose)
    )
    # what is not in force needs no file; all else is written from files
    migrating = kind is not RepairKind.MARK_ROLLED_BACK
    return await run_confirmed(change, consent, repository, selection, output_as, migrating=migrating)


@value(kw_only=True)
class _Repairing:
    """Set the history of a database right.

    Args:
        verb: for lock and journal.
        kind: what is done.
        version: of the migration; 0 where none is meant.
        reason: the person's, for the journal.
        every: show every row that changes, however many.
    """

    verb: str
    kind: RepairKind
    version: int
    reason: str
    every: bool

    async def look(self, subject: Subject, database: Database) -> Repair:
        """What would change, decided without the lock."""
        return await plan_repair(database, self._request(subject), _declaration(subject))

    def due(self, found: Repair) -> bool:
        """There is something to change."""
        return not found.settled

    def picture(self, subject: Subject, found: Repair) -> Picture:
        """The rows before and after."""
        title = repair_title(subject.name, found)
        if not self.due(found):
            return Picture(title)
        notes = [one_line(note) for note in found.notes]
        return Picture(title, repair_table(found, every=self.every), notes)

    def question(self, names: Sequence[str]) -> str:
        """What is asked."""
        return f"Change {names[0]} so?" if len(names) == 1 else f"Change these {len(names)} databases so?"

    async def act(self, scope: Scope, subject: Subject, database: Database, found: Repair) -> str:
        """Decide again under the lock, and change what was shown."""

        def waiting(holder: LockHolder) -> None:
            write_note(waiting_line(subject.name, holder))

        await repair(
            database,
            self._request(subject),
            _declaration(subject),
            found,
            await scope.actor(self.verb, subject),
            self.reason,
            acquire_timeout=subject.timeouts.acquire,
            on_waiting=waiting,
        )
        return "done, and recorded in its journal"

    def label(self, problem: Problem) -> str:
        """That somebody else holds the lock is no refusal."""
        return "refused" if problem.reason.is_refusal and problem.reason is not Reason.LOCK_HELD else "error"

    def as_dict(self, found: Repair | None, *, done: bool) -> JsonObject:
        """The change as it was shown."""
        return {"done": done, "repair": repair_as_dict(found) if found is not None else None}

    def _request(self, subject: Subject) -> RepairRequest:
        return RepairRequest(kind=self.kind, version=self.version, declared_by=subject.manifest)


def _declaration(subject: Subject) -> Declaration:
    """What the database is to be; with a bare DSN, nothing says."""
    if subject.declaration is not None:
        return subject.declaration
    return declaration_without_manifest(Catalog(), None, subject.timeouts)
