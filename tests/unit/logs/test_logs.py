from __future__ import annotations

import base64
import io
import json
import logging
import os
import pty
import re
import select
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from reconciler.logs import configure, get_logger
from reconciler.model import Place, Problem, ProblemError, Reason
from reconciler.redaction import MASK, Redactor, Secret

PROBLEM = Problem(
    reason=Reason.STATEMENT_FAILED,
    message='column "nam" does not exist',
    remedy="correct the file and commit it",
    place=Place("migrations/00003_x.sql", 12, 8),
    excerpt="SELECT nam FROM customers\n       ^",
    sqlstate="42703",
    detail="HINT: Perhaps you meant customers.name.",
    version=3,
    direction="up",
    statement_index=2,
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("reconciler")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_when_the_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    log = configure(stream=stream)
    log.info(
        "step applied",
        environment="dev",
        version=3,
        duration=0.5,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        none=None,
    )
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "logger": "reconciler",
        "event": "step applied",
        "environment": "dev",
        "version": 3,
        "duration": 0.5,
        "at": "2026-01-02T00:00:00.000Z",
        "none": None,
    }


def test_text_on_request() -> None:
    stream = io.StringIO()
    configure(json=False, stream=stream).info(
        "step applied", environment="dev", note="two words", items=["a"], none=None
    )
    text = stream.getvalue()
    assert "\x1b" not in text
    assert text[24:] == ' info    step applied environment=dev note="two words" items=["a"]\n'


def test_a_problem_is_an_object_in_json() -> None:
    stream = io.StringIO()
    log = configure(stream=stream)
    log.error("stalled", problem=PROBLEM)
    log.error("stalled", problem=ProblemError(PROBLEM), others=[PROBLEM])
    first, second = lines(stream)
    assert first["problem"] == second["problem"] == second["others"][0]
    assert first["problem"]["reason"] == "StatementFailed"
    assert first["problem"]["line"] == 12
    assert first["problem"]["excerpt"] == PROBLEM.excerpt


def test_a_problem_has_lines_of_its_own_in_text() -> None:
    stream = io.StringIO()
    configure(json=False, stream=stream).error("stalled", environment="dev", problem=PROBLEM)
    assert stream.getvalue().splitlines()[1:] == [
        '    migrations/00003_x.sql:12:8: column "nam" does not exist [StatementFailed, SQLSTATE 42703, statement 2]',
        "      SELECT nam FROM customers",
        "             ^",
        "      HINT: Perhaps you meant customers.name.",
        "    remedy: correct the file and commit it",
    ]


def test_a_revision_is_short_in_text_and_whole_in_json() -> None:
    revision = f"main@sha1:{'0123456789' * 4}"
    text, json_lines = io.StringIO(), io.StringIO()
    configure(json=False, stream=text).info("revision", revision=revision)
    configure(json=True, stream=json_lines).info("revision", revision=revision)
    assert text.getvalue().rstrip().endswith(" revision=main@012345678901")
    assert lines(json_lines)[0]["revision"] == revision


CANARY = "hunter2/can@ry"
FORMS = [
    CANARY,
    quote(CANARY, safe=""),
    base64.b64encode(CANARY.encode()).decode(),
    base64.b64encode(b"u:" + CANARY.encode()).decode()[3:-3],
]


class _Odd:
    def __repr__(self) -> str:
        return f"<odd {CANARY}>"


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_no_secret_gets_through(as_json: bool, form: str) -> None:
    stream = io.StringIO()
    redactor = Redactor()
    redactor.add(CANARY)
    log = configure(2, json=as_json, stream=stream, redactor=redactor)
    log.info(
        f"in the text {form}",
        value=form,
        deep={"a": [{"b": (form, {form})}]},
        odd=_Odd(),
        secret=Secret(CANARY),
    )
    log.info("as a key", **{f"key {form}": 1})
    log.bind(bound=form).warning("bound")
    structlog.contextvars.bind_contextvars(context=form)
    log.info("in the context")
    log.error(
        "in a problem",
        problem=Problem(reason=Reason.INTERNAL_ERROR, message=form, remedy=form, excerpt=form, detail=form),
    )
    log.error("as an error", error=ValueError(form), raw=form.encode())
    library = logging.getLogger("psycopg.pool")
    library.warning("error connecting: %s", f"postgresql://u:{form}@h/d")
    library.debug("%(dsn)s", {"dsn": form})
    try:
        try:
            raise ValueError(form)
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        log.exception("ours")
        library.exception("theirs")
    warnings.warn(f"a warning {form}", stacklevel=1)
    text = stream.getvalue()
    assert text.count("Traceback") == 4
    for secret in (CANARY, form):
        assert secret not in text
    assert MASK in text


def test_keys_that_name_a_secret_are_masked() -> None:
    stream = io.StringIO()
    configure(stream=stream).info(
        "x", password="ab", db_password="ab", headers={"Authorization": "ab"}, token_checksum="ab"
    )
    (line,) = lines(stream)
    assert (line["password"], line["db_password"], line["headers"]) == (MASK, MASK, {"Authorization": MASK})
    assert line["token_checksum"] == "ab"


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (-1, ["own warning", "library warning"]),
        (0, ["own info", "own warning", "library warning"]),
        (1, ["own debug", "own info", "own warning", "library warning"]),
        (2, ["own debug", "own info", "own warning", "library debug", "library warning"]),
    ],
)
def test_verbosity(verbosity: int, shown: list[str]) -> None:
    stream = io.StringIO()
    log = configure(verbosity, stream=stream)
    log.debug("own debug")
    log.info("own info")
    log.warning("own warning")
    logging.getLogger("some.library").debug("library debug")
    logging.getLogger("some.library").warning("library warning")
    assert [line["event"] for line in lines(stream)] == shown


def test_each_message_is_counted() -> None:
    levels: list[str] = []
    log = configure(stream=io.StringIO(), on_message=levels.append)
    log.debug("not shown")
    log.info("x")
    log.error("x")
    logging.getLogger("library").critical("x")
    assert levels == ["info", "error", "critical"]


def test_configured_again_it_writes_once_and_only_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure(stream=second)
    get_logger("reconciler.daemon").info("x")
    assert first.getvalue() == ""
    assert [line["logger"] for line in lines(second)] == ["reconciler.daemon"]


def test_text_cannot_rewrite_the_terminal() -> None:
    stream = io.StringIO()
    log = configure(json=False, stream=stream)
    log.info("one\ntwo \x1b[2J\r\u202e", value="\x07 \x9b", key_ok="a\nb")
    log.info("x", **{"ke\x1by": "v"})
    assert stream.getvalue().splitlines()[1] == r"    two \x1b[2J"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", stream.getvalue())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("as_json", [True, False])
def test_every_encoding_of_the_stream_will_do(encoding: str, as_json: bool) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    configure(json=as_json, stream=stream).info("é 😀 \udcff")
    written = raw.getvalue().decode(encoding)
    if as_json:
        assert json.loads(written)["event"] == "é 😀 \udcff"
    else:
        assert "info" in written
    stream.detach()


def test_what_json_does_not_know_is_written_all_the_same() -> None:
    stream = io.StringIO()
    log = configure(stream=stream)
    cycle: list[Any] = []
    cycle.append(cycle)
    log.info(
        "x",
        nan=float("nan"),
        raw=b"\xff",
        set={1},
        cycle=cycle,
        keys={1: 2, None: 3},
        path=os,
        reason=Reason.PENDING,
    )
    (line,) = lines(stream)
    assert line["nan"] == "nan"
    assert line["raw"] == "b'\\xff'"
    assert line["set"] == [1]
    assert line["keys"] == {"1": 2, "None": 3}
    assert line["reason"] == "Pending"


def test_huge_texts_are_cut() -> None:
    stream = io.StringIO()
    redactor = Redactor()
    redactor.add("hunter2-and-more")
    log = configure(stream=stream, redactor=redactor)
    log.info("x" * 100_000)
    log.info("hunter2-and-more" * 100_000)
    assert len(stream.getvalue()) < 70_000
    assert lines(stream)[0]["event"].endswith("… (cut, of 100000 characters)")


class _Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


class _Unprintable:
    def __repr__(self) -> str:
        raise KeyError(CANARY)


def test_a_reader_that_went_away_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    configure(stream=_Broken()).info("x")
    assert capsys.readouterr().err == ""


def test_a_message_that_cannot_be_rendered_is_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()  # pytest's own would render it too
    configure(stream=io.StringIO()).info(CANARY, value=_Unprintable())
    assert capsys.readouterr().err == "a log message of reconciler could not be written: KeyError\n"


_PROGRAM = """
from reconciler.logs import configure
from reconciler.model import Place, Problem, Reason
log = configure()
problem = Problem(reason=Reason.STATEMENT_FAILED, message="wrong", place=Place("a.sql", 2, 3), excerpt="SELEC 1\\n^")
log.error("stalled", environment="dev", problem=problem)
"""


def _on_a_terminal(**environ: str) -> str:
    """What the program above writes when standard error is a pseudo-terminal."""
    ours, theirs = pty.openpty()
    try:
        environment = {
            key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")
        } | environ
        process = subprocess.Popen([sys.executable, "-c", _PROGRAM], stderr=theirs, env=environment)
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how a pseudo-terminal says that its other end is closed
                break
            if not chunk:
                break
            written += chunk
        assert process.wait(30) == 0
        return written.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def test_a_terminal_gets_text_with_colours() -> None:
    text = _on_a_terminal(TERM="xterm-256color")
    assert "\x1b[31merror" in text
    plain = re.sub("\x1b\\[[0-9;]*m", "", text)
    assert plain.splitlines()[1:] == ["    a.sql:2:3: wrong [StatementFailed]", "      SELEC 1", "      ^"]


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours(environ: dict[str, str]) -> None:
    text = _on_a_terminal(**environ)
    assert "\x1b" not in text
    assert " error   stalled environment=dev\n" in text


def test_structlog_is_imported_only_when_it_is_used() -> None:
    program = "import sys, reconciler.logs; sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
