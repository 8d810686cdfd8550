"""A plan: the ordered steps that bring a history to a target, or the reasons why none may run."""

from __future__ import annotations

from reconciler.model.history import AttemptKey
from reconciler.model.hooks import Hooks
from reconciler.model.migration import Direction, Migration, Script, ScriptSource, Statement
from reconciler.model.problem import Problem
from reconciler.model.value import value


@value(kw_only=True)
class Step:
    """One migration to run in one direction.

    Args:
        version: of the migration.
        name: of the migration.
        direction: up or down.
        script: what runs.
        source: where the script was taken from.
        statements: the script, split.
        transactional: one transaction with its history row; otherwise statement by statement.
        first_statement: index (from 0) of the statement to begin with: over 0 when an earlier attempt at a
            non-transactional migration did the ones before it.
        leftover: an invalid index, quoted and with its schema, that an earlier attempt left behind: dropped first. Empty
            when there is none.
        lock_timeout: seconds to wait for a table lock, 0 = for ever.
        statement_timeout: seconds a statement may take, 0 = for ever.
        key: what a failure of this step is filed under.
        migration: the parsed file; None for a down whose file is gone.
        token_checksum: SHA-256 hex over the tokens of the up script; empty for a down.
        data_loss: what data the up drops, in words; empty when none.
    """

    version: int
    name: str
    direction: Direction
    script: Script
    source: ScriptSource
    statements: tuple[Statement, ...]
    transactional: bool
    first_statement: int = 0
    leftover: str = ""
    lock_timeout: float
    statement_timeout: float
    key: AttemptKey
    migration: Migration | None
    token_checksum: str = ""
    data_loss: tuple[str, ...] = ()


@value
class Pin:
    """A row of the earlier tool whose digests and down script are to be taken from the catalog."""

    version: int
    migration: Migration
    token_checksum: str


@value(kw_only=True)
class Plan:
    """What it takes to bring one database to its target.

    When `refusals` is not empty nothing may run, and `steps` holds what would have run, as far as that is known.

    Args:
        current: the highest applied version, 0 for none.
        target: the declared version, 0 for none.
        steps: in the order they run: downs first, newest to oldest, then ups, oldest to newest.
        refusals: every reason against running.
        warnings: things a person should know that do not stand against running.
        pins: rows to be completed before the first step.
        untouched: versions whose down was cut off before it changed anything and is not asked for any more: their rows are to
            say again, before the first step, that they are applied.
        hooks: commands that are run around the steps; none when there is no step.
    """

    current: int
    target: int
    steps: tuple[Step, ...] = ()
    refusals: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    pins: tuple[Pin, ...] = ()
    untouched: tuple[int, ...] = ()
    hooks: Hooks = Hooks()

    @property
    def in_sync(self) -> bool:
        """True when there is nothing to do and nothing stands against it."""
        return not self.steps and not self.refusals

    @property
    def runnable(self) -> bool:
        """True when there is something to do and nothing stands against it."""
        return not self.refusals and bool(self.steps or self.pins or self.untouched)
