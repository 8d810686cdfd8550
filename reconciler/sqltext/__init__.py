"""SQL as text: tokens, statements, digests, places. Knows files' texts and nothing of databases."""

from reconciler.sqltext.analysis import (
    SYNTAX_ERROR,
    Analysis,
    analyse,
    invalid,
    split,
    statement_losses,
    transactional,
)
from reconciler.sqltext.checksum import digest, normalise_line_ends, token_checksum
from reconciler.sqltext.clientside import outer_comments
from reconciler.sqltext.intents import OPAQUE, REPEATABLE, Intent, intent_digest, intent_of
from reconciler.sqltext.lexer import LexicalError, first_token
from reconciler.sqltext.place import excerpt, locate, picture
from reconciler.sqltext.progress import Chain, statements_digest
from reconciler.sqltext.sending import Sendable, sendable

__all__ = [
    "OPAQUE",
    "REPEATABLE",
    "SYNTAX_ERROR",
    "Analysis",
    "Chain",
    "Intent",
    "LexicalError",
    "Sendable",
    "analyse",
    "digest",
    "excerpt",
    "first_token",
    "intent_digest",
    "intent_of",
    "invalid",
    "locate",
    "normalise_line_ends",
    "outer_comments",
    "picture",
    "sendable",
    "split",
    "statement_losses",
    "statements_digest",
    "token_checksum",
    "transactional",
]
