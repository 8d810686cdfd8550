"""Digests of SQL text: one over every character, one over the tokens alone."""

from __future__ import annotations

import hashlib
import re

from reconciler.sqltext.lexer import LexicalError, token_texts

_LINE_END = re.compile(r"\r+\n")


def normalise_line_ends(text: str) -> str:
    """Return `text` with every CR LF made LF. A CR alone stays: it is part of the text."""
    return _LINE_END.sub("\n", text) if "\r" in text else text


def digest(text: str) -> str:
    """Return the SHA-256 of `text`, line ends normalised, in hex."""
    return hashlib.sha256(normalise_line_ends(text).encode("utf-8", "surrogatepass")).hexdigest()


def token_checksum(text: str) -> str:
    """Return the SHA-256 over the tokens of `text`, in hex.

    An edit of comments and of blanks between tokens leaves it as it is. Everything else counts: what is inside quotes,
    and the letter case of words, because the text of an identifier's case may be what the edit was about. Text that
    has no tokens from some point on (an unclosed quote) counts as it is written.
    """
    try:
        content = "\0".join(token_texts(normalise_line_ends(text)))
    except LexicalError:
        content = text
    return digest(content)
