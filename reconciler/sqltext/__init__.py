"""SQL as text: tokens, statements, digests, places. Knows files' texts and nothing of databases."""

from reconciler.sqltext.analysis import (
    SYNTAX_ERROR,
    analyse,
    split,
    statement_losses,
    transactional,
)
from reconciler.sqltext.checksum import digest, normalise_line_ends, token_checksum
from reconciler.sqltext.clientside import outer_comments
from reconciler.sqltext.cockroachdb import StatementKind, kind_of
from reconciler.sqltext.cockroachdb_intents import LOOKED_AT, cockroachdb_intent_of
from reconciler.sqltext.description import Analysis, invalid
from reconciler.sqltext.intents import (
    OPAQUE,
    REINDEX,
    REPEATABLE,
    UNNAMED,
    Intent,
    intent_digest,
    intent_of,
)
from reconciler.sqltext.lexer import LexicalError, first_token
from reconciler.sqltext.place import excerpt, locate, picture
from reconciler.sqltext.progress import Chain, statements_digest
from reconciler.sqltext.sending import Sendable, sendable
from reconciler.sqltext.settings import settings_in_force
from reconciler.sqltext.states import (
    ABSENT,
    BUILDING,
    INVALID,
    PENDING,
    VALID,
    IndexOn,
    indexes_in,
    state_word,
)

__all__ = [
    "ABSENT",
    "BUILDING",
    "INVALID",
    "LOOKED_AT",
    "OPAQUE",
    "PENDING",
    "REINDEX",
    "REPEATABLE",
    "SYNTAX_ERROR",
    "UNNAMED",
    "VALID",
    "Analysis",
    "Chain",
    "IndexOn",
    "Intent",
    "LexicalError",
    "Sendable",
    "StatementKind",
    "analyse",
    "cockroachdb_intent_of",
    "digest",
    "excerpt",
    "first_token",
    "indexes_in",
    "intent_digest",
    "intent_of",
    "invalid",
    "kind_of",
    "locate",
    "normalise_line_ends",
    "outer_comments",
    "picture",
    "sendable",
    "settings_in_force",
    "split",
    "state_word",
    "statement_losses",
    "statements_digest",
    "token_checksum",
    "transactional",
]
