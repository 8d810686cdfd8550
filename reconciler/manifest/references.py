"""`dsn:` and `ca:`: where a secret is, or a harmless value itself."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.manifest import document
from reconciler.manifest.connection import is_connection_string, passwords
from reconciler.manifest.document import Node, Scalar
from reconciler.manifest.kinds import Schema, Text, refuse, require_scalar
from reconciler.manifest.values import Embedded, EnvironmentReference, FileReference, Literal, Reference

VARIABLE = Text(
    "the name of an environment variable (letters, digits and _)", "[A-Za-z_][A-Za-z0-9_]*", longest=255
)
FILE = Text("the path of a file", r"[^\0\n]+", longest=4096)

_LATER = {
    "gcp_secret": "this version cannot read Google Secret Manager yet",
    "command": "this version cannot run a command for a secret yet",
}
_SOURCES = "{env: NAME} or {file: PATH}"


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
            return f"{_SOURCES}, embedded, or a connection string without a password"
        return f"{_SOURCES}, PEM text, or the path of a PEM file"

    def read(self, node: Node, key: str) -> Reference:
        if isinstance(node, document.Mapping):
            return self._from_mapping(node, key)
        text = require_scalar(node, key, self.expected).text
        return self._connection(node, key, text) if self.connection else self._certificate(node, key, text)

    def _from_mapping(self, node: document.Mapping, key: str) -> Reference:
        for name, (name_node, _) in node.entries.items():
            if name in _LATER:
                refuse(
                    name_node, f"{key}.{name}: {_LATER[name]}; expected {self.expected}", f"use {_SOURCES}"
                )
        if len(node.entries) != 1 or not node.entries.keys() <= {"env", "file"}:
            names = ", ".join(document.shown(name) for name in list(node.entries)[:5]) or "no keys"
            refuse(node, f"{key} is a mapping with {names}; expected {self.expected}")
        ((name, (_, value)),) = node.entries.items()
        kind = VARIABLE if name == "env" else FILE
        # a message must not repeat what stands here, and Text's does
        if not isinstance(value, Scalar) or value.is_null:
            refuse(value, f"{key}.{name} has no text; expected {kind.expected}")
        try:
            text = kind.read(value, f"{key}.{name}")
        except document.Refused:
            refuse(value, f"{key}.{name} holds something else (it is not shown); expected {kind.expected}")
        return EnvironmentReference(text) if name == "env" else FileReference(text)

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
                "description": description,
                "properties": {name: kind.schema()},
                "required": [name],
                "additionalProperties": False,
            }
            for name, kind, description in (
                ("env", VARIABLE, "An environment variable of the daemon."),
                ("file", FILE, "A file of the daemon's machine, read again at each connection."),
            )
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
