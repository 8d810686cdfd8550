"""The commands of `hooks:`, each a list of texts or a mapping that holds one."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.manifest import document
from reconciler.manifest.containers import ListOf, Record
from reconciler.manifest.document import Items, Node, Scalar
from reconciler.manifest.kinds import Schema, Text, mismatch, refuse
from reconciler.model import Hook

# nothing relative to a folder: the repository is not checked out where a hook runs
_PROGRAM_PATTERN = r"/[^\0]*[^\0/]|[^\0/]+"
PROGRAM = Text(
    "a program: an absolute path, or a name without slashes that is found on PATH",
    _PROGRAM_PATTERN,
    longest=4096,
)
_ARGUMENT = Text("a text", r"[^\0]*", longest=65_536)
_ARGUMENTS = ListOf(_ARGUMENT)


@dataclass(frozen=True)
class Command:
    """A program and its arguments, one text each."""

    expected: str = "a list of texts: a program and its arguments, [pg_dump, --version] say"

    def read(self, node: Node, key: str) -> tuple[str, ...]:
        if isinstance(node, Scalar) and not node.is_null:
            mismatch(node, key, self.expected, _as_list(node.text))
        if not isinstance(node, Items):
            mismatch(node, key, self.expected)
        if not node.nodes:
            refuse(node, f"{key} is an empty list; expected {self.expected}")
        arguments = _ARGUMENTS.read(node, key)
        PROGRAM.read(node.nodes[0], f"{key}[0]")
        return arguments

    def schema(self) -> Schema:
        return {
            "type": "array",
            "description": "A program, absolute or on PATH, and its arguments. No shell reads them.",
            "items": [PROGRAM.schema()],
            "additionalItems": _ARGUMENT.schema(),
            "minItems": 1,
        }


@dataclass(frozen=True)
class HookKind:
    """A hook: its command alone, or a mapping with more.

    Args:
        mapping: reads the long form.
    """

    mapping: Record[Hook]

    @property
    def expected(self) -> str:
        return "a command as a list of texts, or a mapping with the keys command, timeout, name"

    def read(self, node: Node, key: str) -> Hook:
        if isinstance(node, Scalar):
            mismatch(node, key, self.expected, "" if node.is_null else _as_list(node.text))
        if isinstance(node, document.Mapping):
            return self.mapping.read(node, key)
        return Hook(command=Command().read(node, key))

    def schema(self) -> Schema:
        return {"anyOf": [Command().schema(), self.mapping.schema()]}


def _as_list(text: str) -> str:
    """How to write a command line that was written as one text."""
    words = text.split()
    if not words or len(text) > 60 or not text.isprintable() or set(text) & set("'\"\\$`|&;<>*?()[]{},:#"):
        return "write the program and each argument as an item of a list; for a shell, [sh, -c, TEXT]"
    return f"write [{', '.join(words)}]: no shell takes a text apart"
