"""What is written of steps and of all else that is done: the columns of history rows and of journal events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from reconciler import __version__
from reconciler.database.failures import mask_literals
from reconciler.database.outcome import excerpt_for_journal
from reconciler.database.queries import Literal
from reconciler.model import Actor, AttemptKey, Blocker, HookResult, Migration, Problem, Reason, Step
from reconciler.model.encoding import blocker_as_dict
from reconciler.redaction import redact

_LONGEST_DURATION = 2**31 - 1
"""Milliseconds that the journal's column has room for: 24 days."""
_EVENT_COLUMNS = [
    "attempt",
    "event",
    "version",
    "name",
    "direction",
    "outcome",
    "script_source",
    "script_digest",
    "policy_digest",
    "execution_time_ms",
    "reason",
    "message",
    "remedy",
    "sqlstate",
    "path",
    "line",
    "column_number",
    "excerpt",
    "statement_index",
    "blockers",
]
_FAILED_COLUMNS = [
    "version",
    "name",
    "checksum",
    "path",
    "token_checksum",
    "statements_total",
    "git_revision",
    "tool_version",
]


class Records:
    """The columns of all that one holder of the lock writes to history and journal. It writes nothing itself.

    Args:
        actor: who holds the lock.
        fence: the number it was taken with.
    """

    def __init__(self, actor: Actor, fence: int) -> None:
        self._actor = actor
        self._who = who(actor, fence)

    def row(self, step: Step) -> dict[str, Literal]:
        """The history row of an up."""
        migration = step.migration
        if migration is None:
            raise ValueError(f"the up of version {step.version} has no migration file")
        return {
            "version": step.version,
            "name": step.name,
            **kept(migration, step.token_checksum),
            "statements_total": len(step.statements),
            "git_revision": self._actor.git_revision or None,
            "tool_version": __version__,
        }

    def failed_row(self, step: Step, problem: Problem, milliseconds: int) -> dict[str, Literal]:
        """The history row of an up that failed, after that long."""
        row = self.row(step)
        return {
            "execution_time_ms": milliseconds,
            "error_message": mask_literals(str(problem)),
            **{key: row[key] for key in _FAILED_COLUMNS},
        }

    def facts(self, step: Step, attempt_id: str) -> dict[str, Literal]:
        """The journal's columns that every event of one attempt shares."""
        return {
            "attempt": attempt_id,
            "version": step.version,
            "name": step.name,
            "direction": step.direction.value,
            "script_source": step.source.value,
            "script_digest": step.key.script_digest,
            "policy_digest": step.key.policy_digest,
            **self._who,
        }

    def empty_event(self, event: str, **known: Literal) -> dict[str, Literal]:
        """The journal's columns for an event, all empty but who writes it and what is `known`."""
        empty: dict[str, Literal] = dict.fromkeys(_EVENT_COLUMNS)
        return {**empty, "attempt": str(uuid.uuid4()), "event": event, **self._who, **known}

    def failed_event(
        self, step: Step, problem: Problem, attempt_id: str, milliseconds: int, blockers: Sequence[Blocker]
    ) -> dict[str, Literal]:
        """The journal's columns for a step that failed.

        Args:
            step: the step.
            problem: why it failed.
            attempt_id: of the attempt.
            milliseconds: since the attempt began.
            blockers: who was in the way.
        """
        return {
            **self.empty_event("finished"),
            **self.facts(step, attempt_id),
            "outcome": _outcome(problem),
            "execution_time_ms": milliseconds,
            "reason": problem.reason.value,
            "message": mask_literals(problem.message),
            "remedy": problem.remedy,
            "sqlstate": problem.sqlstate or None,
            "path": problem.place.path if problem.place else step.script.path,
            "line": problem.place.line if problem.place else None,
            "column_number": problem.place.column if problem.place else None,
            "excerpt": mask_literals(excerpt_for_journal(step, problem)) or None,
            "statement_index": problem.statement_index,
            "blockers": _as_json(blockers),
        }

    def plain_event(
        self, event: str, problem: Problem | None = None, *, of: AttemptKey | None = None
    ) -> dict[str, Literal]:
        """The journal's columns for an event that is no step's: a retry asked for, a plan refused.

        Args:
            event: its name.
            problem: why, for a refusal.
            of: the attempt that it is about.
        """
        known = self.empty_event(event)
        if of is not None:
            known |= {"version": of.version, "direction": of.direction.value}
        if problem is not None:
            known |= {
                "version": problem.version,
                "reason": problem.reason.value,
                "message": mask_literals(problem.message),
                "remedy": problem.remedy,
                "path": problem.place.path if problem.place else None,
                "line": problem.place.line if problem.place else None,
                "column_number": problem.place.column if problem.place else None,
            }
        return known

    def hook_event(self, result: HookResult) -> dict[str, Literal]:
        """The journal's columns for a hook that ran."""
        occasion, problem = result.occasion, result.problem
        way = f"{occasion.moment}, from version {occasion.from_version} to {occasion.target_version}"
        written = problem.detail.splitlines() if problem is not None else []
        # the message ends with the last of the lines that follow here
        headline = (
            problem.message.removesuffix(f": {written[-1]}" if written else "") if problem is not None else ""
        )
        lines = [f"{way}: {headline}" if headline else way, *written]
        return {
            "attempt": str(uuid.uuid4()),
            "name": result.hook.label[:255],
            "outcome": _outcome(problem),
            "execution_time_ms": min(round(result.duration * 1000), _LONGEST_DURATION),
            "reason": problem.reason.value if problem is not None else None,
            "message": redact("\n".join(lines)),
            "artefact": redact(result.artefact) or None,
            **self._who,
        }


_KNOWN_OF_AN_END = [
    "attempt",
    "reason",
    "message",
    "remedy",
    "sqlstate",
    "execution_time_ms",
    "path",
    "line",
    "column_number",
    "excerpt",
    "statement_index",
]


def known_end(event: Mapping[str, Literal]) -> dict[str, Literal]:
    """What the block `end_open_attempts` is told of an attempt whose end could not be recorded when it came.

    Args:
        event: as `Records.failed_event` made it; empty when nothing is known of any.
    """
    return {column: event.get(column) for column in _KNOWN_OF_AN_END}


def who(actor: Actor, fence: int | None) -> dict[str, Literal]:
    """The journal's columns that say who writes an event.

    Args:
        actor: who.
        fence: the number of the lock that it is about; None where nobody ever took it.
    """
    return {
        "git_revision": actor.git_revision or None,
        "git_author": actor.git_author or None,
        "environment": actor.claim.environment if actor.claim else None,
        "database_name": actor.claim.database if actor.claim else None,
        "verb": actor.verb,
        "os_user": actor.user,
        "host": actor.host,
        "pid": actor.pid,
        "tool_version": __version__,
        "fence": fence,
    }


def kept(migration: Migration, token_checksum: str) -> dict[str, Literal]:
    """What of a migration lives on with the database: its digests and all that a later rollback needs."""
    down = migration.down
    directives = migration.directives
    return {
        "checksum": migration.checksum,
        "token_checksum": token_checksum,
        "path": migration.path,
        "down_script": down.text if down else None,
        "down_checksum": migration.down_checksum,
        "down_first_line": down.first_line if down else None,
        "no_transaction": directives.no_transaction,
        "irreversible": directives.irreversible,
        "lock_timeout": directives.lock_timeout,
        "statement_timeout": directives.statement_timeout,
    }


def _outcome(problem: Problem | None) -> str:
    if problem is None:
        return "success"
    return "interrupted" if problem.reason is Reason.INTERRUPTED else "failed"


def _as_json(blockers: Sequence[Blocker]) -> str | None:
    """Who was in the way, for the journal."""
    return json.dumps([blocker_as_dict(blocker) for blocker in blockers]) if blockers else None
