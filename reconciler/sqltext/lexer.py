"""PostgreSQL's lexical rules, as far as one must know them to say where a statement, a string or a comment ends.

Two readers share the rules. `tokens` yields every token; it is for scripts that are about to run or to be checked.
`line_comments` jumps from quote to quote and yields only what stands outside of them; it is for loading thousands of files.

The rules are those of the server's `scan.l` with `standard_conforming_strings` on, which every migration session has.
CockroachDB reads the same text the same way, but for backslashes in `b'...'`: see `cockroachdb.refuse_byte_escapes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple


class LexicalError(Exception):
    """The text has no tokens from some point on.

    Args:
        offset: index of the character at which the trouble begins.
        message: what is wrong there.
        remedy: what to do about it.
    """

    def __init__(self, offset: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.remedy = remedy


class Token(NamedTuple):
    """One token. `kind` is one of the constants below; `text` is as written."""

    kind: int
    text: str
    start: int
    end: int


WORD = 1
"""A keyword or an identifier without quotes."""
QUOTED_NAME = 2
"""An identifier in double quotes."""
STRING = 3
"""A string of any kind, with its prefix, or a dollar-quoted one."""
OTHER = 4
"""A number, a parameter, an operator or a punctuation mark."""
CLIENT_LINE = 5
"""A line that pg_dump writes for psql alone."""

# Letters are the ASCII ones, `_` and everything beyond ASCII. Said by what they are not: a class that names a million
# characters takes Python ten milliseconds to compile.
_LETTER = r"[^\x00-@\[-\^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-\^`{-\x7f]"
_WORD_CHARACTER = r"[^\x00-#%-/:-@\[-\^`{-\x7f]"
_BLANK = r"(?:[ \t\n\r\f\v]++|--[^\n\r]*+)*+"
# A string may go on in the next line, after nothing but blanks and comments. Only for E'' does it matter here: the
# second part, too, knows backslashes.
_CONTINUED = r"(?:[ \t\f\v]|--[^\n\r]*+(?=[\n\r]))*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+"
_ESCAPE_BODY = r"'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'"
_ESCAPE_STRING = rf"{_ESCAPE_BODY}(?:{_CONTINUED}{_ESCAPE_BODY})*+"
_DOLLAR = rf"\$(?:{_LETTER}{_LETTER_OR_DIGIT}*+)?\$"


@cache
def _blank_pattern() -> re.Pattern[str]:
    return re.compile(_BLANK)


@cache
def _escape_string_pattern() -> re.Pattern[str]:
    return re.compile(_ESCAPE_STRING, re.DOTALL)


# Each alternative of a token that one expression can tell. What opens a dollar quote or a block comment is not among them.
_STRING_TOKEN = rf"[eE]{_ESCAPE_STRING}|(?:[uU]&)?'[^']*+(?:''[^']*+)*+'|[bBxX]'[^']*+'"
_NAME_TOKEN = r'''(?:[uU]&)?"[^"]*+(?:""[^"]*+)*+"'''
_WORD_TOKEN = rf"(?![eE]'){_LETTER}{_WORD_CHARACTER}*+"  # E' that got here is an unclosed string
_OTHER_TOKEN = rf"\$[0-9]++|[0-9]{_LETTER_OR_DIGIT}*+|[();,.\[\]:]|(?:(?!--|/\*)[-+*/<>=~!@#%^&|`?])++"


@cache
def _token_pattern() -> re.Pattern[str]:
    """Blanks and line comments, then one token. `tokens` knows the groups by number."""
    groups = (_STRING_TOKEN, _NAME_TOKEN, _WORD_TOKEN, _DOLLAR, r"/\*", _OTHER_TOKEN)
    return re.compile(f"{_BLANK}(?:{'|'.join(f'({group})' for group in groups)})?", re.DOTALL)


@cache
def _plain_token_pattern() -> re.Pattern[str]:
    """Blanks and line comments, then one token as the only group, for text without `$`, `/*` and backslashes."""
    return re.compile(f"{_BLANK}({_STRING_TOKEN}|{_NAME_TOKEN}|{_WORD_TOKEN}|{_OTHER_TOKEN}|.)?", re.DOTALL)


@cache
def _region_pattern() -> re.Pattern[str]:
    """A line comment, or what opens a quote or a block comment."""
    return re.compile(rf"--[^\n\r]*+|'|\"|/\*|{_DOLLAR}")


@cache
def _block_comment_pattern() -> re.Pattern[str]:
    return re.compile(r"/\*|\*/")


_KINDS = (0, STRING, QUOTED_NAME, WORD, STRING, 0, OTHER)
"""The kind of token that each group of `_token_pattern` stands for."""


def tokens(text: str, start: int = 0) -> Iterator[Token]:
    """Yield the tokens of `text` from index `start` on, without blanks and comments.

    Raises:
        LexicalError: at a quote or a block comment that is never closed, or a psql meta-command.
    """
    match = _token_pattern().match
    position = start
    length = len(text)
    while True:
        found = match(text, position)
        assert found is not None, "every part of the pattern may be empty"
        group = found.lastindex
        if group is None:
            position = found.end()
            if position >= length:
                return
            end = _client_line_end(text, position)
            if end is not None:
                yield Token(CLIENT_LINE, text[position:end], position, end)
                position = end
                continue
            _refuse_character(text, position)
            yield Token(OTHER, text[position], position, position + 1)
            position += 1
            continue
        begin, position = found.span(group)
        if group == 5:
            position = _block_comment_end(text, begin)
            continue
        if group == 4:
            position = _dollar_quote_end(text, begin, text[begin:position])
        yield Token(_KINDS[group], text[begin:position], begin, position)


def token_texts(text: str) -> list[str]:
    """Return the text of each token, as `tokens` finds them; several times faster where there are no dollar quotes.

    Raises:
        LexicalError: see `tokens`.
    """
    if "$" not in text and "/*" not in text and "\\" not in text:
        found = [token for token in _plain_token_pattern().findall(text) if token]
        # a quote that stands alone is one that is never closed
        if "'" not in found and '"' not in found:
            return found
    return [token.text for token in tokens(text)]


def line_comments(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each `--` comment of `text` that stands outside quotes and block comments.

    Raises:
        LexicalError: at a quote or a block comment that is never closed.
    """
    search = _region_pattern().search
    position = 0
    while found := search(text, position):
        start = found.start()
        mark = text[start]
        if mark == "-":
            yield start, found.end()
            position = found.end()
        elif mark == "'":
            position = _string_end(text, start, position)
        elif mark == '"':
            position = text.find('"', start + 1) + 1
            if not position:
                raise _never_closed(start, "quoted identifier")
        elif mark == "/":
            position = _block_comment_end(text, start)
        elif _inside_word(text, start, position):
            # `a$b$c` is one identifier
            position = _skip_word(text, start)
        else:
            position = _dollar_quote_end(text, start, found[0])


def without_comments(text: str) -> str:
    """Return `text` with a blank for each character of a comment, so that every offset stays what it was.

    Raises:
        LexicalError: see `tokens`.
    """
    visible = re.compile(r"\S")
    parts: list[str] = []
    position = 0
    for token in tokens(text):
        parts.append(visible.sub(" ", text[position : token.start]))
        parts.append(
            _joined_string(token.text) if token.kind == STRING and token.text[0] in "eE" else token.text
        )
        position = token.end
    parts.append(visible.sub(" ", text[position:]))
    return "".join(parts)


def _joined_string(text: str) -> str:
    """`text`, an E'' string, with blanks for the comments between its parts."""
    body, between = re.compile(_ESCAPE_BODY, re.DOTALL), re.compile(_CONTINUED)
    parts = [text[0]]
    position = 1
    while part := body.match(text, position):
        parts.append(part[0])
        position = part.end()
        if gap := between.match(text, position):
            parts.append(re.sub(r"\S", " ", gap[0]))
            position = gap.end()
    return "".join(parts)


def first_token(text: str, start: int, end: int) -> int:
    """Return the index of the first character from `start` on that is no blank, comment or `;`, or `end`."""
    match = _blank_pattern().match
    # what stands between two statements, nearly always
    position = start + 1 if text.startswith(";", start) else start
    while position < end:
        found = match(text, position)
        assert found is not None, "the pattern may be empty"
        position = found.end()
        if text.startswith("/*", position):
            position = _block_comment_end(text, position)
        elif text.startswith(";", position):
            position += 1
        else:
            break
    return min(position, end)


def _string_end(text: str, start: int, floor: int) -> int:
    """Where the string whose quote is at `start` ends; a doubled quote is taken for the end of one and the start of another.

    What stands before `floor` belongs to something else and is no prefix.
    """
    prefix = start - 1
    if prefix >= floor and text[prefix] in "eE" and _word_start(text, prefix, floor) == prefix:
        found = _escape_string_pattern().match(text, start)
        if found is None:
            raise _never_closed(prefix, "string")
        return found.end()
    end = text.find("'", start + 1) + 1
    if not end:
        raise _never_closed(start, "string")
    return end


def _goes_on_word(character: str) -> bool:
    return character.isalnum() or character in "_$" or character >= "\x80"


def _inside_word(text: str, index: int, floor: int) -> bool:
    """True when the character at `index` goes on with an identifier that began before it."""
    start = _word_start(text, index, floor)
    # what begins with a digit is a number, and no number holds a dollar sign
    return start < index and text[start] not in "0123456789"


def _word_start(text: str, index: int, floor: int) -> int:
    """Where the word or number begins that the character at `index` goes on with, at `floor` or later, or `index`."""
    start = index
    while start > floor and _goes_on_word(text[start - 1]):
        start -= 1
    # a parameter such as $1 is over with its digits
    while start < index and text[start] == "$":
        start += 1
        while start < index and text[start] in "0123456789":
            start += 1
    return start


def _skip_word(text: str, index: int) -> int:
    while index < len(text) and _goes_on_word(text[index]):
        index += 1
    return index


def _dollar_quote_end(text: str, start: int, delimiter: str) -> int:
    end = text.find(delimiter, start + len(delimiter))
    if end < 0:
        raise LexicalError(
            start,
            f"the dollar-quoted string that {delimiter} opens here is never closed",
            f"close it with {delimiter}",
        )
    return end + len(delimiter)


def _block_comment_end(text: str, start: int) -> int:
    depth = 0
    for mark in _block_comment_pattern().finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise LexicalError(
        start, "the block comment that opens here is never closed", "close it with */; block comments nest"
    )


def _never_closed(start: int, what: str) -> LexicalError:
    return LexicalError(
        start,
        f"the {what} that opens here is never closed",
        "close it, or double a quote that is meant literally",
    )


def _client_line_end(text: str, position: int) -> int | None:
    """Where the line ends whose first visible character is at `position`, if it is one of pg_dump for psql."""
    if text[position] != "\\" or text[text.rfind("\n", 0, position) + 1 : position].strip(" \t"):
        return None
    found = re.compile(r"\\(?:un)?restrict(?![^\s])[^\n]*").match(text, position)
    return found.end() if found else None


def _refuse_character(text: str, position: int) -> None:
    """Raise for a character no statement can hold outside quotes. The server judges the others."""
    character = text[position]
    if character in "'eE":
        raise _never_closed(position, "string")
    if character == '"':
        raise _never_closed(position, "quoted identifier")
    if character == "\\":
        found = re.compile(r"\\[^\s\\;]*").match(text, position)
        command = found[0] if found else character
        remedy = "write it in SQL; meta-commands are read by psql and never reach a server"
        if command in ("\\restrict", "\\unrestrict"):
            remedy = "write it on a line of its own, or remove it; pg_dump writes it for psql alone"
        raise LexicalError(position, f"{command} is a psql meta-command", remedy)
