"""Scripts made of what is hard to split, with what they hold known beforehand: strategies for hypothesis.

Every script is valid, and the values it stores in the table of `TABLES` are known too, so a server can be asked as well.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

TABLES = "CREATE TABLE t (number serial, a text); CREATE TABLE u (a text);"
"""What the statements of the scripts work on."""


class Value(NamedTuple):
    """A string: as it is written, and what it says. What a row of a COPY says is None for NULL."""

    sql: str
    says: str | None


class Part(NamedTuple):
    """A statement: its text, the rows behind it, if it is a COPY, and the values it stores in `t`."""

    text: str
    rows: str | None = None
    stores: tuple[str | None, ...] = ()


class Built(NamedTuple):
    """A script, its statements with their offsets, and where their rows begin."""

    text: str
    parts: tuple[Part, ...]
    offsets: tuple[int, ...]
    row_offsets: tuple[int | None, ...]

    @property
    def stores(self) -> list[str | None]:
        """The values that `t` has after it, in order."""
        return [value for part in self.parts for value in part.stores]


# No letter q: it is for the tags of dollar quotes around any of this.
NASTY = [
    *(
        ";",
        "'",
        "''",
        '"',
        "--",
        "/*",
        "*/",
        "$$",
        "$a$",
        "$",
        "\\",
        "\\'",
        "(",
        ")",
        "é",
        "日本",
        "\U0001f600",
    ),
    *("\n", "\n\n", "\t", " ", "x", "E'", "U&'", "\n\\.\n", "\n-- UP MIGRATION\n", "\n-- DOWN MIGRATION\n"),
    *("\n\\restrict k3y\n", "\nCOPY t FROM stdin;\n", "begin atomic ", "end; ", "\n--"),
]
GAPS = [
    *(" ", "\n", "\t", "\n\n \n", "\f", " -- it's; é\n", "--\n", " -- /* $$ \\.\n"),
    *(
        "/* ; 'é /* $$ */ \" */",
        "/* a /* b /* c */ ; */ \n\\.\n -- */",
        "/**/",
        "/* begin atomic\n\\restrict k\n*/",
    ),
]

texts = st.lists(st.sampled_from(NASTY), max_size=6).map("".join)
gaps = st.lists(st.sampled_from(GAPS), min_size=1, max_size=2).map("".join)
spaces = st.just("") | gaps


def _doubled(text: str, *marks: str) -> str:
    for mark in marks:
        text = text.replace(mark, mark * 2)
    return text


def _quoted(text: str) -> list[Value]:
    """Every way to write `text` as a string."""
    plain, escaped = _doubled(text, "'"), _doubled(text, "\\", "'")
    return [
        Value(f"'{plain}'", text),
        Value("E'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'")), text),
        Value(f"e'{escaped}'", text),
        Value(f"U&'{escaped}'", text),
        Value(f"$q${text}$q$", text),
        Value(f"$qé${text}$qé$", text),
        # strings go on in the next line, even after a comment
        Value(f"'{plain}'\n  '; --'", f"{text}; --"),
        Value(f"E'{escaped}' -- it's\n\t'\\';'", f"{text}';"),
    ]


values = texts.flatmap(lambda text: st.sampled_from(_quoted(text)))
names = texts.map(lambda text: '"n{}"'.format(_doubled(text, '"'))) | texts.map(
    lambda text: 'U&"n{}"'.format(_doubled(text, "\\", '"'))
)
_ATOMIC_FUNCTION = (
    "CREATE",
    "OR",
    "REPLACE",
    "FUNCTION",
    "f",
    "(",
    ")",
    "RETURNS",
    "text",
    "BEGIN",
    "ATOMIC",
    "SELECT",
)
_AND_CASE = (";", "SELECT", "CASE", "WHEN", "true", "THEN")
_RULE = (
    "CREATE",
    "OR",
    "REPLACE",
    "RULE",
    "r",
    "AS",
    "ON",
    "DELETE",
    "TO",
    "u",
    "DO",
    "(",
    "INSERT",
    "INTO",
    "u",
    "VALUES",
    "(",
)


@st.composite
def _statement(draw: st.DrawFn) -> Part:
    value, other = draw(values), draw(values)
    words, stores = draw(
        st.sampled_from(
            [
                (("SELECT", value.sql, "AS", draw(names)), ()),
                (("INSERT", "INTO", "t(a)", "VALUES", "(", value.sql, ")"), (value.says,)),
                (
                    ("INSERT", "INTO", "t(a)", "VALUES(", value.sql, "),(", other.sql, ")"),
                    (value.says, other.says),
                ),
                ((*_ATOMIC_FUNCTION, value.sql, *_AND_CASE, other.sql, "END", ";", "END"), ()),
                ((*_RULE, value.sql, ")", ";", "DELETE", "FROM", "u", ")"), ()),
                (("DO", f"$body$ BEGIN PERFORM {value.sql}; END $body$"), ()),
                (("COMMENT", "ON", "TABLE", "t", "IS", value.sql), ()),
                (("SELECT", "1", "AS", "stdin"), ()),
            ]
        )
    )
    text = words[0] + "".join(draw(gaps) + word for word in words[1:])
    return Part(text, None, stores)


def _row(text: str) -> Value:
    """`text` as a row of one column."""
    sql = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return Value(sql, text)


_rows = st.lists(
    texts.map(_row)
    | st.sampled_from(
        [
            Value("\\N", None),
            Value("\\\\.", "\\."),
            Value(" ;", " ;"),
            Value("", ""),
            Value("-- UP MIGRATION", "-- UP MIGRATION"),
            Value("\\restrict k", "\restrict k"),
            Value("copy t from stdin;", "copy t from stdin;"),
        ]
    ),
    max_size=5,
)


@st.composite
def _copy(draw: st.DrawFn) -> Part:
    words = draw(
        st.sampled_from(
            [
                ("COPY", "t", "(a)", "FROM", "stdin"),
                ("copy", 'public."t"', "(", '"a"', ")", "from", "STDIN", "WITH", "(", "FORMAT", "text", ")"),
                (
                    "COPY",
                    "t",
                    "(a)",
                    "FROM",
                    "stdout",
                    "(",
                    "NULL",
                    "'\\N'",
                    ",",
                    "DELIMITER",
                    "E'\\x01'",
                    ")",
                ),
            ]
        )
    )
    rows = draw(_rows)
    text = words[0] + "".join(draw(gaps) + word for word in words[1:])
    return Part(text, "".join(f"{row.sql}\n" for row in rows), tuple(row.says for row in rows))


_between = st.lists(
    gaps | st.sampled_from([";", ";;", "\\restrict K3y'", " \t\\unrestrict $$", "\\restrict"]), max_size=4
)


def _add_between(text: str, found: list[str]) -> str:
    for each in found:
        if "restrict" in each and "/*" not in each:
            text += each + "\n" if not text or text.endswith("\n") else f"\n{each}\n"
        else:
            text += each
    return text


@st.composite
def scripts(draw: st.DrawFn) -> Built:
    """Draw a script of up to five statements."""
    parts = draw(st.lists(_statement() | _copy(), min_size=1, max_size=5))
    text = _add_between("", draw(_between))
    offsets: list[int] = []
    row_offsets: list[int | None] = []
    for part in parts:
        last = len(offsets) == len(parts) - 1
        offsets.append(len(text))
        text += part.text + draw(spaces)
        if part.rows is None:
            row_offsets.append(None)
            if last and draw(st.booleans()):
                break
            text += ";"
        else:
            text += ";" + draw(st.sampled_from(["", " \t", " -- rows; it's"])) + "\n"
            row_offsets.append(len(text))
            text += part.rows + "\\."
            if last and draw(st.booleans()):
                break
            text += "\n"
        text = _add_between(text, draw(_between))
    return Built(text, tuple(parts), tuple(offsets), tuple(row_offsets))
