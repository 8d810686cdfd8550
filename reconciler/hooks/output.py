"""What a hook writes: cut into lines, bounded, redacted, its artefact found and its last lines kept."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from reconciler.redaction import Redactor, redact

ARTEFACT = "reconciler-artefact:"
"""A line that begins with this names what the hook made."""
_LONGEST_LINE = 4096
"""Characters of a line that are shown."""
_LONGEST_READ = 4 * _LONGEST_LINE
"""Characters of a line that are kept until its end: a secret in what is shown must be seen whole to be masked."""
_MOST = 1_000_000
"""Characters of all lines that are shown."""
_MOST_LINES = 5000
"""Lines that are shown: each is masked, and written to the log with all that is known of its hook."""
_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
_LONGEST_ARTEFACT = 1000


class _Line(NamedTuple):
    """A line as it was written, which may hold secrets: its beginning, and how many characters more it had."""

    text: str
    dropped: int


class Output:
    """Takes the bytes of a hook as they come. What is not shown costs next to nothing.

    Args:
        on_line: called with each line, redacted.
        redactor: masks the secrets.
    """

    def __init__(self, on_line: Callable[[str], None], redactor: Redactor = redact) -> None:
        self._on_line = on_line
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._line = ""
        self._dropped = 0
        self._shown = 0
        self._lines = 0
        self._full = False
        self._last: deque[_Line] = deque(maxlen=_LAST_LINES)
        self._artefact = _Line("", 0)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that hold anything, redacted and shortened."""
        return tuple(self._masked(line)[:_LONGEST_LAST_LINE] for line in self._last)

    @property
    def artefact(self) -> str:
        """What the hook said it made, redacted; empty when it said nothing."""
        line = self._masked(self._artefact)
        return line.removeprefix(ARTEFACT).strip()[:_LONGEST_ARTEFACT] if line.startswith(ARTEFACT) else ""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._take(self._decoder.decode(data))

    def end(self) -> None:
        """There are no more."""
        self._take(self._decoder.decode(b"", final=True))
        if self._line or self._dropped:
            self._finish_line()

    def _take(self, text: str) -> None:
        first, *more = text.split("\n")
        self._extend(first)
        for line in more:
            self._finish_line()
            self._extend(line)

    def _extend(self, text: str) -> None:
        room = _LONGEST_READ - len(self._line)
        self._line += text[:room]
        self._dropped += max(0, len(text) - room)

    def _finish_line(self) -> None:
        line = _Line(self._line, self._dropped)
        self._line, self._dropped = "", 0
        if line.text.startswith(ARTEFACT):
            self._artefact = line
        if line.text.strip():
            self._last.append(line)
        if not self._full:
            self._show(self._masked(line))

    def _masked(self, line: _Line) -> str:
        """A line as it may be shown."""
        length = len(line.text) + line.dropped
        text = self._redactor(line.text.rstrip("\r"))
        if line.dropped and len(text) <= _LONGEST_LINE:
            # so much was masked that the cut, perhaps in the middle of a secret, would be shown
            return f"(a line of {length} characters that is not shown)"
        if len(text) > _LONGEST_LINE:
            return f"{text[:_LONGEST_LINE]}… (cut, of {length} characters)"
        return text

    def _show(self, line: str) -> None:
        self._shown += len(line) + 1
        self._lines += 1
        self._full = self._shown > _MOST or self._lines > _MOST_LINES
        self._on_line("(more output is not shown)" if self._full else line)
