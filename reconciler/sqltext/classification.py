"""What PostgreSQL will not do inside a transaction, and what would end one, told by a statement's words.

The list is that of the server's calls of `PreventInTransactionBlock`. Where the server looks at the catalogue (REINDEX
of a partitioned table, CALL of a procedure that commits) the words do not tell, and the directive `no-transaction` must.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from reconciler.sqltext.cursor import TokenCursor
from reconciler.sqltext.lexer import STRING, WORD, Token

_FALSE = frozenset({"FALSE", "OFF", "0", "NO", "N", "F"})
_STARTS = frozenset(
    {"ALTER", "CLUSTER", "COMMIT", "CREATE", "DISCARD", "DROP", "REINDEX", "ROLLBACK", "VACUUM"}
)
_TELLING = _STARTS | {
    "ABORT",
    "BEGIN",
    "COPY",
    "DELETE",
    "END",
    "EXPLAIN",
    "PREPARE",
    "START",
    "TRUNCATE",
    "WITH",
}
_PLAIN_CREATES = frozenset(
    {"FUNCTION", "OR", "POLICY", "PROCEDURE", "SEQUENCE", "TABLE", "TRIGGER", "TYPE", "VIEW"}
)
_known_kinds: dict[str, bool | tuple[str, ...]] = {}
"""What is known of first words as they were written: there are few ways to."""
_MOST_KINDS = 1000
_LONGEST_WORDS = 40
_FIRST_WORDS = re.compile(r"([A-Za-z]*)[ \t\n\r\f\v]*([A-Za-z]*)")
_TEMPORARY = frozenset({"TEMP", "TEMPORARY"})
_TEMPORARY_SCHEMA = "PG_TEMP"
_TEMPORARY_KINDS = frozenset({"TABLE", "VIEW", "SEQUENCE", "RECURSIVE"})
_SCOPES = frozenset({"LOCAL", "GLOBAL"})
_ENDS_NAME = frozenset(
    {
        "(",
        ")",
        ";",
        "AS",
        "ON",
        "OF",
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "WINDOW",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "FETCH",
        "FOR",
    }
    | {"UNION", "INTERSECT", "EXCEPT"}
)
"""What can stand behind the name of what is made, and is no name itself."""
_TRANSACTION_WORDS = frozenset({"WORK", "TRANSACTION"})


def is_telling(text: str) -> bool:
    """True when the statement `text` is of a kind that this package may have something to say about.

    Most of what a migration holds is not, and need not be taken apart.
    """
    match = _FIRST_WORDS.match(text)
    if match is None:
        return False
    words = match[0]
    kind = _known_kinds.get(words)
    if kind is None:
        kind = _kind(match[1].upper(), match[2].upper())
        if len(words) <= _LONGEST_WORDS and len(_known_kinds) < _MOST_KINDS:
            _known_kinds[words] = kind
    if isinstance(kind, bool):
        return kind
    lowered = text.lower()
    return any(word in lowered for word in kind)


def _kind(first: str, second: str) -> bool | tuple[str, ...]:
    """What the first two words of a statement say of `is_telling`: yes, no, or that one of the words returned decides."""
    if first == "CREATE" and second in ("INDEX", "UNIQUE"):
        return ("concurrently",)
    if first == "ALTER" and second == "TABLE":
        return ("drop", "detach")
    return first in _TELLING and (first != "CREATE" or second not in _PLAIN_CREATES)


def needs_autocommit(statement: Sequence[Token]) -> bool:
    """True when the server refuses `statement` inside a transaction block."""
    cursor = TokenCursor(statement)
    match cursor.take_any(_STARTS):
        case "VACUUM":
            return True
        case "CREATE":
            return _creates(cursor)
        case "DROP":
            if cursor.take("INDEX"):
                return cursor.take("CONCURRENTLY")
            return cursor.word in ("DATABASE", "TABLESPACE", "SUBSCRIPTION")
        case "ALTER":
            return _alters(cursor)
        case "REINDEX":
            return _reindexes(cursor)
        case "CLUSTER":
            cursor.skip_parentheses()
            cursor.take("VERBOSE")
            return cursor.at_end
        case "DISCARD":
            return cursor.word == "ALL"
        case "COMMIT" | "ROLLBACK":
            return cursor.word == "PREPARED"
        case _:
            return False


def controls_transaction(statement: Sequence[Token]) -> bool:
    """True when `statement` begins or ends a transaction. Savepoints stay within one."""
    cursor = TokenCursor(statement)
    if cursor.word in ("COMMIT", "ROLLBACK") and any(
        token.text.upper() == "PREPARED" for token in statement[1:2]
    ):
        return False
    if cursor.take("ROLLBACK"):
        cursor.take_any(_TRANSACTION_WORDS)
        return cursor.word != "TO"
    if cursor.take("START") or cursor.take("PREPARE"):
        return cursor.word == "TRANSACTION"
    return cursor.word in ("BEGIN", "COMMIT", "END", "ABORT")


def commits(statement: Sequence[Token]) -> bool:
    """True for a plain COMMIT or END, after which no transaction is open."""
    return statement[0].text.upper() in ("COMMIT", "END") and controls_transaction(statement)


def begins_read_only(statement: Sequence[Token]) -> bool:
    """True for a BEGIN or START TRANSACTION of a transaction that may only read."""
    modes = [token.text.upper() for token in statement]
    only = [
        after == "ONLY" for mode, after in pairwise(modes) if mode == "READ" and after in ("ONLY", "WRITE")
    ]
    return bool(only) and only[-1]


def is_concurrent(statement: Sequence[Token]) -> bool:
    """True when `statement` says CONCURRENTLY."""
    return any(token.kind == WORD and token.text.upper() == "CONCURRENTLY" for token in statement)


def loses_track(statement: Sequence[Token]) -> str:
    """What to write instead of a statement after which nobody could tell what is in force; empty for any other."""
    words = [token.text.upper() for token in statement]
    if words[0] in ("COMMIT", "END", "ROLLBACK", "ABORT") and words[-1] == "CHAIN" and "NO" not in words:
        return "COMMIT or ROLLBACK alone, and begin the next with BEGIN"
    if words[:2] == ["PREPARE", "TRANSACTION"]:
        return "COMMIT: a prepared transaction would hold its locks until somebody ends it"
    if words[:2] == ["DISCARD", "ALL"]:
        return "RESET ALL, DEALLOCATE ALL or DISCARD TEMP; DISCARD ALL would drop the lock that keeps others away"
    return ""


def makes_temporary(statement: Sequence[Token]) -> bool:
    """True for what makes a thing that ends with the session, and not already with its transaction."""
    words = [_keyword(token) for token in statement]
    if _follow(words, "ON", "COMMIT", "DROP"):
        return False
    if words[0] == "CREATE":
        return _creates_temporary(words)
    return any(_selects_into_temporary(words, at) for at, word in enumerate(words) if word == "INTO")


def _keyword(token: Token) -> str:
    """A token's text in upper case, and a name in quotes as the keyword that it stands for, if it stands for one here."""
    return _TEMPORARY_SCHEMA if token.text == '"pg_temp"' else token.text.upper()


def _creates_temporary(words: Sequence[str]) -> bool:
    at = 3 if words[1:3] == ["OR", "REPLACE"] else 1
    if words[at : at + 1] and words[at] in _SCOPES:
        at += 1
    if (
        words[at : at + 1]
        and words[at] in _TEMPORARY
        and _TEMPORARY_KINDS.intersection(words[at + 1 : at + 2])
    ):
        return True
    # the first name is that of what is made
    for before, word in pairwise(words[at:]):
        if word == "." or word in _ENDS_NAME:
            return before == _TEMPORARY_SCHEMA and word == "."
    return False


def _selects_into_temporary(words: Sequence[str], into: int) -> bool:
    """Whether a SELECT makes a temporary table at `into`; to the statements that write into a table, TEMP is a mere name."""
    if into and words[into - 1] in ("INSERT", "MERGE"):
        return False
    at = into + 1
    if words[at : at + 1] and words[at] in _SCOPES:
        at += 1
    if words[at : at + 1] and words[at] in _TEMPORARY:
        # without a name behind it, it is the name
        return at + 1 < len(words) and words[at + 1] not in _ENDS_NAME and words[at + 1] != "."
    at += sum(word in ("UNLOGGED", "TABLE") for word in words[at : at + 2])
    return words[at : at + 2] == [_TEMPORARY_SCHEMA, "."]


def _follow(words: Sequence[str], *wanted: str) -> bool:
    """Whether `wanted` stand one after the other somewhere in `words`."""
    count = len(wanted)
    return any(tuple(words[at : at + count]) == wanted for at in range(len(words) - count + 1))


def sets_session(statement: Sequence[Token]) -> bool:
    """True for what changes nothing but the session, and is to be done again in a new one."""
    cursor = TokenCursor(statement)
    if cursor.take("SELECT"):
        # as pg_dump writes it
        words = [token.text.upper() for token in statement[-2:]]
        return cursor.name().upper() in ("SET_CONFIG", "PG_CATALOG.SET_CONFIG") and words == ["FALSE", ")"]
    if cursor.take("SET"):
        # a setting of CockroachDB's whole cluster outlives every session
        return cursor.word not in ("LOCAL", "TRANSACTION", "CONSTRAINTS") and not cursor.take(
            "CLUSTER", "SETTING"
        )
    if cursor.take("PREPARE"):
        return cursor.word != "TRANSACTION"
    if cursor.take("RESET"):
        return not cursor.take("CLUSTER", "SETTING")
    return cursor.word in ("DEALLOCATE", "LISTEN", "UNLISTEN", "LOAD")


def detaches_slot(statement: Sequence[Token]) -> bool:
    """True for `ALTER SUBSCRIPTION ... SET (slot_name = NONE)`, after which a DROP SUBSCRIPTION may be in a transaction."""
    cursor = TokenCursor(statement)
    return cursor.take("ALTER", "SUBSCRIPTION") and _option(statement, "SLOT_NAME") == "NONE"


def drops_subscription(statement: Sequence[Token]) -> bool:
    """True for `DROP SUBSCRIPTION`."""
    return TokenCursor(statement).take("DROP", "SUBSCRIPTION")


def _creates(cursor: TokenCursor) -> bool:
    if cursor.take("INDEX") or cursor.take("UNIQUE", "INDEX"):
        return cursor.take("CONCURRENTLY")
    if cursor.take("SUBSCRIPTION"):
        tokens = cursor.rest()
        return not (
            _option(tokens, "CONNECT") in _FALSE
            or _option(tokens, "CREATE_SLOT") in _FALSE
            or _option(tokens, "SLOT_NAME") == "NONE"
        )
    return cursor.word in ("DATABASE", "TABLESPACE")


def _alters(cursor: TokenCursor) -> bool:
    if cursor.take("SYSTEM"):
        return True
    if cursor.take("DATABASE"):
        cursor.name()
        return cursor.take("SET", "TABLESPACE")
    if cursor.take("TABLE"):
        # DETACH PARTITION is never one of several actions
        return (
            cursor.seek("DETACH")
            and cursor.take("PARTITION")
            and cursor.name() != ""
            and cursor.take("CONCURRENTLY")
        )
    if cursor.take("SUBSCRIPTION"):
        cursor.name()
        tokens = cursor.rest()
        if cursor.take("REFRESH"):
            return _option(tokens, "COPY_DATA") not in _FALSE
        if cursor.take_any(frozenset({"SET", "ADD", "DROP"})):
            if cursor.word == "PUBLICATION":
                return _option(tokens, "REFRESH") not in _FALSE
            return _option(tokens, "FAILOVER") != "" or _option(tokens, "TWO_PHASE") != ""
    return False


def _reindexes(cursor: TokenCursor) -> bool:
    options = cursor.rest()
    if cursor.skip_parentheses():
        inside = options[: len(options) - len(cursor.rest())]
        setting = _option(inside, "CONCURRENTLY")
        if setting not in _FALSE and any(token.text.upper() == "CONCURRENTLY" for token in inside):
            return True
    if cursor.word in ("DATABASE", "SYSTEM", "SCHEMA"):
        return True
    return cursor.take_any(frozenset({"TABLE", "INDEX"})) != "" and cursor.word == "CONCURRENTLY"


def _option(statement: Sequence[Token], name: str) -> str:
    """The value of `name [=] value` among the options of `statement`, upper case and without quotes, or an empty string."""
    for index, token in enumerate(statement):
        if token.text.upper() == name and index:
            following = [each for each in statement[index + 1 : index + 3] if each.text != "="]
            if following and following[0].text not in (",", ")"):
                value = following[0]
                return (value.text.strip("'") if value.kind == STRING else value.text).upper()
    return ""
