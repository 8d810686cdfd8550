"""The kinds of single value a manifest may hold; mappings and lists are in `containers.py`.

A kind reads a node of the document into a value and describes itself as JSON Schema, so that the reader and the published
schema cannot disagree. `read` raises `Refused` with everything that is wrong with the node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from reconciler.manifest import document
from reconciler.manifest.document import Finding, Items, Node, Refused, Scalar, shown
from reconciler.model.duration import parse_duration

E = TypeVar("E", bound=StrEnum)
T_co = TypeVar("T_co", covariant=True)

Schema = dict[str, Any]

HIGHEST_VERSION = 2**63 - 1


class Kind(Protocol[T_co]):
    """One kind of value."""

    @property
    def expected(self) -> str:
        """What a person should write, as a noun phrase."""
        ...

    def read(self, node: Node, key: str) -> T_co:
        """The value of `node`, which stands at the dotted path `key`.

        Raises:
            Refused: it is not of this kind.
        """
        ...

    def schema(self) -> Schema:
        """This kind as JSON Schema."""
        ...


def refuse(node: Node, message: str, remedy: str = "") -> NoReturn:
    """Raise `Refused` with one finding at `node`."""
    raise Refused([Finding(node.mark, message, remedy)])


def mismatch(node: Node, key: str, expected: str, remedy: str = "") -> NoReturn:
    """Refuse `node` because it is not what `expected` says."""
    match node:
        case document.Mapping():
            found = "is a mapping"
        case Items():
            found = "is a list"
        case Scalar() if node.is_null:
            found = "has no value"
        case Scalar():
            found = f"is {shown(node.text)}"
    refuse(node, f"{key} {found}; expected {expected}", remedy)


def require_scalar(node: Node, key: str, expected: str) -> Scalar:
    """`node` when it is a scalar with a value; refuses it otherwise."""
    if not isinstance(node, Scalar) or node.is_null:
        mismatch(node, key, expected)
    return node


_RESOLVED_NAMES = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "null": "nothing",
    "merge": "a merge key",
    "value": "a default key",
}


@dataclass(frozen=True)
class Text:
    """A text that matches a pattern.

    Args:
        expected: what is wanted.
        pattern: a regular expression for the whole text, in the part of the syntax that Python and JSON Schema share.
        longest: bytes in UTF-8.
        whatever_it_looks_like: True takes a plain scalar for a text even if YAML sees a number in it.
        lower_case: True makes capital letters small.
    """

    expected: str
    pattern: str
    longest: int = 4096
    whatever_it_looks_like: bool = False
    lower_case: bool = False

    def read(self, node: Node, key: str) -> str:
        scalar = require_scalar(node, key, self.expected)
        if scalar.plain and scalar.resolved != "str" and not self.whatever_it_looks_like:
            looks_like = _RESOLVED_NAMES.get(scalar.resolved, scalar.resolved)
            refuse(
                node,
                f"{key} is {scalar.text}, which YAML reads as {looks_like}; expected {self.expected}",
                f'write "{scalar.text}" in quotes if it is meant',
            )
        if not self.matches(scalar.text):
            mismatch(node, key, self.expected)
        return scalar.text.lower() if self.lower_case else scalar.text

    def matches(self, text: str) -> bool:
        """True when `text` is one of these."""
        return len(text.encode(errors="replace")) <= self.longest and bool(re.fullmatch(self.pattern, text))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "maxLength": self.longest}


@dataclass(frozen=True)
class Integer:
    """A whole number in decimal digits."""

    lowest: int
    highest: int

    @property
    def expected(self) -> str:
        return f"a whole number from {self.lowest} to {self.highest}"

    def read(self, node: Node, key: str) -> int:
        scalar = require_scalar(node, key, self.expected)
        text = scalar.text
        if not scalar.plain:
            mismatch(node, key, f"{self.expected}, without quotes", "remove the quotes")
        if not re.fullmatch("0|-?[1-9][0-9]*", text):
            mismatch(node, key, self.expected, _decimal_hint(text))
        # int() of thousands of digits is slow, and then refused by Python itself
        if len(text) > 30 or not self.lowest <= int(text) <= self.highest:
            mismatch(node, key, self.expected)
        return int(text)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


def _decimal_hint(text: str) -> str:
    """How to write in decimal what `text` probably means; empty when it is no number."""
    if len(text) > 30:
        return ""
    if re.fullmatch(r"[-+]?0[0-9]+", text):
        digits = text.lstrip("+-0") or "0"
        return (
            f"write {digits}: YAML takes a leading zero for an octal number, and reads {text} as another one"
        )
    if re.fullmatch(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+", text):
        return f"write {int(text, 0)}, in decimal digits"
    if re.fullmatch(r"[0-9]{1,3}(?:[_,][0-9]+)+", text):
        return f"write {re.sub('[_,]', '', text)}, without separators"
    if re.fullmatch(r"[0-9]+(?::[0-9]+)+", text):
        return "write one number in decimal digits: YAML reads colons as base 60"
    if re.fullmatch(r"\+[1-9][0-9]*", text):
        return f"write {text[1:]}"
    if re.fullmatch(r"[1-9][0-9]*\.0*", text):
        return f"write {text.partition('.')[0]}, without a decimal point"
    return ""


@dataclass(frozen=True)
class Boolean:
    """`true` or `false`, and none of YAML's other spellings."""

    expected: str = "true or false"

    def read(self, node: Node, key: str) -> bool:
        scalar = require_scalar(node, key, self.expected)
        if scalar.plain and scalar.text in ("true", "false"):
            return scalar.text == "true"
        if not scalar.plain and scalar.text in ("true", "false"):
            mismatch(node, key, f"{self.expected}, without quotes", "remove the quotes")
        meant = {"yes": "true", "y": "true", "on": "true", "1": "true", "true": "true"}
        meant |= {"no": "false", "n": "false", "off": "false", "0": "false", "false": "false"}
        spelling = meant.get(scalar.text.casefold())
        mismatch(node, key, self.expected, f"write {spelling}" if spelling else "")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Duration:
    """A length of time, in seconds once read."""

    expected: str = "a duration such as 30s, 5m, 1h30m or 500ms"

    def read(self, node: Node, key: str) -> float:
        scalar = require_scalar(node, key, self.expected)
        try:
            return parse_duration(scalar.text)
        except ValueError as error:
            clause, _, remedy = str(error).partition(": ")
            refuse(node, f"{key} is {shown(scalar.text)}, which {clause}", remedy)

    def schema(self) -> Schema:
        # at least one part; the parts in order
        pattern = "^(?=[0-9])([0-9]{1,10}d)?([0-9]{1,10}h)?([0-9]{1,10}m)?([0-9]{1,10}s)?([0-9]{1,10}ms)?$"
        return {"type": "string", "pattern": pattern}


@dataclass(frozen=True)
class Choice(Generic[E]):
    """One of the values of an enum."""

    values: type[E]

    @property
    def expected(self) -> str:
        *others, last = self.values
        return f"{', '.join(others)} or {last}"

    def read(self, node: Node, key: str) -> E:
        scalar = require_scalar(node, key, self.expected)
        try:
            return self.values(scalar.text)
        except ValueError:
            nearest = suggestion(scalar.text, list(self.values))
            mismatch(node, key, self.expected, f"did you mean {nearest}?" if nearest else "")

    def schema(self) -> Schema:
        return {"enum": [value.value for value in self.values]}


def suggestion(text: str, known: list[str]) -> str:
    """The one of `known` that `text` was probably meant to be; empty when none is near."""
    import difflib

    nearest = difflib.get_close_matches(text[:100].replace("-", "_").casefold(), known, n=1, cutoff=0.6)
    return nearest[0] if nearest else ""
