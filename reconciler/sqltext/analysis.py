"""What there is to know of a script before it runs: its statements, and what they do to transactions and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reconciler.model import Directives, Problem, ProblemError, Reason, Script, Statement
from reconciler.sqltext import libpgquery
from reconciler.sqltext.classification import (
    controls_transaction,
    detaches_slot,
    drops_subscription,
    is_telling,
    needs_autocommit,
)
from reconciler.sqltext.lexer import LexicalError, first_token, tokens, without_comments
from reconciler.sqltext.loss import data_loss
from reconciler.sqltext.place import excerpt, locate
from reconciler.sqltext.splitter import refuse_copy
from reconciler.sqltext.splitter import statements as split_tokens

SYNTAX_ERROR = "42601"
"""The SQLSTATE the server itself gives for it."""


class Analysis(NamedTuple):
    """What a script holds.

    `statements` in the order they run; `needs_autocommit` says of each whether the server refuses it inside a
    transaction; `transaction_control` is the first statement that begins or ends a transaction (savepoints do not);
    `data_loss` names what is thrown away, in words. `script` is what was analysed.
    """

    statements: tuple[Statement, ...]
    needs_autocommit: tuple[bool, ...]
    transaction_control: Statement | None
    data_loss: tuple[str, ...]
    script: Script = Script("", "", 1)


def analyse(script: Script, *, strict: bool = False) -> Analysis:
    """Split `script` and look at each statement.

    PostgreSQL's own grammar splits. Where it rejects the text, our lexer says what nobody could run, and splits the rest.
    Either way what is left between the statements must be blanks, comments and semicolons, so none is ever dropped.

    Args:
        script: the SQL of one direction.
        strict: True refuses what PostgreSQL 18's grammar rejects, before a server is asked; for checking files. False
            leaves the last word to the server, which may be newer or CockroachDB; our lexer's statements stand then.

    Raises:
        ProblemError: `MigrationInvalid`, with place and excerpt.
    """
    _refuse_unsendable(script)
    try:
        try:
            pieces = libpgquery.split(script.text)
        except libpgquery.GrammarError as error:
            pieces = _without_the_grammar(script, error, strict=strict)
        return describe(script, pieces)
    except LexicalError as error:
        raise invalid(script, error.offset, error.message, error.remedy) from error


def statement_losses(statement: Statement) -> tuple[str, ...]:
    """Return what data one statement of an analysis throws away, in words."""
    return data_loss(tuple(tokens(statement.text)))


def split(script: Script) -> tuple[Statement, ...]:
    """Return the statements of `script`; see `analyse`."""
    return analyse(script).statements


def transactional(directives: Directives, analysis: Analysis) -> bool:
    """Decide whether a script runs as one transaction: True, or statement by statement: False.

    It is not transactional if its file says so, or if each of its statements needs to stand alone. Nobody loses
    atomicity unasked: a mix without the directive is refused.

    Raises:
        ProblemError: `MigrationInvalid`, for such a mix, and for BEGIN, COMMIT and the like in a transactional script.
    """
    if directives.no_transaction:
        return False
    if analysis.statements and all(analysis.needs_autocommit):
        return False
    for statement, alone in zip(analysis.statements, analysis.needs_autocommit, strict=True):
        if alone:
            raise invalid(
                analysis.script,
                statement.offset,
                f"{_headline(statement)} cannot run inside a transaction, and other statements of this script can",
                "move it to a migration of its own, or write `-- reconciler: no-transaction` before the first section "
                "to run each statement by itself",
            )
    if analysis.transaction_control is not None:
        statement = analysis.transaction_control
        raise invalid(
            analysis.script,
            statement.offset,
            f"{_headline(statement)} controls a transaction, and the migration already runs inside one",
            "remove it, or write `-- reconciler: no-transaction` before the first section",
        )
    return True


def invalid(script: Script, offset: int, message: str, remedy: str, *, sqlstate: str = "") -> ProblemError:
    """Return the error for something at `offset` of `script`."""
    return ProblemError(
        Problem(
            reason=Reason.MIGRATION_INVALID,
            message=message,
            remedy=remedy,
            place=locate(script, offset),
            excerpt=excerpt(script, offset),
            sqlstate=sqlstate,
        )
    )


def _refuse_unsendable(script: Script) -> None:
    """Raise for characters that no server takes, wherever they stand."""
    nul = script.text.find("\0")
    if nul >= 0:
        raise invalid(script, nul, "a NUL character stands here", "remove it; SQL text cannot hold one")
    try:
        script.text.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            script, error.start, "half of a surrogate pair stands here, which is no character", "remove it"
        ) from error


def _without_the_grammar(
    script: Script, error: libpgquery.GrammarError, *, strict: bool
) -> list[libpgquery.Piece]:
    """Return the pieces of a text that the grammar rejects with `error`."""
    parts = list(split_tokens(script.text))
    without = without_comments(script.text)
    if without != script.text:
        # Unlike the server, the library's scanner does not let a comment stand between the parts of a string that goes
        # on in the next line. Without the comments it says the same of all other text.
        try:
            return libpgquery.split(without)
        except libpgquery.GrammarError:
            pass
    if strict:
        offset = error.offset
        if offset >= len(script.text) and parts:
            # "at end of input": show the last thing that is there, and not a comment after it
            offset = parts[-1][-1].start
        remedy = "correct the SQL; PostgreSQL 18's grammar does not accept it"
        raise invalid(script, offset, error.message, remedy, sqlstate=SYNTAX_ERROR) from error
    return [libpgquery.Piece(part[0].start, part[-1].end) for part in parts]


def describe(script: Script, pieces: Sequence[libpgquery.Piece]) -> Analysis:
    """Look at each of `pieces`, the statements of `script` in order.

    Raises:
        ProblemError: a token is in none of them.
        LexicalError: `COPY` from or to the client.
    """
    text = script.text
    statements = []
    alone = []
    control = None
    losses: list[str] = []
    slot_detached = False
    line, line_start, seen, covered = script.first_line, 0, 0, 0
    for piece in pieces:
        start = _next_token(script, covered, piece.start)
        covered = piece.end
        end = _last_token_end(text, start, piece.end)
        line += text.count("\n", seen, start)
        line_start = text.rfind("\n", seen, start) + 1 or line_start
        seen = start
        statement = Statement(text[start:end], start, line, start - line_start + 1)
        statements.append(statement)
        if not is_telling(statement.text):
            alone.append(False)
            continue
        part = list(tokens(statement.text))
        refuse_copy(part, start)
        slot_detached = slot_detached or detaches_slot(part)
        alone.append(needs_autocommit(part) and not (slot_detached and drops_subscription(part)))
        if control is None and controls_transaction(part):
            control = statement
        losses.extend(data_loss(part))
    _next_token(script, covered, len(text))
    return Analysis(tuple(statements), tuple(alone), control, tuple(losses), script)


def _next_token(script: Script, covered: int, start: int) -> int:
    """Return where the next token begins, once it is certain that none stands between `covered` and `start`."""
    position = first_token(script.text, covered, len(script.text))
    if position < start:
        raise invalid(
            script,
            position,
            "this text would belong to no statement",
            "split the script here into two migrations, and please report this as an error of reconciler",
        )
    return position


def _last_token_end(text: str, start: int, end: int) -> int:
    """Where the last token between `start` and `end` ends."""
    stripped = text[start:end].rstrip(" \t\n\r\f\v")
    last_line = stripped[stripped.rfind("\n") + 1 :]
    if "--" in last_line or stripped.endswith("*/"):
        for token in tokens(stripped):
            end = start + token.end
        return end
    return start + len(stripped)


def _headline(statement: Statement) -> str:
    """The first words of a statement, enough to recognise it."""
    words: Sequence[str] = statement.text.split(None, 4)
    return " ".join(words[:4]) + (" ..." if len(words) > 4 else "")
