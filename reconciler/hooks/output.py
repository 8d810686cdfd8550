"""What a hook writes: cut into lines, bounded, redacted, its artefact found and its last lines kept."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

from reconciler.redaction import Redactor, redact

ARTEFACT = "reconciler-artefact:"
"""A line that begins with this names what the hook made."""
_LONGEST_LINE = 4096
"""Characters of a line that are shown."""
_LONGEST_READ = 4 * _LONGEST_LINE
"""Characters of a line that are kept until its end: a secret in what is shown must be seen whole to be masked."""
_MOST = 1_000_000
"""Characters of all lines that are shown."""
_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
_LONGEST_ARTEFACT = 1000


class Output:
    """Takes the bytes of a hook as they come.

    Args:
        on_line: called with each line, redacted.
        redactor: masks the secrets.
    """

    def __init__(self, on_line: Callable[[str], None], redactor: Redactor = redact) -> None:
        self.artefact = ""
        self._on_line = on_line
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._line = ""
        self._dropped = 0
        self._shown = 0
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that hold anything, shortened."""
        return tuple(self._last)

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
        length = len(self._line) + self._dropped
        line = self._redactor(self._line.rstrip("\r"))
        if self._dropped and len(line) <= _LONGEST_LINE:
            # so much was masked that the cut, perhaps in the middle of a secret, would be shown
            line = f"(a line of {length} characters that is not shown)"
        elif len(line) > _LONGEST_LINE:
            line = f"{line[:_LONGEST_LINE]}… (cut, of {length} characters)"
        self._line, self._dropped = "", 0
        if line.startswith(ARTEFACT):
            self.artefact = line.removeprefix(ARTEFACT).strip()[:_LONGEST_ARTEFACT]
        if line.strip():
            self._last.append(line[:_LONGEST_LAST_LINE])
        self._show(line)

    def _show(self, line: str) -> None:
        if self._shown > _MOST:
            return
        self._shown += len(line) + 1
        self._on_line(line if self._shown <= _MOST else "(more output is not shown)")
