"""Statements by our own lexer: what ends one, what must not be cut, what cannot run here at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from reconciler.sqltext.lexer import OTHER, WORD, LexicalError, Token, tokens


def statements(text: str) -> Iterator[list[Token]]:
    """Yield the tokens of each statement of `text`, without the `;` that ends it. Empty statements are left out.

    A `;` inside parentheses (`CREATE RULE ... DO (a; b)`) or inside a `BEGIN ATOMIC ... END` body ends nothing.

    Raises:
        LexicalError: see `tokens`; a parenthesis without its partner; `COPY` from or to the client.
    """
    current: list[Token] = []
    opened: list[Token] = []
    blocks = 0
    for token in tokens(text):
        if token.kind == OTHER:
            mark = token.text
            if mark == "(":
                opened.append(token)
            elif mark == ")":
                if not opened:
                    raise LexicalError(
                        token.start, "this parenthesis closes none", "remove it, or open one before it"
                    )
                opened.pop()
            elif mark == ";" and not opened and not blocks:
                if current:
                    refuse_copy(current)
                    yield current
                    current = []
                continue
        elif token.kind == WORD and token.text[0] in "aAcCeE":
            blocks += _block_change(token.text.upper(), current, blocks)
        current.append(token)
    if opened:
        raise LexicalError(opened[-1].start, "this parenthesis is never closed", "close it")
    if current:
        refuse_copy(current)
        yield current


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


def refuse_copy(statement: Sequence[Token], offset: int = 0) -> None:
    """Raise for a COPY whose rows come from, or go to, whoever sends the statement.

    Args:
        statement: its tokens.
        offset: index, in the text that an error is to be about, of the text the tokens were read from.

    Raises:
        LexicalError: for such a COPY.
    """
    if statement[0].text.upper() != "COPY":
        return
    depth = 0
    for before, token in pairwise(statement):
        depth += (token.text == "(") - (token.text == ")")
        if depth or token.kind != WORD or before.kind != WORD:
            continue
        direction, end = before.text.upper(), token.text.upper()
        if end not in ("STDIN", "STDOUT"):
            continue
        # the grammar takes either word after either direction
        if direction == "FROM":
            raise LexicalError(
                offset + statement[0].start,
                "COPY ... FROM STDIN is not supported in this version",
                "write the rows as INSERT ... VALUES",
            )
        if direction == "TO":
            raise LexicalError(
                offset + statement[0].start,
                "COPY ... TO STDOUT has nowhere to send its rows",
                "remove it from the migration",
            )
