"""Digests of SQL text: one over every character, one over the tokens alone."""

from __future__ import annotations

import hashlib
import re

from reconciler.model import Statement
from reconciler.sqltext.clientside import server_text
from reconciler.sqltext.lexer import LexicalError, token_texts

_LINE_END = re.compile(r"\r+\n")


def normalise_line_ends(text: str) -> str:
    """Return `text` with every CR LF made LF. A CR alone stays: it is part of the text."""
    return _LINE_END.sub("\n", text) if "\r" in text else text


def digest(text: str) -> str:
    """Return the SHA-256 of `text`, line ends normalised, in hex."""
    return hashlib.sha256(normalise_line_ends(text).encode("utf-8", "surrogatepass")).hexdigest()


def token_checksum(text: str) -> str:
    """Return the SHA-256 over the tokens of `text`, a script, in hex.

    An edit of comments and of blanks between tokens leaves it as it is. Everything else counts: what is inside quotes,
    every character of the rows of a COPY, and the letter case of words, because the text of an identifier's case may be
    what the edit was about. Text that has no tokens from some point on (an unclosed quote) counts as it is written.
    """
    text = normalise_line_ends(text)
    try:
        parts = server_text(text)
        content = "\0".join([*token_texts(parts.text), *(text[rows.start : rows.end] for rows in parts.rows)])
    except LexicalError:
        content = text
    return digest(content)


def statement_checksum(statement: Statement) -> str:
    """Return the SHA-256 over the tokens of `statement` and its rows, in hex: `token_checksum` of that statement alone."""
    text = normalise_line_ends(statement.text)
    try:
        content = "\0".join(token_texts(text))
    except LexicalError:
        content = text
    if statement.copy_data is not None:
        content += "\0" + statement.copy_data
    return digest(content)
