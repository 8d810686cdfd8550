"""From references to secrets. Every secret is told to the redactor before anybody else gets to see it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from reconciler.errors import UsageError
from reconciler.manifest import (
    DatabaseTarget,
    Embedded,
    Engine,
    EnvironmentReference,
    FileReference,
    Literal,
    Reference,
    Timeouts,
)
from reconciler.manifest.connection import is_connection_string, passwords
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.duration import parse_duration
from reconciler.model.value import value
from reconciler.redaction import Redactor, Secret, redact

LARGEST = 64 * 1024
"""Bytes of a secret's file that are still read."""

_CERTIFICATE_ENDINGS = (".pem", ".crt", ".cer")


class Credentials:
    """Resolves references; the `reconciler.model.Secrets` of the program.

    Args:
        environ: the environment variables.
        root: what relative paths in `{file: PATH}` are relative to: the folder of a local repository. None when the
            repository is remote; relative paths are refused then.
        redactor: is told every secret.
    """

    def __init__(self, environ: Mapping[str, str], root: Path | None, redactor: Redactor = redact) -> None:
        self._environ = environ
        self._root = root
        self._redactor = redactor

    async def resolve(self, reference: object) -> Secret:
        """Return the secret that `reference` points at. Files are read again on each call, so that they can be rotated.

        Raises:
            ProblemError: `SecretUnavailable`, naming the reference and never the value.
            TypeError: `reference` is none that has a secret, such as `Embedded`.
        """
        match reference:
            case Literal():
                return Secret(reference.value)  # git has it: no secret
            case EnvironmentReference():
                value = self._from_environment(reference)
            case FileReference():
                # a network file system may hang; that must not hold up the other databases
                value = await asyncio.to_thread(self._from_file, reference)
            case _:
                raise TypeError(f"{reference!r} holds no secret")
        self._tell(value)
        return Secret(value)

    def _from_environment(self, reference: EnvironmentReference) -> str:
        remedy = f"set {reference.name} where the reconciler is started, and start it again"
        value = self._environ.get(reference.name)
        if value is None:
            raise _unavailable(f"the environment variable of {reference} is not set", remedy)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _unavailable(f"the environment variable of {reference} is not UTF-8", remedy)
        return _stripped(value, f"the environment variable of {reference}", remedy)

    def _from_file(self, reference: FileReference) -> str:
        path = Path(reference.path)
        if not path.is_absolute():
            if self._root is None:
                raise _unavailable(
                    f"the file of {reference} has a relative path, and there is no local repository it could be relative to",
                    "write an absolute path",
                )
            path = self._root / path
        name = f"the file {path} of {reference}"
        try:
            content = _read(path)
        except FileNotFoundError:
            raise _unavailable(f"{name} does not exist", "create it, or correct the path") from None
        except PermissionError:
            raise _unavailable(
                f"{name} may not be read", "give the reconciler's user the right to read it"
            ) from None
        except OSError as error:
            raise _unavailable(
                f"{name} cannot be read: {error.strerror or error}", "put a plain file there"
            ) from None
        if content is None:
            raise _unavailable(f"{name} is no plain file", "put a plain file there")
        if len(content) > LARGEST:
            raise _unavailable(f"{name} is larger than {LARGEST:,} bytes", "put only the secret into it")
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            # the error holds the whole content: it must not become a cause of ours
            offset = error.start
        else:
            return _stripped(text, name, "put the secret into it")
        raise _unavailable(f"{name} is not UTF-8 from byte {offset} on", "save it as UTF-8")

    def _tell(self, value: str) -> None:
        for password in passwords(value):
            self._redactor.add(password)
        # a certificate is public, and its path in an error message helps
        if "-----BEGIN CERTIFICATE-----" in value and "PRIVATE KEY" not in value:
            return
        if not (value.startswith("/") and value.endswith(_CERTIFICATE_ENDINGS)):
            self._redactor.add(value)


def _read(path: Path) -> bytes | None:
    """The content of `path`, one byte more than `LARGEST` at most; None when it is no regular file."""
    # O_NONBLOCK: opening a pipe that nobody writes to must not hang
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(LARGEST + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _stripped(value: str, name: str, remedy: str) -> str:
    value = value.rstrip("\r\n")  # what editors and `echo` add
    if not value.strip():
        raise _unavailable(f"{name} is empty", remedy)
    if "\0" in value:
        raise _unavailable(f"{name} holds a NUL byte", remedy)
    return value


def _unavailable(message: str, remedy: str) -> ProblemError:
    return ProblemError(Problem(reason=Reason.SECRET_UNAVAILABLE, message=message, remedy=remedy))


_ENGINES = {
    "auto": Engine.AUTO,
    "postgres": Engine.POSTGRESQL,
    "postgresql": Engine.POSTGRESQL,
    "cockroach": Engine.COCKROACHDB,
    "cockroachdb": Engine.COCKROACHDB,
}


@value(kw_only=True)
class EnvironmentTarget:
    """The database of a one-off command that has no manifest.

    Args:
        database: from `DSN`, `CA` and `DB_DRIVER`; its references point at these variables.
        timeouts: the defaults, with `DB_TIMEOUT` as the time to connect.
        max_connections: from `DB_MAX_CONNS`; None when it does not say.
    """

    database: DatabaseTarget
    timeouts: Timeouts
    max_connections: int | None


def dsn_from_environment(environ: Mapping[str, str], name: str = "default") -> EnvironmentTarget | None:
    """The database that `DSN`, `CA`, `DB_DRIVER`, `DB_MAX_CONNS` and `DB_TIMEOUT` describe; None without `DSN`.

    An empty variable counts as one that is not set.

    Args:
        environ: the environment variables.
        name: what to call the database.

    Raises:
        UsageError: a variable has a value that makes no sense.
    """
    dsn = environ.get("DSN", "").strip()
    if not dsn:
        return None
    reference: Reference = Embedded() if dsn == "embedded" else EnvironmentReference("DSN")
    if reference != Embedded() and not is_connection_string(dsn):
        # not shown: it may be a password in the wrong place
        raise UsageError(
            "DSN is no connection string", remedy="write postgresql://user@host/database or key=value pairs"
        )
    database = DatabaseTarget(
        name=name,
        dsn=reference,
        ca=EnvironmentReference("CA") if environ.get("CA", "").strip() else None,
        engine=_engine(environ.get("DB_DRIVER", "").strip()),
    )
    timeouts = _timeouts(environ.get("DB_TIMEOUT", "").strip())
    return EnvironmentTarget(database=database, timeouts=timeouts, max_connections=max_connections(environ))


def _engine(text: str) -> Engine:
    if text and text.casefold() not in _ENGINES:
        raise UsageError(f"DB_DRIVER is {text[:60]!r}; expected one of {', '.join(_ENGINES)}")
    return _ENGINES[text.casefold() or "auto"]


def _timeouts(text: str) -> Timeouts:
    try:
        return Timeouts(connect=parse_duration(text)) if text else Timeouts()
    except ValueError as error:
        clause, _, remedy = str(error).partition(": ")
        raise UsageError(f"DB_TIMEOUT is {text[:60]!r}, which {clause}", remedy=remedy) from None


def max_connections(environ: Mapping[str, str]) -> int | None:
    """How many connections each database may get at once: `DB_MAX_CONNS`; None when it does not say.

    Raises:
        UsageError: it is no number of at least 1.
    """
    text = environ.get("DB_MAX_CONNS", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise UsageError(f"DB_MAX_CONNS is {text[:60]!r}; expected a whole number of at least 1")
    return int(text)
