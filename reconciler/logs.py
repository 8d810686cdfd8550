"""The daemon's log: JSON lines for machines, pleasant text on a terminal, and no secret in either.

Messages of our own and of libraries take the same way: through the standard library's root logger to one handler, whose
formatter redacts every text of a message, exceptions too, before it is rendered.
"""

from __future__ import annotations

import contextlib
import json as json_text
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence, Set
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from reconciler.model import Problem, ProblemError
from reconciler.model.encoding import instant_as_text, problem_as_dict
from reconciler.redaction import MASK, Redactor, Secret, redact

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

_LONGEST_REDACTED = 1_000_000
_LONGEST_TEXT = 32_768
_DEEPEST = 8
_OWN = "reconciler"
_SECRET_KEY = re.compile(r"(?:.*[_-])?(?:password|passwd|secret|token|authorization)", re.IGNORECASE)
_HEAD = ("timestamp", "level", "logger", "event")

Event = MutableMapping[str, Any]


def configure(
    verbosity: int = 0,
    *,
    json: bool | None = None,
    stream: TextIO | None = None,
    on_message: Callable[[str], None] | None = None,
    redactor: Redactor = redact,
) -> BoundLogger:
    """Set up the log of this process, in place of what was set up before.

    Args:
        verbosity: 0 shows our messages from `info` and those of libraries from `warning` on; 1 ours from `debug`; 2
            everything; -1 warnings only.
        json: True for JSON lines, False for text, None for text on a terminal and JSON lines elsewhere.
        stream: where to write; None for standard error.
        on_message: called with the level's name of every message that is written.
        redactor: masks the secrets.

    Returns:
        The program's logger.
    """
    import structlog

    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if json is None else json
    renderer = JsonRenderer(redactor) if as_json else TextRenderer(redactor, colours=_wants_colours(stream))
    common: list[Any] = [structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level, _add_timestamp]
    handler = _Handler(stream, on_message)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    _install(handler, verbosity)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return get_logger()


def get_logger(name: str = _OWN) -> BoundLogger:
    """A logger; `name` is `reconciler` or begins with `reconciler.`."""
    import structlog

    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _install(handler: logging.Handler, verbosity: int) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        # a plain handler, as basicConfig makes it, would write the same once more, and unredacted
        if type(old) in (_Handler, logging.StreamHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbosity >= 2 else logging.WARNING)
    own = logging.DEBUG if verbosity >= 1 else logging.INFO if verbosity == 0 else logging.WARNING
    logging.getLogger(_OWN).setLevel(own)
    logging.captureWarnings(True)


def _wants_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _add_timestamp(_logger: Any, _method: str, event: Event) -> Event:
    event["timestamp"] = instant_as_text(datetime.now(UTC))
    return event


class _Handler(logging.StreamHandler[TextIO]):
    """Writes in the encoding of its stream whatever that is, and never quotes a message it could not write."""

    def __init__(self, stream: TextIO, on_message: Callable[[str], None] | None) -> None:
        super().__init__(stream)
        self._on_message = on_message

    def format(self, record: logging.LogRecord) -> str:
        if self._on_message is not None:
            self._on_message(record.levelname.lower())
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        # the standard library's prints the message with its arguments, past the redactor
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            return  # nobody reads the log any more; that must not stop the work
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"a log message of {record.name} could not be written: {type(error).__name__}\n")


class _Plain:
    """Turns what is logged into values of JSON, with every secret masked."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def text(self, text: str) -> str:
        """`text` redacted, and cut when it is huge."""
        length = len(text)
        redacted = self._redactor(text[:_LONGEST_REDACTED])
        if length > _LONGEST_REDACTED and len(redacted) <= _LONGEST_TEXT:
            # so much was masked that the cut, perhaps in the middle of a secret, would be shown
            return f"(a text of {length} characters that is not shown)"
        if len(redacted) > _LONGEST_TEXT:
            return f"{redacted[:_LONGEST_TEXT]}… (cut, of {length} characters)"
        return redacted

    def value(self, value: Any, depth: int = 0) -> Any:
        """`value` as JSON knows it."""
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                return self.text(str(value))
            case Secret():
                return MASK
            case datetime():
                return instant_as_text(value)
            case ProblemError():
                return self.value(value.problem, depth)
            case Problem():
                known = {
                    key: item
                    for key, item in problem_as_dict(value).items()
                    if item is not None and item != ""
                }
                return self.value(known, depth)
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {
                self.text(str(key)): MASK if _SECRET_KEY.fullmatch(str(key)) else self.value(item, depth + 1)
                for key, item in value.items()
            }
        if (
            depth < _DEEPEST
            and isinstance(value, Sequence | Set)
            and not isinstance(value, bytes | bytearray)
        ):
            return [self.value(item, depth + 1) for item in value]
        return self.text(repr(value))


def _ordered(event: Mapping[str, Any]) -> dict[str, Any]:
    """`event` with what every message has at its head."""
    return {key: event[key] for key in _HEAD if key in event} | dict(event)


class JsonRenderer:
    """One line of JSON a message; a problem is an object with the keys of the HTTP API."""

    def __init__(self, redactor: Redactor) -> None:
        self._plain = _Plain(redactor)

    def __call__(self, _logger: Any, _method: str, event: Event) -> str:
        # ASCII, since only that survives every encoding of a stream as valid JSON
        return json_text.dumps(self._plain.value(_ordered(event)))


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BARE = re.compile(r"[^\s\"'=\\]+")
_LONG_COMMIT = re.compile(r"@sha1:([0-9a-f]{12})[0-9a-f]+")
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_LEVELS = {
    "debug": "\x1b[34m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}


class TextRenderer:
    """A line a message for people; problems and exceptions follow it on lines of their own, indented."""

    def __init__(self, redactor: Redactor, *, colours: bool) -> None:
        self._plain = _Plain(redactor)
        self._colours = colours

    def __call__(self, _logger: Any, _method: str, event: Event) -> str:
        problems = _take_problems(event)
        plain: dict[str, Any] = self._plain.value(dict(event))
        if isinstance(revision := plain.get("revision"), str):
            plain["revision"] = _LONG_COMMIT.sub(r"@\1", revision)
        level = str(plain.pop("level", ""))
        logger = str(plain.pop("logger", ""))
        timestamp = str(plain.pop("timestamp", ""))
        message, *more = str(plain.pop("event", "")).splitlines() or [""]
        traceback = str(plain.pop("exception", "")).splitlines()
        if logger and logger.partition(".")[0] != _OWN:
            message = f"{logger}: {message}"
        head = [
            self._in(_DIM, timestamp),
            self._in(_LEVELS.get(level, ""), f"{level:<7}"),
            self._in(_BOLD, _printable(message)),
            *(
                f"{self._in(_DIM, _printable(key) + '=')}{_field(value)}"
                for key, value in plain.items()
                if value is not None
            ),
        ]
        lines = [" ".join(part for part in head if part), *(f"    {_printable(line)}" for line in more)]
        for problem in problems:
            lines += [f"    {line}" for line in self._problem(problem, _LEVELS.get(level, ""))]
        lines += [f"    {self._in(_DIM, _printable(line))}" for line in traceback]
        return "\n".join(lines)

    def _problem(self, problem: Problem, colour: str) -> list[str]:
        where = f"{problem.place}: " if problem.place else ""
        marks = [problem.reason.value]
        if problem.sqlstate:
            marks.append(f"SQLSTATE {problem.sqlstate}")
        if problem.statement_index is not None:
            marks.append(f"statement {problem.statement_index}")
        text = self._plain.text
        message, *more = text(f"{where}{problem.message}").splitlines() or [""]
        lines = [f"{self._in(_BOLD, _printable(message))} [{', '.join(marks)}]"]
        lines += [_printable(line) for line in more]
        source, _, caret = text(problem.excerpt).partition("\n")
        lines += [f"  {_printable(source)}"] if source else []
        lines += [f"  {self._in(colour, line)}" for line in caret.splitlines()]
        lines += [f"  {_printable(line)}" for line in text(problem.detail).splitlines()]
        remedy = " ".join(text(problem.remedy).splitlines())
        return [*lines, f"remedy: {_printable(remedy)}"] if remedy else lines

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour and text.strip() else text


def _take_problems(event: Event) -> list[Problem]:
    """Remove the problems from `event` and return them."""
    problems: list[Problem] = []
    for key, value in list(event.items()):
        values = value if isinstance(value, list | tuple) and value else [value]
        if all(isinstance(item, Problem | ProblemError) for item in values):
            problems += [item.problem if isinstance(item, ProblemError) else item for item in values]
            del event[key]
    return problems


def _field(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return _printable(value)
    return _printable(json_text.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """`text` without anything that could move the cursor or rewrite what stands above it."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
