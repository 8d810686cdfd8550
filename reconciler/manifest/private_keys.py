"""`client_key:`, which git must never hold."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.manifest import document
from reconciler.manifest.document import Node
from reconciler.manifest.kinds import Schema, refuse, require_scalar
from reconciler.manifest.references import ReferenceKind
from reconciler.manifest.values import Literal, Reference

_BY_REFERENCE = ReferenceKind(connection=False)
_EXPECTED = "{file: PATH} or another reference to where the key is kept, or the path of a PEM file"


@dataclass(frozen=True)
class PrivateKeyKind:
    """A reference to a private key, or the path of its file. What a person wrote is never repeated in messages."""

    expected: str = _EXPECTED

    def read(self, node: Node, key: str) -> Reference:
        if isinstance(node, document.Mapping):
            return _BY_REFERENCE.read(node, key)
        text = require_scalar(node, key, self.expected).text
        if "PRIVATE KEY" in text:
            refuse(
                node,
                f"{key} holds a private key; expected {self.expected}",
                "replace that key, git keeps it for ever",
            )
        if not text.strip() or "\0" in text or "\n" in text.strip():
            refuse(node, f"{key} is no path; expected {self.expected}")
        return Literal(text)

    def schema(self) -> Schema:
        *references, _ = _BY_REFERENCE.schema()["anyOf"]
        path: Schema = {"type": "string", "minLength": 1, "description": "The path of a PEM file."}
        return {"anyOf": [*references, path]}
