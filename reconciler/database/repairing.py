"""Writing repairs: rows changed by a person's word, each with its event in the journal, in one fenced transaction."""

from __future__ import annotations

import uuid

from reconciler import __version__
from reconciler.database.queries import Literal
from reconciler.database.records import kept
from reconciler.database.writer import HeldLock
from reconciler.model import Migration, Observation, Repair, RepairKind, RowAction, RowChange
from reconciler.redaction import redact


class LockedRepairer:
    """Implements `reconciler.model.Repairer`.

    Args:
        held: the lock.
        git_revision: the commit whose files rows are written from; empty without a repository.
    """

    def __init__(self, held: HeldLock, git_revision: str) -> None:
        self._held = held
        self._git_revision = git_revision

    async def observe(self) -> Observation:
        """Read the database again, now that nobody else writes."""
        return await self._held.observe()

    async def repair(self, repair: Repair, reason: str) -> None:
        """Make a repair and write it into the journal; see `reconciler.model.Repairer.repair`."""
        queries = self._held.session.queries
        attempt = str(uuid.uuid4())
        blocks = []
        for change in repair.changes:
            blocks += self._row(change)
            blocks.append(queries("insert_event", **self._event(repair, change, attempt, reason)))
        if repair.claim_after is not None:
            claim = repair.claim_after
            blocks += [
                queries(
                    "write_claim",
                    environment=claim.environment,
                    database_name=claim.database,
                    repository=claim.repository,
                ),
                queries(
                    "insert_event",
                    **self._held.records.empty_event(
                        "repair",
                        attempt=attempt,
                        outcome=repair.kind.value,
                        message=redact(f"taken over from {repair.claim_before}: {reason}"),
                    ),
                ),
            ]
        await self._held.write(*blocks, doing="writing the repair")

    def _row(self, change: RowChange) -> list[str]:
        queries, version = self._held.session.queries, change.version
        if change.action is RowAction.DELETE:
            return [queries("delete_applied", version=version)]
        if change.action is RowAction.SETTLE:
            return [queries("settle_row", version=version)]
        columns: dict[str, Literal] = {
            "version": version,
            "name": change.name,
            **kept(_file_of(change), change.token_checksum),
            "git_revision": self._git_revision or None,
        }
        if change.action is RowAction.ACCEPT:
            return [queries("accept_row", **columns)]
        columns |= {
            "transactional": change.transactional,
            "statements_total": change.statements,
            "tool_version": __version__,
        }
        blocks = [queries("delete_applied", version=version)] if change.before is not None else []
        return [*blocks, queries("insert_repaired", **columns)]

    def _event(self, repair: Repair, change: RowChange, attempt: str, reason: str) -> dict[str, Literal]:
        migration = change.migration
        return self._held.records.empty_event(
            "baseline" if repair.kind is RepairKind.BASELINE else "repair",
            attempt=attempt,
            outcome=repair.kind.value,
            version=change.version,
            name=change.name,
            direction=change.before.direction.value if change.before is not None else "up",
            script_digest=migration.checksum if migration is not None else None,
            path=migration.path if migration is not None else None,
            message=redact(reason),
        )


def _file_of(change: RowChange) -> Migration:
    if change.migration is None:
        raise ValueError(f"there is no file to write the row of version {change.version} from")
    return change.migration
