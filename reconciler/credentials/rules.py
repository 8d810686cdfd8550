"""Which references a manifest may use: what the operator allowed each environment, and nothing else."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from reconciler.errors import UsageError
from reconciler.manifest import (
    CommandReference,
    EnvironmentReference,
    FileReference,
    GcpSecretReference,
    Literal,
)
from reconciler.manifest.connection import is_connection_string, named_files
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.value import value

_KINDS = ("env", "file", "gcp_secret", "command")
_SYSTEM = "system"
"""Whom the operating system trusts, as a certificate authority."""
_ATOMIC = re.compile(r"(?:(?<=/)|^)\.\.[^/]+/")
"""The folders that Kubernetes keeps the versions of a mounted secret in, behind the links that people name."""


@value
class Allowance:
    """`ENVIRONMENT=PATTERN`: what the manifest of one environment may refer to.

    Args:
        environment: its name.
        pattern: the text of a reference, `env:ORDERS_DSN` say. `*` stands for any characters but `/` (and, in a command,
            blanks), `**` for any at all, `?` for one that `*` stands for.
    """

    environment: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """From the command line.

        Raises:
            UsageError: it is none.
        """
        environment, equals, pattern = text.partition("=")
        kind, colon, rest = pattern.partition(":")
        if not (environment.strip() and equals and colon and rest and kind in _KINDS):
            # what is shown is a pattern of where a secret is; still, it may be one in the wrong place
            raise UsageError(
                "--allow-secret takes ENVIRONMENT=KIND:PATTERN",
                remedy=f"write production=file:/etc/secrets/production/* say; the kinds are {', '.join(_KINDS)}",
            )
        if kind == "file" and (not rest.startswith("/") or ".." in rest.split("/")):
            raise UsageError(
                f"--allow-secret {text}: the pattern of a file is no absolute path without `..`",
                remedy=f"write {environment}=file:/ and the path from there",
            )
        return cls(environment, pattern)

    def covers(self, text: str) -> bool:
        """True when the pattern stands for the whole of `text`."""
        return bool(_expression(self.pattern).fullmatch(text))

    def covers_place(self, place: Path) -> bool:
        """True when the pattern stands for the file at `place`, which is behind all links: also when links lead to the folder
        that the pattern begins with, or to a version that Kubernetes keeps below it.
        """
        kind, _, path = self.pattern.partition(":")
        if kind != "file":
            return False
        folder = re.split(r"[*?]", path)[0].rpartition("/")[0]
        rest = path[len(folder) :].lstrip("/")
        real = os.path.realpath(folder or "/").rstrip("/") + "/"
        if not str(place).startswith(real):
            return False
        below = str(place)[len(real) :]
        expression = _expression(f"file:{rest}")
        return any(expression.fullmatch(f"file:{each}") for each in (below, _ATOMIC.sub("", below)))


@value(kw_only=True)
class SecretRules:
    """What the operator allows manifests.

    Args:
        allowances: what each environment may refer to; None when that is not limited. Once it is, an environment that none of
            them names may refer to nothing.
        commands: run the programs that `{command: ...}` names: whoever set this trusts who can commit.
    """

    allowances: tuple[Allowance, ...] | None = None
    commands: bool = False

    def check(self, reference: object, environment: str, root: Path | None) -> None:
        """Refuse what the manifest of an environment may not refer to.

        Args:
            reference: of the manifest.
            environment: its name; empty when the operator gave the reference.
            root: what relative paths are relative to; None without a local repository.

        Raises:
            ProblemError: `SecretNotAllowed`.
        """
        if not environment:
            return
        if isinstance(reference, CommandReference) and not self.commands:
            raise _refused(
                f"the manifest of {environment} has a program run for a secret, {reference}, and commands are not allowed",
                "start with --allow-secret-commands if whoever can commit there may run commands here, or name the secret in "
                "another way",
            )
        if self.allowances is None:
            return
        if isinstance(reference, Literal):
            self._check_literal(reference, environment, root)
            return
        text = _text(reference, root)
        if text is not None and not any(each.covers(text) for each in self._of(environment)):
            raise self._not_allowed(environment, str(reference), text)

    def check_file(self, place: Path, reference: FileReference, environment: str) -> None:
        """Refuse a file that a link leads to, out of what is allowed.

        Args:
            place: where the file is, behind all links.
            reference: that led there.
            environment: whose manifest names it; empty when the operator gave the reference.

        Raises:
            ProblemError: `SecretNotAllowed`.
        """
        if not environment or self.allowances is None:
            return
        if not any(each.covers_place(place) for each in self._of(environment)):
            raise self._not_allowed(environment, f"{reference}, a link to {place},", f"file:{place}")

    def _of(self, environment: str) -> tuple[Allowance, ...]:
        return tuple(each for each in self.allowances or () if each.environment == environment)

    def _check_literal(self, literal: Literal, environment: str, root: Path | None) -> None:
        """A connection string has no password, but may name files that have; a path leads to a key, perhaps."""
        text = literal.value.strip()
        if is_connection_string(text):
            named = [(f"{key}={what} in a connection string", key, what) for key, what in named_files(text)]
        elif "-----BEGIN" in text or text == _SYSTEM:
            return
        else:
            named = [(f"the file {text}", "", text)]
        for what, key, name in named:
            if key == "service":
                raise _refused(
                    f"the manifest of {environment} refers to {what}, while --allow-secret says which secrets it may have",
                    "write what that service stands for; the password belongs into a secret that the environment may have",
                )
            path = name if root is None else os.path.join(root, name)
            allowed = ".." not in path.split("/") and any(
                each.covers(f"file:{path}") and each.covers_place(Path(os.path.realpath(path)))
                for each in self._of(environment)
            )
            if not allowed:
                raise self._not_allowed(environment, what, f"file:{path}")

    def _not_allowed(self, environment: str, what: str, text: str) -> ProblemError:
        if not self._of(environment):
            return _refused(
                f"the manifest of {environment} refers to {what}, and no --allow-secret names that environment",
                f"start with --allow-secret '{environment}={text}' if it may have that secret",
            )
        return _refused(
            f"the manifest of {environment} refers to {what}, which no --allow-secret allows {environment}",
            f"correct the manifest, or start with --allow-secret '{environment}={text}' if it may have that secret",
        )


def _text(reference: object, root: Path | None) -> str | None:
    """How a reference is written in one word; None for what holds no secret."""
    match reference:
        case EnvironmentReference():
            return f"env:{reference.name}"
        case GcpSecretReference():
            return f"gcp_secret:{reference.name}"
        case CommandReference():
            import shlex

            return f"command:{shlex.join(reference.command)}"
        case FileReference():
            path = reference.path if root is None else os.path.join(root, reference.path)
            if ".." in path.split("/"):
                # where it leads depends on links: nothing that a pattern could be held against
                raise _refused(
                    f"{reference} has `..` in its path, while --allow-secret says which files may be read",
                    "write the path without `..`",
                )
            return f"file:{os.path.normpath(path)}"
    return None


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    any_character = r"[^/\s]" if pattern.startswith("command:") else "[^/]"
    wildcards = {"**": ".*", "*": f"{any_character}*", "?": any_character}
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(wildcards.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _refused(message: str, remedy: str) -> ProblemError:
    return ProblemError(Problem(reason=Reason.SECRET_NOT_ALLOWED, message=message, remedy=remedy))
