"""YAML text as a tree of nodes that know their line and column.

The tree is built from the parser's events, without recursion and without PyYAML's own idea of what a plain scalar is: the
kinds (`kinds.py`) decide that, so that `no`, `010` and `1:30` can be told apart from what was meant. Everything that makes
YAML surprising or dangerous (aliases, tags, several documents) is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from reconciler.model.value import value

LARGEST = 1 << 20
"""Bytes of a manifest that are still read."""
_DEEPEST = 20
_MOST_NODES = 50_000
# everything but what YAML calls printable, said by what it leaves out: the other way round takes 4 ms to compile
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_MAY_HOLD_A_SECRET = re.compile(r"://|@|pass|pwd|secret|token|private|credential", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"
_LONGEST_SHOWN = 60
_LONGEST_LINE_SHOWN = 200
_LONGEST_RESOLVED = 100


@value
class Mark:
    """A position in the text; `line` and `column` count from 1, in characters."""

    line: int
    column: int


@value
class Finding:
    """One thing that is wrong with a document."""

    mark: Mark
    message: str
    remedy: str = ""


class Refused(Exception):
    """A part of a document cannot be used. Carries everything that was found in it, in order."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(finding.message for finding in findings))
        self.findings = tuple(findings)


@value
class Scalar:
    """A text as written.

    Args:
        mark: where it begins.
        text: the characters, without quotes.
        plain: True when it has no quotes and is no block.
        resolved: what YAML 1.1 makes of it: `str`, `bool`, `int`, `float`, `null`, `timestamp`, ...
    """

    mark: Mark
    text: str
    plain: bool = True
    resolved: str = "str"

    @property
    def is_null(self) -> bool:
        """True for an empty value, `~` and `null`."""
        return self.resolved == "null"


@value
class Items:
    """A list."""

    mark: Mark
    nodes: list[Node] = field(default_factory=list)


@value
class Mapping:
    """Keys and values in the order of the text; no key twice."""

    mark: Mark
    entries: dict[str, tuple[Scalar, Node]] = field(default_factory=dict)


Node = Scalar | Items | Mapping


@value
class Document:
    """What became of a text.

    Args:
        lines: the text's lines, for excerpts; empty when it could not be decoded.
        root: the tree; None when there is none that could be judged any further.
        findings: what is wrong with the text as YAML.
    """

    lines: Sequence[str]
    root: Node | None
    findings: Sequence[Finding]

    def excerpt(self, mark: Mark) -> str:
        """The line of `mark` with a caret below its column; empty for a line that may hold a secret or is very long."""
        line = self.lines[mark.line - 1] if mark.line <= len(self.lines) else ""
        if not line.strip() or len(line) > _LONGEST_LINE_SHOWN or _MAY_HOLD_A_SECRET.search(line):
            return ""
        # tabs are kept, so that the caret stands right whatever their width
        indent = "".join(character if character == "\t" else " " for character in line[: mark.column - 1])
        return f"{line}\n{indent}^"


def shown(text: str) -> str:
    """`text` in quotes for a message: shortened, on one line, and hidden when it may hold a secret."""
    if _MAY_HOLD_A_SECRET.search(text):
        return "(a text that is not shown, for it may hold a secret)"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def parse(content: bytes) -> Document:
    """Read `content` as one YAML document of plain mappings, lists and scalars. Never raises on bad input."""
    if len(content) > LARGEST:
        size = f"{len(content):,} bytes"
        finding = Finding(
            Mark(1, 1), f"the file has {size}, at most {LARGEST:,} are read", "a manifest is a page of text"
        )
        return Document((), None, [finding])
    try:
        text = content.decode().removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        return Document((), None, [_not_utf8(content, error)])
    lines = _LINE_BREAK.split(text)
    if match := _UNPRINTABLE.search(text):
        before = _LINE_BREAK.split(text[: match.start()])
        code = f"U+{ord(match[0]):04X}"
        name = "a NUL byte" if match[0] == "\0" else f"the control character {code}"
        finding = Finding(
            Mark(len(before), len(before[-1]) + 1), f"the file holds {name}", "save it as plain UTF-8 text"
        )
        return Document((), None, [finding])
    root, findings = _Builder().build(text)
    return Document(lines, root, findings)


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> Finding:
    before = _LINE_BREAK.split(content[: error.start].decode().removeprefix(_BYTE_ORDER_MARK))
    message = f"the file is not UTF-8: byte 0x{content[error.start]:02X} at offset {error.start}"
    return Finding(Mark(len(before), len(before[-1]) + 1), message, "save it as UTF-8")


class _Stop(Exception):
    """Nothing more can be learned from the text."""


class _Builder:
    """Builds the tree with a stack of the containers that are open."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._root: Node | None = None
        self._open: list[Items | Mapping] = []
        self._keys: list[Scalar | None] = []
        self._nodes = 0
        self._documents = 0
        self._complete = True

    def build(self, text: str) -> tuple[Node | None, list[Finding]]:
        """The root, None when it is missing or misleading, and what was found."""
        import yaml

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        resolver: Any = yaml.resolver.Resolver()
        self._resolver = resolver
        try:
            for event in yaml.parse(text, Loader=loader):
                self._take(event, yaml)
        except _Stop:
            self._complete = False
        except yaml.YAMLError as error:
            self.findings.append(_syntax_error(error))
            self._complete = False
        return (self._root if self._complete else None), self.findings

    def _take(self, event: Any, yaml: Any) -> None:
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(
                    mark,
                    "the file holds more than one document",
                    "write one manifest a file, without a second '---'",
                )
        elif isinstance(event, yaml.AliasEvent):
            self._stop(
                mark, f"the alias *{event.anchor} is not supported", "write the value out where it is needed"
            )
        elif isinstance(event, yaml.NodeEvent):
            self._check(event, mark)
            if isinstance(event, yaml.ScalarEvent):
                plain = event.style is None or event.style == ""
                self._add(Scalar(mark, event.value, plain, self._resolve(event.value, event.implicit, yaml)))
            else:
                node: Items | Mapping = (
                    Items(mark) if isinstance(event, yaml.SequenceStartEvent) else Mapping(mark)
                )
                self._add(node)
                self._open.append(node)
                self._keys.append(None)
                if len(self._open) > _DEEPEST:
                    self._stop(
                        mark, f"the file is nested more than {_DEEPEST} levels deep", "a manifest needs four"
                    )
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _check(self, event: Any, mark: Mark) -> None:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            self._stop(
                mark, f"the file holds more than {_MOST_NODES:,} values", "a manifest is a page of text"
            )
        if event.anchor is not None:
            self.findings.append(Finding(mark, f"the anchor &{event.anchor} is not supported", "remove it"))
        if event.tag is not None:
            self.findings.append(Finding(mark, f"the tag {shown(event.tag)} is not supported", "remove it"))

    def _resolve(self, text: str, implicit: tuple[bool, bool], yaml: Any) -> str:
        if not implicit[0] or len(text) > _LONGEST_RESOLVED:
            return "str"
        tag: str = self._resolver.resolve(yaml.ScalarNode, text, (True, False))
        return tag.rpartition(":")[2]

    def _add(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Items):
            parent.nodes.append(node)
            return
        key = self._keys[-1]
        if key is None:
            if not isinstance(node, Scalar):
                self._stop(
                    node.mark,
                    "a list or mapping stands where a key should be",
                    "write a plain text before the ':'",
                )
            else:
                self._keys[-1] = node
            return
        self._keys[-1] = None
        if key.text in parent.entries:
            first = parent.entries[key.text][0].mark
            self.findings.append(
                Finding(
                    key.mark,
                    f"the key {shown(key.text)} stands twice, first in line {first.line}",
                    "remove one of them",
                )
            )
        else:
            parent.entries[key.text] = (key, node)

    def _stop(self, mark: Mark, message: str, remedy: str) -> None:
        self.findings.append(Finding(mark, message, remedy))
        raise _Stop


_SYNTAX_REMEDIES = {
    "cannot start any token": "indent with spaces, and put a text that begins with a special character in quotes",
    "mapping values are not allowed": "put a text that contains ': ' in quotes, and check the indentation",
    "could not find expected ':'": "write 'key: value'",
    "unexpected end of stream": "close the quote or bracket",
}


def _syntax_error(error: Any) -> Finding:
    """A finding for what PyYAML raised. Its own text is not used whole: it quotes the source, which may hold a secret."""
    problem = getattr(error, "problem", None) or "it cannot be read"
    context = getattr(error, "context", None)
    place = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
    remedy = next((text for part, text in _SYNTAX_REMEDIES.items() if part in problem), "correct the YAML")
    return Finding(mark, f"this is not YAML: {f'{context}, ' if context else ''}{problem}", remedy)
