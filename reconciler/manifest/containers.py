"""The kinds that hold other kinds: lists, mappings, records.

Each gathers the findings of all its parts before it raises `Refused`, so that a person sees every mistake at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from reconciler.manifest import document
from reconciler.manifest.document import Finding, Items, Node, Refused, Scalar, shown
from reconciler.manifest.kinds import Duration, Kind, Schema, mismatch, refuse, suggestion
from reconciler.model.duration import format_duration

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class OrNull(Generic[T]):
    """A value that may be left out by writing `null`."""

    kind: Kind[T]

    @property
    def expected(self) -> str:
        return f"{self.kind.expected}, or null"

    def read(self, node: Node, key: str) -> T | None:
        return None if isinstance(node, Scalar) and node.is_null else self.kind.read(node, key)

    def schema(self) -> Schema:
        return {"anyOf": [self.kind.schema(), {"type": "null"}]}


@dataclass(frozen=True)
class ListOf(Generic[T]):
    """A list, with at least one item unless `may_be_empty`."""

    kind: Kind[T]
    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        return f"a list, each item {self.kind.expected}"

    def read(self, node: Node, key: str) -> tuple[T, ...]:
        if not isinstance(node, Items):
            mismatch(node, key, self.expected, "begin each item with '- '")
        if not node.nodes and not self.may_be_empty:
            refuse(node, f"{key} is an empty list; expected {self.expected}")
        findings: list[Finding] = []
        values: list[T] = []
        for number, item in enumerate(node.nodes):
            try:
                values.append(self.kind.read(item, f"{key}[{number}]"))
            except Refused as refused:
                findings += refused.findings
        if findings:
            raise Refused(findings)
        return tuple(values)

    def schema(self) -> Schema:
        schema: Schema = {"type": "array", "items": self.kind.schema()}
        return schema if self.may_be_empty else schema | {"minItems": 1}


@dataclass(frozen=True)
class MapOf(Generic[K, V]):
    """A mapping whose keys are data.

    Args:
        keys: the kind of the keys.
        values: the kind of the values.
        key_pattern: the keys as JSON Schema sees them, which are always texts.
        may_be_empty: whether `{}` makes sense.
    """

    keys: Kind[K]
    values: Kind[V]
    key_pattern: str
    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        return f"a mapping from {self.keys.expected} to {self.values.expected}"

    def read(self, node: Node, key: str) -> dict[K, V]:
        if not isinstance(node, document.Mapping):
            mismatch(node, key, self.expected)
        if not node.entries and not self.may_be_empty:
            refuse(node, f"{key} is empty; expected {self.expected}")
        findings: list[Finding] = []
        values: dict[K, V] = {}
        for name, (name_node, value_node) in node.entries.items():
            try:
                name_value = self.keys.read(name_node, f"a key of {key}")
                values[name_value] = self.values.read(value_node, f"{key}.{name}")
            except Refused as refused:
                findings += refused.findings
        if findings:
            raise Refused(findings)
        return values

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object",
            "patternProperties": {f"^(?:{self.key_pattern})$": self.values.schema()},
            "additionalProperties": False,
        }
        return schema if self.may_be_empty else schema | {"minProperties": 1}


@dataclass(frozen=True)
class Key:
    """One key of a mapping with fixed keys.

    Args:
        kind: what its value is.
        description: one or two sentences for people, in the schema and the README.
        required: whether it must be there.
    """

    kind: Kind[Any]
    description: str
    required: bool = False


@dataclass(frozen=True)
class Record(Generic[T]):
    """A mapping with fixed keys, which becomes a value of a dataclass.

    Args:
        build: called with the keys that were given; what is missing has its default there.
        defaults: the dataclass that knows the defaults.
        keys: all that may be given.
        hints: key -> what to say of a key that is not known (yet).
    """

    build: Callable[..., T]
    defaults: type[Any]
    keys: Mapping[str, Key]
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def expected(self) -> str:
        return f"a mapping with the keys {', '.join(self.keys)}"

    def read(self, node: Node, key: str) -> T:
        if not isinstance(node, document.Mapping):
            mismatch(node, key or "the manifest", self.expected)
        prefix = f"{key}." if key else ""
        findings: list[Finding] = []
        values: dict[str, Any] = {}
        for name, (name_node, value_node) in node.entries.items():
            known = self.keys.get(name)
            try:
                if known is None:
                    self._refuse_unknown(name_node, name, prefix)
                values[name] = known.kind.read(value_node, f"{prefix}{name}")
            except Refused as refused:
                findings += refused.findings
        for name, known in self.keys.items():
            if known.required and name not in node.entries:
                findings.append(
                    Finding(
                        node.mark,
                        f"{prefix}{name} is missing; expected {known.kind.expected}",
                        f"add '{name}:'",
                    )
                )
        if findings:
            raise Refused(findings)
        return self.build(**values)

    def _refuse_unknown(self, node: Scalar, name: str, prefix: str) -> NoReturn:
        path = f"{prefix}{name}" if shown(name) == repr(name) else f"{prefix}{shown(name)}"
        if name == "<<":
            refuse(
                node,
                f"the merge key {prefix}<< is not supported",
                "write the values out where they are needed",
            )
        if name in self.hints:
            refuse(node, f"{path}: {self.hints[name]}")
        nearest = suggestion(name, list(self.keys))
        remedy = (
            f"did you mean {nearest}?" if nearest else f"remove it; the keys here are {', '.join(self.keys)}"
        )
        refuse(node, f"{path} is not a key of a manifest", remedy)

    def schema(self) -> Schema:
        defaults = {field.name: field for field in dataclasses.fields(self.defaults)}
        properties: dict[str, Schema] = {}
        for name, key in self.keys.items():
            properties[name] = {"description": key.description, **key.kind.schema()}
            field = defaults.get(name)
            if field is not None and not isinstance(key.kind, Record):
                default = _default(field, key.kind)
                properties[name] |= {} if default is dataclasses.MISSING else {"default": default}
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        required = [name for name, key in self.keys.items() if key.required]
        return schema | ({"required": required} if required else {})


@dataclass(frozen=True)
class Shared(Generic[T]):
    """A kind that occurs several times, so that the schema defines it once under `name`."""

    name: str
    kind: Kind[T]

    @property
    def expected(self) -> str:
        return self.kind.expected

    def read(self, node: Node, key: str) -> T:
        return self.kind.read(node, key)

    def schema(self) -> Schema:
        # a bare $ref would hide the description that stands beside it
        return {"allOf": [{"$ref": f"#/definitions/{self.name}"}]}

    def definition(self) -> Schema:
        """What `schema()` refers to."""
        return {self.name: self.kind.schema()}


def _default(field: dataclasses.Field[Any], kind: Kind[Any]) -> Any:
    """The default of `field` as it would be written in a manifest; MISSING when there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        return dataclasses.MISSING
    return format_duration(field.default) if isinstance(kind, Duration) else field.default
