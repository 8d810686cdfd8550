"""Our own file format: header, directives, `-- UP MIGRATION`, `-- DOWN MIGRATION`.

Files are loaded by the thousand, so a file is skimmed rather than tokenised: only comments outside quotes are looked at.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple, NoReturn

from reconciler.formats.directives import DirectiveError, DirectiveReader
from reconciler.formats.file_name import FileName, parse_file_name
from reconciler.model import Migration, Place, Problem, ProblemError, Reason, Script
from reconciler.sqltext import (
    LexicalError,
    digest,
    excerpt,
    first_token,
    invalid,
    locate,
    normalise_line_ends,
    outer_comments,
    picture,
    split,
)

UP_MARKER = "-- UP MIGRATION"
DOWN_MARKER = "-- DOWN MIGRATION"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
_DESCRIPTION_LIMIT = 1000

# What is worth a second look among the comments, told by its first words. Matched against one comment, so `$` is its end.
_NOTABLE = re.compile(
    r"--[-=*#~>\s]*(?:"
    r"(?P<section>up|down)(?:[\s_-]*migrations?\b|\s*:?\s*$)"
    r"|migrations?[\s_-]+(?P<turned>up|down)\s*:?\s*$"
    r"|reconciler\s*:(?P<directive>[^\n]*)"
    r"|(?P<foreign>\+goose\b[^\n]*|migrate:(?:up|down)\b[^\n]*)"
    r"|(?P<header>migration|description|author)[ \t]*:(?P<value>[^\n]*)"
    r")",
    re.IGNORECASE,
)
_MARKER = re.compile(r"--[ \t]*(?:up|down)[ \t]+migration[ \t]*", re.IGNORECASE)
_MARKER_LINE = re.compile(r"^[ \t]*--[ \t]*(?:up|down)[ \t]+migration[ \t]*$", re.IGNORECASE | re.MULTILINE)


class Notice(NamedTuple):
    """Something in a file that is no error and that a person should look at: a warning of the lint rule `rule`."""

    rule: str
    message: str
    remedy: str
    place: Place
    excerpt: str


class ParsedFile(NamedTuple):
    """A migration, and what its text gave cause to remark upon."""

    migration: Migration
    notices: tuple[Notice, ...]


class _Section(NamedTuple):
    direction: str
    marker: int
    """Where the marker's `--` stands."""
    start: int
    """Where the line after the marker begins."""


def parse_migration(path: str, content: bytes) -> Migration:
    """Read a migration file.

    Args:
        path: from the repository's root; its last part gives version and name.
        content: the whole file.

    Raises:
        ProblemError: `MigrationInvalid`, with place, excerpt and the version the file's name begins with.
    """
    return parse(path, content).migration


def parse(path: str, content: bytes) -> ParsedFile:
    """Read a migration file and what is remarkable about it. See `parse_migration`."""
    name = parse_file_name(path)
    try:
        return _Reader(path, name, _decode(path, content)).read()
    except ProblemError as error:
        if error.problem.version is None:
            raise ProblemError(_with_version(error.problem, name.version)) from error
        raise


class _Reader:
    """One pass over the comments of a file."""

    def __init__(self, path: str, name: FileName, text: str) -> None:
        self.name = name
        self.text = text
        self.file = Script(text, path, 1)
        self.sections: list[_Section] = []
        self.directives = DirectiveReader()
        self.headers: dict[str, str] = {}
        self.notices: list[Notice] = []

    def read(self) -> ParsedFile:
        text = self.text
        if not text or text.isspace():
            self._refuse(0, "the file is empty", f"write the SQL under a line `{UP_MARKER}`")
        try:
            for start, end in outer_comments(text, self._is_marker):
                notable = _NOTABLE.match(text, start, end)
                if notable is not None and self._begins_line(start):
                    self._note(notable, end)
            return self._assemble()
        except LexicalError as error:
            # A meta-command may be what unbalanced the quotes: the full lexer names them.
            split(self.file)
            raise invalid(self.file, error.offset, error.message, error.remedy) from error

    def _begins_line(self, start: int) -> bool:
        before = self.text[self.text.rfind("\n", 0, start) + 1 : start]
        return not before or before.isspace()

    def _is_marker(self, start: int, end: int) -> bool:
        return self._begins_line(start) and _MARKER.fullmatch(self.text, start, end) is not None

    def _note(self, notable: re.Match[str], end: int) -> None:
        start = notable.start()
        if direction := notable["section"] or notable["turned"]:
            self._add_section(direction.lower(), start, end)
        elif notable["directive"] is not None:
            self._add_directive(notable)
        elif notable["foreign"]:
            self._refuse(
                start,
                f"{notable['foreign'].strip()!r} belongs to another migration tool's format",
                f"write `{UP_MARKER}` and `{DOWN_MARKER}` lines instead",
            )
        elif not self.sections:
            self._add_header(notable)

    def _add_section(self, direction: str, start: int, end: int) -> None:
        marker = UP_MARKER if direction == "up" else DOWN_MARKER
        if not _MARKER.fullmatch(self.text, start, end):
            # Taken for a mere comment, a marker with a colon would make its down a part of the up.
            self._refuse(
                start,
                f"this line is almost, but not quite, the marker `{marker}`",
                "write the marker with nothing else on its line, or begin the comment with another word",
            )
        known = [section.direction for section in self.sections]
        if direction in known:
            self._refuse(
                start, f"a second line `{marker}`", "a file has one section of each kind; merge the two"
            )
        if direction == "down" and "up" not in known:
            self._refuse(start, f"`{marker}` comes before `{UP_MARKER}`", "put the up section first")
        if not self.sections:
            stray = first_token(self.text, 0, start)
            if stray < start:
                self._refuse_stray(stray)
        self.sections.append(_Section(direction, start, min(end + 1, len(self.text))))

    def _add_directive(self, notable: re.Match[str]) -> None:
        start = notable.start()
        if self.sections:
            self._refuse(start, "a directive stands inside a section", f"move it above `{UP_MARKER}`")
        try:
            self.directives.add(notable["directive"])
        except DirectiveError as error:
            argument = notable.start("directive")
            offset = argument + len(notable["directive"]) - len(notable["directive"].lstrip())
            self._refuse(offset, error.message, error.remedy)

    def _add_header(self, notable: re.Match[str]) -> None:
        key, value = notable["header"].lower(), notable["value"].strip()
        if not value or key in self.headers:
            return
        self.headers[key] = value[:_DESCRIPTION_LIMIT]
        if key == "migration":
            file_name = self.file.path.rpartition("/")[2]
            if value not in (file_name, file_name.removesuffix(".sql")):
                offset = notable.start("value") + len(notable["value"]) - len(notable["value"].lstrip())
                self._notice(
                    "header-file-name",
                    offset,
                    f"the header names {value!r}, and the file is {file_name}",
                    "make the header name this file; it may be a copy that was not finished",
                )

    def _assemble(self) -> ParsedFile:
        if not self.sections:
            self._refuse_without_sections()
        up_section = self.sections[0]
        down_section = self.sections[1] if len(self.sections) > 1 else None
        up_end = self._line_start(down_section.marker) if down_section else len(self.text)
        if first_token(self.text, up_section.start, up_end) >= up_end:
            self._refuse(
                up_section.marker,
                "the up section holds no statement",
                "write the SQL of the migration under the marker",
            )
        directives = self.directives.result()
        up = self._script(up_section.start, up_end)
        down = None
        if down_section:
            end = len(self.text)
            empty = first_token(self.text, down_section.start, end) >= end
            if directives.irreversible and not empty:
                self._refuse(
                    down_section.marker,
                    "the file is marked irreversible and has a down section",
                    "remove one of the two",
                )
            elif not directives.irreversible:
                down = self._script(down_section.start, end)
                if empty:
                    self._note_empty_down(down_section)
        elif hidden := _MARKER_LINE.search(self.text, up_section.start):
            self._note_hidden_marker(hidden)
        migration = Migration(
            version=self.name.version,
            name=self.name.name,
            path=self.file.path,
            checksum=digest(self.text),
            up=up,
            down=down,
            down_checksum=digest(down.text) if down else None,
            directives=directives,
            description=self.headers.get("description", ""),
            author=self.headers.get("author", ""),
        )
        return ParsedFile(migration, tuple(self.notices))

    def _refuse_without_sections(self) -> NoReturn:
        where = "put the marker, alone on a line and outside quotes, above the SQL"
        if hidden := _MARKER_LINE.search(self.text):
            self._refuse(
                hidden.start(),
                f"the file has no line `{UP_MARKER}` but this one, which is inside quotes, a block comment or rows of a COPY",
                where,
            )
        stray = first_token(self.text, 0, len(self.text))
        self._refuse(stray if stray < len(self.text) else 0, f"the file has no line `{UP_MARKER}`", where)

    def _script(self, start: int, end: int) -> Script:
        return Script(self.text[start:end], self.file.path, self.text.count("\n", 0, start) + 1)

    def _line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def _note_empty_down(self, section: _Section) -> None:
        self._notice(
            "empty-down",
            section.marker,
            "the down section holds no statement, so going down changes nothing but the version",
            "write the SQL that takes the up back, or `-- reconciler: irreversible` if there is none",
        )

    def _note_hidden_marker(self, hidden: re.Match[str]) -> None:
        self._notice(
            "marker-in-quotes",
            hidden.start(),
            "this line looks like a marker, and is inside quotes, a block comment or rows of a COPY, so it is none",
            "if it is meant as one, look above it for a quote, a comment or rows that end too late",
        )

    def _notice(self, rule: str, offset: int, message: str, remedy: str) -> None:
        place = locate(self.file, offset)
        self.notices.append(Notice(rule, message, remedy, place, excerpt(self.file, offset)))

    def _refuse_stray(self, offset: int) -> NoReturn:
        self._refuse(
            offset,
            "there is text above the first section",
            f"move it under `{UP_MARKER}`; only comments and directives may stand before it",
        )

    def _refuse(self, offset: int, message: str, remedy: str) -> NoReturn:
        raise invalid(self.file, offset, message, remedy)


def _decode(path: str, content: bytes) -> str:
    """The text of a file, line ends normalised, without a byte order mark."""
    if content.startswith(_BYTE_ORDER_MARK):
        content = content[len(_BYTE_ORDER_MARK) :]
    if content.startswith(_OTHER_ENCODINGS):
        _refuse_byte(path, content, 0, "the file is UTF-16 text")
    nul = content.find(b"\0")
    if nul >= 0:
        _refuse_byte(path, content, nul, "a NUL byte stands here")
    try:
        return normalise_line_ends(content.decode())
    except UnicodeDecodeError as error:
        _refuse_byte(path, content, error.start, f"the byte 0x{content[error.start]:02x} here is not UTF-8")


def _refuse_byte(path: str, content: bytes, offset: int, message: str) -> NoReturn:
    start = content.rfind(b"\n", 0, offset) + 1
    end = content.find(b"\n", offset)
    line = content[start : end if end >= 0 else len(content)].decode("utf-8", "replace")
    column = len(content[start:offset].decode("utf-8", "replace"))
    raise ProblemError(
        Problem(
            reason=Reason.MIGRATION_INVALID,
            message=message,
            remedy="save the file as UTF-8 text",
            place=Place(path, content.count(b"\n", 0, offset) + 1, column + 1),
            excerpt=picture(line, column),
        )
    )


def _with_version(problem: Problem, version: int) -> Problem:
    return replace(problem, version=version)
