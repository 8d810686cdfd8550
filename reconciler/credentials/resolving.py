"""Resolving references, each by the way of its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from reconciler.credentials.content import UnreachableError, decoded, stripped, unavailable
from reconciler.credentials.files import read_secret_file
from reconciler.credentials.rules import SecretRules
from reconciler.manifest import (
    CommandReference,
    EnvironmentReference,
    FileReference,
    GcpSecretReference,
    Literal,
)
from reconciler.manifest.connection import passwords
from reconciler.model import Problem, ProblemError
from reconciler.redaction import Redactor, Secret, redact

if TYPE_CHECKING:
    from reconciler.credentials.last_good import LastGood
    from reconciler.credentials.secret_manager import SecretManager

_CERTIFICATE_ENDINGS = (".pem", ".crt", ".cer")


class Credentials:
    """Resolves references; the `reconciler.model.Secrets` of the program.

    Args:
        environ: the environment variables.
        root: what relative paths in `{file: PATH}` are relative to: the folder of a local repository. None when the
            repository is remote; relative paths are refused then.
        redactor: is told every secret.
        rules: which references a manifest may use.
        secret_manager: asks Google Secret Manager; None for one made when the first secret is asked for.
        clock: seconds, for the pauses between two attempts to reach a secret manager.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        root: Path | None,
        redactor: Redactor = redact,
        *,
        rules: SecretRules | None = None,
        secret_manager: SecretManager | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._environ = environ
        self._root = root
        self._redactor = redactor
        self._rules = rules if rules is not None else SecretRules()
        self._clock = clock
        self._last_good: LastGood | None = None
        self._secret_manager = secret_manager

    async def resolve(self, reference: object, environment: str) -> Secret:
        """Return the secret that `reference` points at, as it is now: a secret that was rotated is seen at once. Only while a
        secret manager cannot be reached, the last good value serves on; see `stale`.

        Args:
            reference: of `reconciler.manifest`.
            environment: whose manifest names it; empty for a reference that the operator gave, who may use any.

        Raises:
            ProblemError: `SecretUnavailable` or `SecretNotAllowed`, naming the reference and never the value.
            TypeError: `reference` is none that has a secret, such as `Embedded`.
        """
        self._rules.check(reference, environment, self._root)
        match reference:
            case Literal():
                return Secret(reference.value)  # git has it: no secret
            case EnvironmentReference():
                value = self._from_environment(reference)
            case FileReference():
                # a network file system may hang; that must not hold up the other databases
                value = await asyncio.to_thread(self._from_file, reference, environment)
            case GcpSecretReference() | CommandReference():
                value = await self._from_keeper(reference)
            case _:
                raise TypeError(f"{reference!r} holds no secret")
        self._tell(value)
        return Secret(value)

    async def stale(self, reference: object) -> Problem | None:
        """Why the last good value of `reference` is in use, None when a fresh one is. Asks again, if that is due."""
        last_good = self._last_good
        if (
            last_good is None
            or last_good.trouble(reference) is None
            or not isinstance(reference, GcpSecretReference | CommandReference)
        ):
            return None
        try:
            self._tell(await self._from_keeper(reference))
        except ProblemError as error:
            return error.problem
        return last_good.trouble(reference)

    async def close(self) -> None:
        """Close connections to secret managers. The next use opens new ones."""
        if self._secret_manager is not None:
            await self._secret_manager.close()

    def _from_environment(self, reference: EnvironmentReference) -> str:
        remedy = f"set {reference.name} where the reconciler is started, and start it again"
        value = self._environ.get(reference.name)
        if value is None:
            raise unavailable(f"the environment variable of {reference} is not set", remedy)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise unavailable(f"the environment variable of {reference} is not UTF-8", remedy)
        return stripped(value, f"the environment variable of {reference}", remedy)

    def _from_file(self, reference: FileReference, environment: str) -> str:
        path = Path(reference.path)
        if not path.is_absolute():
            if self._root is None:
                raise unavailable(
                    f"the file of {reference} has a relative path, and there is no local repository it could be relative to",
                    "write an absolute path",
                )
            path = self._root / path
        read = read_secret_file(path, f"the file {path} of {reference}")
        self._rules.check_file(read.place, reference, environment)
        return read.text

    async def _from_keeper(self, reference: GcpSecretReference | CommandReference) -> str:
        """The secret of who may be out of reach; the last good value then."""
        if self._last_good is None:
            from reconciler.credentials.last_good import LastGood

            self._last_good = LastGood(self._clock)
        last_good = self._last_good
        known = last_good.while_waiting(reference)
        if known is not None:
            return known
        try:
            value = await self._ask(reference)
        except UnreachableError as error:
            return last_good.instead(reference, error)
        except ProblemError:
            # it was denied, or is gone: what it once was is not to be used any more
            last_good.forget(reference)
            raise
        last_good.keep(reference, value)
        return value

    async def _ask(self, reference: GcpSecretReference | CommandReference) -> str:
        if isinstance(reference, CommandReference):
            from reconciler.credentials.command import secret_of_command

            return await secret_of_command(reference, self._environ, self._redactor)
        if self._secret_manager is None:
            from reconciler.credentials.secret_manager import SecretManager

            self._secret_manager = SecretManager(self._environ)
        content = await self._secret_manager.access(reference)
        return decoded(content, f"the secret of {reference}", "add a version that holds the secret")

    def _tell(self, value: str) -> None:
        for password in passwords(value):
            self._redactor.add(password)
        # a certificate is public, and its path in an error message helps
        if "-----BEGIN CERTIFICATE-----" in value and "PRIVATE KEY" not in value:
            return
        if not (value.startswith("/") and value.endswith(_CERTIFICATE_ENDINGS)):
            self._redactor.add(value)
