"""Canary secrets: planted wherever tests give a daemon or a command a secret, and searched in everything that comes out.

`planted` puts a password into a connection string; servers that trust everybody ignore it. `WATCH.see` is told each text that
left a process or reached a database: log lines, output, answers over HTTP, rows of our tables, process titles, what pytest
captured. When the tests of a worker are over, the fixture `canaries` fails if a canary was in any of it, in any form.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_HEAD, _TAIL, _TOKEN = "kanari1Head", "kanari1Tail", "kanari2Token"
"""Parts of every canary: letters and digits, which no escaping changes, and long enough to be nothing else."""
_NUMBERS = itertools.count(1)
_FOLDER_PREFIX = "reconciler-canaries-"


def password() -> str:
    """A new password with whatever must be encoded somewhere: in URLs, key=value strings, JSON and shells."""
    # another each time: a redactor that was told of one must not hide that nobody told it of the next
    return f"{_HEAD}{next(_NUMBERS)}/p:w@rd %41+ü'\"\\&?#{_TAIL}"


def token() -> str:
    """A new token."""
    return f"{_TOKEN}-{next(_NUMBERS)}-{_TAIL}"


@cache
def planted(dsn: str) -> str:
    """`dsn` with a canary for a password; unchanged when it has one, or is none that libpq can read."""
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.Error:
        return dsn
    if not parameters or "password" in parameters or "passfile" in parameters or "=" not in dsn + "://=":
        return dsn
    if "://" not in dsn:
        return make_conninfo(dsn, password=password())
    scheme, _, rest = dsn.partition("://")
    user, at, where = rest.partition("@")
    if at and user:
        return f"{scheme}://{user}:{quote(password(), safe='')}@{where}"
    return f"{dsn}{'&' if '?' in dsn else '?'}password={quote(password(), safe='')}"


@cache
def planted_file(dsn: str) -> Path:
    """A file that holds `dsn`, planted: the same one for the same connection string."""
    path = _folder() / hashlib.sha256(dsn.encode()).hexdigest()[:16]
    path.write_text(planted(dsn), encoding="utf-8")
    # some tests run as an ordinary user
    path.chmod(0o644)
    return path


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    folder.chmod(0o755)
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


def _forms(marker: str) -> Iterator[str]:
    """How a marker looks raw, with each byte percent-encoded, as hexadecimal digits, and in base64 at any alignment."""
    raw = marker.encode()
    yield marker
    for digits in (raw.hex(), raw.hex().upper()):
        yield digits
        yield "".join(f"%{digits[at : at + 2]}" for at in range(0, len(digits), 2))
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        # the characters at both ends hold bits of the neighbours
        yield encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6].decode()


_SEARCHED = tuple(form for marker in (_HEAD, _TAIL, _TOKEN) for form in _forms(marker))


class Watch:
    """Looks through texts for canaries, and remembers where there was one."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        """Where a canary was: kind, test, and what stands around it."""
        self.seen: Counter[str] = Counter()
        """How many texts of each kind were looked through."""

    def see(self, kind: str, text: str) -> None:
        """Look through a text.

        Args:
            kind: what it is: `log`, `output`, `http`, `rows`, `title`, `captured`.
            text: that left a process, or is in a database.
        """
        self.seen[kind] += 1
        for form in _SEARCHED:
            at = text.find(form)
            if at >= 0:
                test = os.environ.get("PYTEST_CURRENT_TEST", "between tests")
                self.leaks.append(f"{kind}, {test}: {text[max(0, at - 60) : at + 60]!r}")
                return

    def see_titles(self, pid: int) -> None:
        """Look through the command lines of a process and everything below it: all users of a machine can read them."""
        for each in _with_descendants(pid):
            try:
                title = Path(f"/proc/{each}/cmdline").read_bytes()
            except OSError:
                continue  # ended meanwhile, or a system without /proc
            self.see("title", title.replace(b"\0", b" ").decode(errors="replace"))

    def see_tables(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Look through every row of our tables in a database."""
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c "
            r"WHERE c.relkind IN ('r', 'p') AND c.relname LIKE 'schema\_migrations%' AND c.relpersistence <> 't'"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f"SELECT t::text FROM {table} t".encode()).fetchall()
            for (row,) in rows:
                self.see("rows", str(row))


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _with_descendants(int(child))


WATCH = Watch()
"""The one of this process."""


@pytest.fixture(scope="session", autouse=True)
def canaries() -> Iterator[Watch]:
    """Fails the last test of a worker when a canary got out in any of them."""
    yield WATCH
    leaks = "\n".join(WATCH.leaks[:50])
    assert not WATCH.leaks, f"{len(WATCH.leaks)} texts have a canary secret in them:\n{leaks}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Look through what a test left in its captured output and log."""
    report = yield
    for _, text in getattr(report, "sections", ()):
        WATCH.see("captured", text)
    return report
