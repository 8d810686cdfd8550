"""Reading along the tokens of one statement."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.sqltext.lexer import QUOTED_NAME, WORD, Token


class TokenCursor:
    """A position in the tokens of a statement, moved by what is found there. Never raises: past the end is nothing."""

    __slots__ = ("_tokens", "position")

    def __init__(self, tokens: Sequence[Token], position: int = 0) -> None:
        self._tokens = tokens
        self.position = position

    @property
    def at_end(self) -> bool:
        """True when no token is left."""
        return self.position >= len(self._tokens)

    @property
    def word(self) -> str:
        """The keyword here in upper case, the mark as it is written, or an empty string for a quoted thing or the end."""
        if self.at_end:
            return ""
        token = self._tokens[self.position]
        if token.kind == WORD:
            return token.text.upper()
        return "" if token.kind == QUOTED_NAME else token.text

    def rest(self) -> Sequence[Token]:
        """The tokens from here on."""
        return self._tokens[self.position :]

    def take(self, *words: str) -> bool:
        """Move past `words` if just these follow."""
        start = self.position
        for word in words:
            if self.word != word:
                self.position = start
                return False
            self.position += 1
        return True

    def take_any(self, words: frozenset[str]) -> str:
        """Move past one of `words` and return it, or return an empty string."""
        word = self.word
        if word not in words:
            return ""
        self.position += 1
        return word

    def name(self) -> str:
        """Move past a name with its qualifiers and return it as written, or return an empty string."""
        parts = []
        while not self.at_end and self._tokens[self.position].kind in (WORD, QUOTED_NAME):
            parts.append(self._tokens[self.position].text)
            self.position += 1
            if not self.take("."):
                break
        return ".".join(parts)

    def skip_parentheses(self) -> bool:
        """Move past a group in parentheses, if one begins here."""
        if self.word != "(":
            return False
        depth = 0
        while not self.at_end:
            depth += (self.word == "(") - (self.word == ")")
            self.position += 1
            if not depth:
                break
        return True

    def seek(self, *words: str) -> bool:
        """Move past the next of `words` that stands outside parentheses, or to the end."""
        while not self.at_end:
            if self.word in words:
                self.position += 1
                return True
            if not self.skip_parentheses():
                self.position += 1
        return False
