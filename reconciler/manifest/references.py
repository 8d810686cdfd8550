"""`dsn:` and `ca:`: where a secret is, or a harmless value itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.manifest import document
from reconciler.manifest.commands import Command
from reconciler.manifest.connection import is_connection_string, passwords
from reconciler.manifest.document import Node
from reconciler.manifest.kinds import Kind, Schema, Text, refuse, require_scalar
from reconciler.manifest.values import (
    CommandReference,
    Embedded,
    EnvironmentReference,
    FileReference,
    GcpSecretReference,
    Literal,
    Reference,
    SecretReference,
)

VARIABLE = Text(
    "the name of an environment variable (letters, digits and _)", "[A-Za-z_][A-Za-z0-9_]*", longest=255
)
FILE = Text("the path of a file", r"[^\0\n]+", longest=4096)
GCP_SECRET = Text(
    "a full name, projects/PROJECT/secrets/SECRET/versions/VERSION, with a number, an alias or `latest` as VERSION",
    # a project by id, by number, or with its domain in front; the place of a regional secret behind it
    r"projects/(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*(?:/locations/[a-z0-9-]+)?/secrets/[A-Za-z0-9_-]+/versions/[A-Za-z0-9_-]+",
    longest=1024,
)
_SOURCES = "{env: NAME}, {file: PATH}, {gcp_secret: NAME} or {command: [PROGRAM, ...]}"


class _Source(NamedTuple):
    """A place where secrets are kept: how its references are written."""

    kind: Kind[Any]
    make: Callable[[Any], SecretReference]
    description: str


_BY_NAME = {
    "env": _Source(VARIABLE, EnvironmentReference, "An environment variable of the daemon."),
    "file": _Source(FILE, FileReference, "A file of the daemon's machine, read again at each connection."),
    "gcp_secret": _Source(
        GCP_SECRET, GcpSecretReference, "A version of a secret in Google Secret Manager, by its full name."
    ),
    "command": _Source(
        Command(),
        CommandReference,
        "A program that writes the secret to its standard output; only where the daemon allows it.",
    ),
}


def secret_reference(text: str) -> SecretReference | None:
    """The reference written in one word, as on a command line: `env:NAME`, `file:PATH`, `gcp_secret:NAME` or
    `command:PROGRAM ARGUMENT ...`, with quotes as in a shell; None when `text` is none of them.
    """
    kind, colon, rest = text.partition(":")
    source = _BY_NAME.get(kind)
    if source is None or not colon or not rest.strip() or rest.startswith("//"):
        return None
    if kind == "command":
        import shlex

        try:
            return CommandReference(tuple(shlex.split(rest)))
        except ValueError:
            return None
    if kind == "gcp_secret" and not GCP_SECRET.matches(rest):
        return None
    return source.make(rest)


@dataclass(frozen=True)
class ReferenceKind:
    """A reference to a secret, or a literal.

    Values are never repeated in messages: a person who got the form wrong may have written the secret itself.

    Args:
        connection: True for a connection string, False for a certificate.
    """

    connection: bool

    @property
    def expected(self) -> str:
        if self.connection:
            return f"{_SOURCES}, or embedded, or a connection string without a password"
        return f"{_SOURCES}, or PEM text, or the path of a PEM file"

    def read(self, node: Node, key: str) -> Reference:
        if isinstance(node, document.Mapping):
            return self._from_mapping(node, key)
        text = require_scalar(node, key, self.expected).text
        return self._connection(node, key, text) if self.connection else self._certificate(node, key, text)

    def _from_mapping(self, node: document.Mapping, key: str) -> Reference:
        if len(node.entries) != 1 or not node.entries.keys() <= _BY_NAME.keys():
            names = ", ".join(document.shown(name) for name in list(node.entries)[:5]) or "no keys"
            refuse(node, f"{key} is a mapping with {names}; expected {self.expected}")
        ((name, (_, value)),) = node.entries.items()
        source = _BY_NAME[name]
        try:
            read = source.kind.read(value, f"{key}.{name}")
        except document.Refused:
            # the message of the kind repeats what stands here
            what = (
                "has no text" if _is_no_text(value, source.kind) else "holds something else (it is not shown)"
            )
            refuse(value, f"{key}.{name} {what}; expected {source.kind.expected}")
        return source.make(read)

    def _connection(self, node: Node, key: str, text: str) -> Reference:
        if text == "embedded":
            return Embedded()
        if passwords(text):
            refuse(
                node,
                f"{key} holds a password, which git would keep for ever",
                f"change that password, and keep the connection string out of git: {_SOURCES}",
            )
        if "\0" in text or not is_connection_string(text):
            remedy = "write {env: NAME} if it is the name of a variable, {file: PATH} if it is a path"
            refuse(node, f"{key} is a text, but no connection string; expected {self.expected}", remedy)
        return Literal(text)

    def _certificate(self, node: Node, key: str, text: str) -> Reference:
        if "PRIVATE KEY" in text:
            refuse(
                node,
                f"{key} holds a private key; expected {self.expected}",
                "replace that key, git keeps it for ever",
            )
        if (
            not text.strip()
            or "\0" in text
            or ("\n" in text.strip() and "-----BEGIN CERTIFICATE-----" not in text)
        ):
            refuse(node, f"{key} is no certificate; expected {self.expected}")
        return Literal(text)

    def schema(self) -> Schema:
        sources: list[Schema] = [
            {
                "type": "object",
                "description": source.description,
                "properties": {name: source.kind.schema()},
                "required": [name],
                "additionalProperties": False,
            }
            for name, source in _BY_NAME.items()
        ]
        if not self.connection:
            literal: Schema = {
                "type": "string",
                "minLength": 1,
                "description": "PEM text, or the path of a PEM file.",
            }
            return {"anyOf": [*sources, literal]}
        literal = {
            "type": "string",
            "description": "A libpq URI or key=value string without a password.",
            "pattern": "^(?:postgres(?:ql)?://|(?!.*://)\\s*[^\\s=']+\\s*=)",
            "not": {"pattern": "://[^/?]*:[^/?]*@|[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]\\s*="},
        }
        embedded = {
            "const": "embedded",
            "description": "The PostgreSQL that the daemon runs itself, for development.",
        }
        return {"anyOf": [*sources, embedded, literal]}


def _is_no_text(node: Node, kind: Kind[Any]) -> bool:
    if isinstance(node, document.Scalar):
        return node.is_null
    return isinstance(kind, Text)
