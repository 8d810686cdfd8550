"""Statements by our own lexer: what ends one, what must not be cut, which ones have rows to send or to get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from reconciler.sqltext.lexer import OTHER, WORD, LexicalError, Token, tokens


class StatementReader:
    """Finds where statements end, token by token.

    A `;` inside parentheses (`CREATE RULE ... DO (a; b)`) or inside a `BEGIN ATOMIC ... END` body ends nothing.
    """

    def __init__(self) -> None:
        self.current: list[Token] = []
        """The tokens of the statement that has begun and not ended."""
        self._opened: list[Token] = []
        self._blocks = 0

    def feed(self, token: Token) -> list[Token] | None:
        """Take the next token. Return the statement that it ends, without the `;`; None for most tokens.

        Raises:
            LexicalError: it closes a parenthesis that was never opened.
        """
        if token.kind == OTHER:
            mark = token.text
            if mark == "(":
                self._opened.append(token)
            elif mark == ")":
                if not self._opened:
                    raise LexicalError(
                        token.start, "this parenthesis closes none", "remove it, or open one before it"
                    )
                self._opened.pop()
            elif mark == ";" and not self._opened and not self._blocks:
                ended, self.current = self.current, []
                return ended or None
        elif token.kind == WORD and token.text[0] in "aAcCeE":
            self._blocks += _block_change(token.text.upper(), self.current, self._blocks)
        self.current.append(token)
        return None

    def finish(self) -> list[Token] | None:
        """Return the last statement, which no `;` ended, or None.

        Raises:
            LexicalError: a parenthesis is never closed.
        """
        if self._opened:
            raise LexicalError(self._opened[-1].start, "this parenthesis is never closed", "close it")
        return self.current or None


def statements(text: str) -> Iterator[list[Token]]:
    """Yield the tokens of each statement of `text`, without the `;` that ends it. Empty statements are left out.

    Raises:
        LexicalError: see `tokens`; a parenthesis without its partner.
    """
    reader = StatementReader()
    for token in tokens(text):
        statement = reader.feed(token)
        if statement is not None:
            yield statement
    last = reader.finish()
    if last is not None:
        yield last


def _block_change(word: str, before: list[Token], blocks: int) -> int:
    """By how much `word` changes the nesting of blocks in which a `;` ends nothing.

    Only the body of a routine in the SQL standard's form is such a block, and inside of it only CASE, too, ends with END.
    """
    if word == "ATOMIC":
        return 1 if before and before[-1].text.upper() == "BEGIN" and _creates_routine(before) else 0
    if not blocks or word not in ("CASE", "END"):
        return 0
    if before[-1].text.upper() in (".", "AS"):
        # `t.end` and `1 AS end` are names
        return 0
    return 1 if word == "CASE" else -1


def _creates_routine(statement: list[Token]) -> bool:
    words = [token.text.upper() for token in statement[:4]]
    kind = words[3:4] if words[1:3] == ["OR", "REPLACE"] else words[1:2]
    return words[0] == "CREATE" and kind in (["FUNCTION"], ["PROCEDURE"])


FROM_CLIENT = "FROM"
"""The rows of a COPY come from whoever sends the statement."""
TO_CLIENT = "TO"
"""The rows of a COPY go to whoever sends the statement."""


def copy_partner(statement: Sequence[Token]) -> str:
    """Return `FROM_CLIENT` or `TO_CLIENT` for a COPY from or to the client, and an empty string for everything else."""
    if statement[0].text.upper() != "COPY":
        return ""
    depth = 0
    for before, token in pairwise(statement):
        depth += (token.text == "(") - (token.text == ")")
        if depth or token.kind != WORD or before.kind != WORD:
            continue
        direction = before.text.upper()
        # the grammar takes either word after either direction
        if token.text.upper() in ("STDIN", "STDOUT") and direction in (FROM_CLIENT, TO_CLIENT):
            return direction
    return ""
