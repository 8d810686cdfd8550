"""What statements that ran made of their session, and what of it is still in force."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model import Statement
from reconciler.sqltext.classification import controls_transaction, sets_session
from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import Token, tokens

_OUTLIVE_A_ROLLBACK = frozenset({"PREPARE", "DEALLOCATE", "LOAD"})
_COMMITS = frozenset({"COMMIT", "END"})
_ENDS = _COMMITS | {"ROLLBACK", "ABORT"}
_NOISE = frozenset({"WORK", "TRANSACTION"})


def settings_in_force(statements: Sequence[Statement]) -> list[int]:
    """Return the indexes of those of `statements`, all of which ran, that a new session must repeat to be as the old one was.

    What a rolled back transaction set is not in force, nor what was set after a savepoint that was rolled back to.
    """
    kept: list[int] = []
    block: _Block | None = None
    for index, statement in enumerate(statements):
        part = list(tokens(statement.text))
        word = TokenCursor(part).word
        if word in _ENDS and controls_transaction(part):
            if block is not None:
                kept += block.after(committed=word in _COMMITS)
            block = None
        elif controls_transaction(part):
            block = block or _Block()
        elif block is not None:
            block.add(index, part)
        elif sets_session(part):
            kept.append(index)
    return kept


class _Block:
    """What was set since a transaction began."""

    def __init__(self) -> None:
        self._settings: list[tuple[int, bool]] = []
        """The index, and whether a rollback undoes it."""
        self._savepoints: list[tuple[str, int]] = []
        """The name, and how many settings there were."""

    def add(self, index: int, part: list[Token]) -> None:
        cursor = TokenCursor(part)
        if cursor.take("SAVEPOINT"):
            self._savepoints.append((_folded(cursor), len(self._settings)))
        elif cursor.take("ROLLBACK"):
            cursor.take_any(_NOISE)
            cursor.take("TO")
            cursor.take("SAVEPOINT")
            place = self._find(_folded(cursor))
            if place >= 0:
                self._undo(self._savepoints[place][1])
                del self._savepoints[place + 1 :]
        elif cursor.take("RELEASE"):
            cursor.take("SAVEPOINT")
            place = self._find(_folded(cursor))
            if place >= 0:
                del self._savepoints[place:]
        elif sets_session(part):
            self._settings.append((index, cursor.word not in _OUTLIVE_A_ROLLBACK))

    def after(self, *, committed: bool) -> list[int]:
        """What is in force when the transaction has ended."""
        if not committed:
            self._undo(0)
        return [index for index, _ in self._settings]

    def _undo(self, start: int) -> None:
        self._settings[start:] = [each for each in self._settings[start:] if not each[1]]

    def _find(self, name: str) -> int:
        """Where the newest savepoint of this name stands, -1 for none."""
        return next(
            (at for at in reversed(range(len(self._savepoints))) if self._savepoints[at][0] == name), -1
        )


def _folded(cursor: TokenCursor) -> str:
    name = cursor.name()
    return name if name.startswith('"') else name.lower()
