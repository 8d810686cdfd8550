"""What CockroachDB makes of a statement's words: its kind, what has no grammar there, which functions and tables are missing.

It is stricter than the server in doubt: what only some versions have, or have as an empty shell, is refused, so that nobody
comes to rely on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from reconciler.sqltext.lexer import QUOTED_NAME, STRING, WORD, LexicalError, Token
from reconciler.sqltext.splitter import statements
from tests.cockroach import settings

ShownJobs = Callable[[int | None], str]


class Kind(Enum):
    """What the server does with a statement."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    ROLLBACK_TO = "rollback to"
    DDL = "ddl"
    SETTING = "setting"
    JOB = "job"
    """PAUSE, RESUME or CANCEL JOB."""
    CANCEL_SESSION = "cancel session"
    OTHER = "other"


@dataclass(frozen=True)
class Refusal(Exception):
    """Why a statement is not run.

    Args:
        sqlstate: of the error.
        message: of the error.
        violation: it breaks one of the adapter's rules, whatever it does about the error.
    """

    sqlstate: str
    message: str
    violation: bool = False


@dataclass(frozen=True)
class Statement:
    """One statement of a message.

    Args:
        text: as sent, with the comments before it, without the `;`.
        tokens: of it; their offsets are those of the whole message.
        start: where `text` begins in the message.
    """

    text: str
    tokens: Sequence[Token]
    start: int

    @property
    def words(self) -> list[str]:
        """Its tokens in upper case."""
        return [token.text.upper() for token in self.tokens]

    @property
    def kind(self) -> Kind:
        """What the server does with it."""
        first, second = [*self.words, "", ""][:2]
        if first == "ROLLBACK" and "TO" in self.words[1:3]:
            return Kind.ROLLBACK_TO
        if first in _TRANSACTIONS:
            return _TRANSACTIONS[first]
        if first in ("PAUSE", "RESUME", "CANCEL") and second in ("JOB", "JOBS"):
            return Kind.JOB
        if (first, second) == ("CANCEL", "SESSION"):
            return Kind.CANCEL_SESSION
        if first in _DDL:
            return Kind.DDL
        return Kind.SETTING if first in ("SET", "RESET", "SHOW", "USE") else Kind.OTHER


_TRANSACTIONS = {
    "BEGIN": Kind.BEGIN,
    "START": Kind.BEGIN,
    "COMMIT": Kind.COMMIT,
    "END": Kind.COMMIT,
    "ROLLBACK": Kind.ROLLBACK,
    "ABORT": Kind.ROLLBACK,
}
_DDL = frozenset({"ALTER", "COMMENT", "CREATE", "DROP", "GRANT", "REASSIGN", "REFRESH", "REVOKE", "TRUNCATE"})
"""First words of what can modify a schema, in the server's own sense: GRANT and REVOKE do."""
_STARTS = (
    _DDL
    | frozenset(_TRANSACTIONS)
    | frozenset(
        [
            "ANALYZE",
            "CALL",
            "CANCEL",
            "CLOSE",
            "COPY",
            "DEALLOCATE",
            "DECLARE",
            "DELETE",
            "DISCARD",
            "DO",
            "EXECUTE",
            "EXPLAIN",
            "FETCH",
            "INSERT",
            "MOVE",
            "PAUSE",
            "PREPARE",
            "RELEASE",
            "RESET",
            "RESUME",
            "SAVEPOINT",
            "SELECT",
            "SET",
            "SHOW",
            "TABLE",
            "UPDATE",
            "UPSERT",
            "USE",
            "VALUES",
            "WITH",
            "(",
        ]
    )
)
_NO_OBJECTS = frozenset(
    [
        "ACCESS",
        "AGGREGATE",
        "CAST",
        "COLLATION",
        "CONVERSION",
        "DOMAIN",
        "EVENT",
        "FOREIGN",
        "LANGUAGE",
        "OPERATOR",
        "PUBLICATION",
        "RULE",
        "SERVER",
        "SUBSCRIPTION",
        "SYSTEM",
        "TABLESPACE",
        "TEXT",
        "TRANSFORM",
    ]
)
_NO_COLUMNS = frozenset({"cmax", "cmin", "ctid", "xmax", "xmin"})
_FUNCTIONS = frozenset(
    [
        "pg_backend_pid",
        "pg_char_to_encoding",
        "pg_client_encoding",
        "pg_collation_for",
        "pg_column_is_updatable",
        "pg_column_size",
        "pg_encoding_to_char",
        "pg_function_is_visible",
        "pg_get_constraintdef",
        "pg_get_expr",
        "pg_get_function_arguments",
        "pg_get_function_identity_arguments",
        "pg_get_function_result",
        "pg_get_functiondef",
        "pg_get_indexdef",
        "pg_get_keywords",
        "pg_get_partkeydef",
        "pg_get_serial_sequence",
        "pg_get_userbyid",
        "pg_get_viewdef",
        "pg_has_role",
        "pg_is_in_recovery",
        "pg_is_other_temp_schema",
        "pg_my_temp_schema",
        "pg_options_to_table",
        "pg_relation_is_updatable",
        "pg_sequence_last_value",
        "pg_sequence_parameters",
        "pg_sleep",
        "pg_table_is_visible",
        "pg_type_is_visible",
        "pg_typeof",
    ]
)
"""Functions of PostgreSQL's own prefix that are there. Every other is not."""
_NO_FUNCTIONS = ("lo_", "txid_", "pg_")
_NO_RELATIONS = ("pg_locks", "pg_stat_", "pg_statio_", "pg_prepared_xacts", "pg_control")
ADVISORY_STUBS = {
    "pg_try_advisory_lock": "true",
    "pg_try_advisory_lock_shared": "true",
    "pg_advisory_unlock": "true",
    "pg_advisory_unlock_shared": "true",
    "pg_advisory_unlock_all": "NULL::void",
}
"""They exist, do nothing and say this."""


_UP_TO_SEMICOLON = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*;", re.DOTALL)


def split(message: str) -> list[Statement]:
    """The statements of a message, every one of which CockroachDB's grammar knows.

    Raises:
        Refusal: of one of them, and so of the whole message: it is parsed before any of it runs.
    """
    found: list[Statement] = []
    position = 0
    try:
        for tokens in statements(message):
            end = tokens[-1].end
            found.append(Statement(message[position:end], tokens, position))
            ended = _UP_TO_SEMICOLON.match(message, end)
            position = ended.end() if ended else end
    except LexicalError as error:
        raise Refusal("42601", f"at or near EOF: syntax error: {error.message}") from None
    for statement in found:
        _parse(statement)
    return found


def _parse(statement: Statement) -> None:
    """Refuse what has no grammar."""
    words = statement.words
    first, second = [*words, "", ""][:2]
    if first in ("LISTEN", "NOTIFY", "UNLISTEN", "REINDEX", "VACUUM", "CLUSTER"):
        raise _unimplemented(first.lower())
    if first not in _STARTS:
        raise Refusal("42601", f'at or near "{statement.tokens[0].text.lower()}": syntax error')
    if words[:2] == ["SET", "CONSTRAINTS"]:
        raise _unimplemented("set constraints")
    if words[:4] == ["SET", "LOCAL", "SESSION", "AUTHORIZATION"]:
        raise Refusal("42601", 'at or near "authorization": syntax error')
    if words[:2] == ["DISCARD", "PLANS"]:
        raise Refusal("42601", 'at or near "plans": syntax error')
    if words[:2] == ["PREPARE", "TRANSACTION"] or (first in ("COMMIT", "ROLLBACK") and second == "PREPARED"):
        raise _unimplemented("two-phase commit")
    if first == "DECLARE" and ("SCROLL" in words or "HOLD" in words):
        raise _unimplemented("cursors that scroll or outlive their transaction")
    if first in ("CREATE", "ALTER", "DROP"):
        named = words[3] if words[1:3] == ["OR", "REPLACE"] else second
        if named in _NO_OBJECTS:
            raise _unimplemented(f"{first.lower()} {named.lower()}")
        if first == "CREATE" and named in ("TEMP", "TEMPORARY"):
            raise Refusal("0A000", "temporary tables are only supported experimentally")
        _parse_table(words)


def _parse_table(words: list[str]) -> None:
    """Refuse what may not stand in the definition of a table."""
    for before, word in pairwise(words):
        if word == "DEFERRABLE" and before != "NOT":
            raise _unimplemented("deferrable")
        if before == "EXCLUDE" and word in ("USING", "("):
            raise _unimplemented("add constraint exclude using")
        if (before, word) == ("INHERITS", "("):
            raise _unimplemented("create table inherits")
        if word == "TABLESPACE":
            raise _unimplemented("tablespace")


def _unimplemented(what: str) -> Refusal:
    return Refusal("0A000", f'at or near "{what}": syntax error: unimplemented: this syntax')


def rewritten(statement: Statement, version: str, shown_jobs: ShownJobs) -> str:
    """A statement for PostgreSQL that does what CockroachDB would do, names resolved as there.

    Args:
        statement: to run.
        version: what `version()` says.
        shown_jobs: gives a query in parentheses for `[SHOW JOBS]`, or for `[SHOW JOB n]`.

    Raises:
        Refusal: it names what is not there.
    """
    tokens = statement.tokens
    pieces: list[str] = []
    position = statement.start
    end = statement.start + len(statement.text)
    text = statement.text
    index = 0
    while index < len(tokens):
        skip, piece = _instead(tokens, index, version, shown_jobs)
        if skip:
            pieces += (text[position - statement.start : tokens[index].start - statement.start], piece)
            position = tokens[index + skip - 1].end
        index += skip or 1
    pieces.append(text[position - statement.start : end - statement.start])
    whole = "".join(pieces)
    return whole + " AS version" if statement.words == ["SELECT", "VERSION", "(", ")"] else whole


def _instead(tokens: Sequence[Token], index: int, version: str, shown_jobs: ShownJobs) -> tuple[int, str]:
    """How many tokens from `index` on to replace, and by what."""
    token = tokens[index]
    if token.text == "[" and [each.text.upper() for each in tokens[index + 1 : index + 3]] in (
        ["SHOW", "JOBS"],
        ["SHOW", "JOB"],
    ):
        closing = next(at for at in range(index, len(tokens)) if tokens[at].text == "]")
        numbers = [int(each.text) for each in tokens[index:closing] if each.text.isdigit()]
        return closing + 1 - index, shown_jobs(numbers[0] if numbers else None)
    if token.kind not in (WORD, QUOTED_NAME):
        return 0, ""
    name = token.text.strip('"').lower()
    after = tokens[index + 1].text if index + 1 < len(tokens) else ""
    if after == "." and name in ("crdb_internal", "system"):
        what = f"{name}.{tokens[index + 2].text}" if index + 2 < len(tokens) else name
        raise Refusal("42501", f"Access to {what} is restricted: unsafe internals", violation=True)
    if after == ".":
        return _qualified(tokens, index, name, version, shown_jobs)
    if name in _NO_COLUMNS:
        raise Refusal("42703", f'column "{name}" does not exist')
    if after == "(":
        return _called(tokens, index, name, version)
    if name in ("attishidden", "is_hidden"):
        return 1, "false" if name == "attishidden" else "'NO'"
    if name.startswith(_NO_RELATIONS):
        raise Refusal("42P01", f'relation "{name}" does not exist')
    return 0, ""


def _qualified(
    tokens: Sequence[Token], index: int, name: str, version: str, shown_jobs: ShownJobs
) -> tuple[int, str]:
    """The same of a name with its qualifier, where the replacement has none."""
    following = tokens[index + 2].text.lower() if index + 2 < len(tokens) else ""
    if name == "pg_catalog" or following in ("attishidden", "is_hidden"):
        skip, piece = _instead(tokens, index + 2, version, shown_jobs)
        return (skip + 2, piece) if skip else (0, "")
    return 0, ""


def _called(tokens: Sequence[Token], index: int, name: str, version: str) -> tuple[int, str]:
    """The same of a function's call."""
    closing = _closing(tokens, index + 1)
    if name == "version":
        return closing + 1 - index, literal(version)
    if name == "current_timestamp":
        return closing + 1 - index, "current_timestamp"
    if name in ADVISORY_STUBS:
        return closing + 1 - index, ADVISORY_STUBS[name]
    if name in ("current_setting", "set_config") and tokens[index + 2].kind == STRING:
        setting = tokens[index + 2].text.strip("'").lower()
        if setting in settings.OWN:
            return 3, f"{name}({literal(settings.kept_as(setting))}"
        if setting not in settings.SHARED | settings.READ_ONLY:
            raise unknown_setting(setting)
    if name.startswith(_NO_FUNCTIONS) and name not in _FUNCTIONS:
        raise Refusal("42883", f"unknown function: {name}()")
    return 0, ""


def _closing(tokens: Sequence[Token], opening: int) -> int:
    depth = 0
    for index in range(opening, len(tokens)):
        depth += (tokens[index].text == "(") - (tokens[index].text == ")")
        if not depth:
            return index
    return len(tokens) - 1


def uses_advisory_locks(statement: Statement) -> bool:
    """Whether it calls any advisory lock function: an adapter that does believes in what is not there."""
    return any(token.kind == WORD and "advisory" in token.text.lower() for token in statement.tokens)


def unknown_setting(name: str) -> Refusal:
    """What the server says of a setting that it does not have."""
    return Refusal(
        "42704", f'unrecognized configuration parameter "{name}"', name == "allow_unsafe_internals"
    )


def literal(text: str) -> str:
    """A string constant."""
    return "'" + text.replace("'", "''") + "'"
