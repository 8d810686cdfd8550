"""What there is to know of a script before it runs: its statements, and what they do to transactions and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from reconciler.model import Directives, Problem, ProblemError, Reason, Script, Statement
from reconciler.sqltext import libpgquery
from reconciler.sqltext.classification import (
    controls_transaction,
    detaches_slot,
    drops_subscription,
    is_telling,
    loses_track,
    makes_temporary,
    needs_autocommit,
)
from reconciler.sqltext.clientside import Rows, ServerText, server_text
from reconciler.sqltext.lexer import LexicalError, first_token, tokens, without_comments
from reconciler.sqltext.loss import data_loss
from reconciler.sqltext.place import excerpt, locate
from reconciler.sqltext.splitter import FROM_CLIENT, TO_CLIENT, copy_partner
from reconciler.sqltext.splitter import statements as split_tokens

_NO_END = frozenset(" \t\n\r\f\v/")
"""What may stand before a `;` and is no part of a statement: blanks, or the end of a comment."""
_BEGINS = ("BEGIN", "START")
SYNTAX_ERROR = "42601"
"""The SQLSTATE the server itself gives for it."""


class Analysis(NamedTuple):
    """What a script holds.

    `statements` in the order they run; `needs_autocommit` says of each whether the server refuses it inside a
    transaction; `transaction_control` is the first statement that begins or ends a transaction (savepoints do not);
    `data_loss` names what is thrown away, in words. `script` is what was analysed. `loses_track` is the first statement
    after which nobody could tell what is in force, and what to write instead. `left_open` begins a transaction of the
    script's own that the script does not end.
    """

    statements: tuple[Statement, ...]
    needs_autocommit: tuple[bool, ...]
    transaction_control: Statement | None
    data_loss: tuple[str, ...]
    script: Script = Script("", "", 1)
    loses_track: tuple[Statement, str] | None = None
    left_open: Statement | None = None


def analyse(script: Script, *, strict: bool = False) -> Analysis:
    """Split `script` and look at each statement.

    PostgreSQL's own grammar splits. Where it rejects the text, our lexer says what nobody could run, and splits the rest.
    Either way what is left between the statements must be blanks, comments and semicolons, so none is ever dropped. Rows
    of a COPY and lines of pg_dump for psql alone are cut out before.

    Args:
        script: the SQL of one direction.
        strict: True refuses what PostgreSQL 18's grammar rejects, before a server is asked; for checking files. False
            leaves the last word to the server, which may be newer or CockroachDB; our lexer's statements stand then.

    Raises:
        ProblemError: `MigrationInvalid`, with place and excerpt.
    """
    _refuse_unsendable(script)
    try:
        sql = server_text(script.text)
    except LexicalError as error:
        raise invalid(script, error.offset, error.message, error.remedy) from error
    try:
        try:
            pieces = libpgquery.split(sql.text)
        except libpgquery.GrammarError as error:
            pieces = _without_the_grammar(script, sql, error, strict=strict)
        return describe(script, pieces, sql)
    except LexicalError as error:
        raise invalid(script, sql.original(error.offset), error.message, error.remedy) from error


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
        ProblemError: `MigrationInvalid`, for such a mix, for BEGIN, COMMIT and the like in a transactional script, and for
            a transaction of the script's own that it leaves open.
    """
    if analysis.loses_track is not None:
        statement, instead = analysis.loses_track
        raise invalid(
            analysis.script,
            statement.offset,
            f"{_headline(statement)} cannot be part of a migration",
            f"write {instead}",
        )
    if directives.no_transaction:
        _refuse_left_open(analysis)
        _refuse_temporary(analysis)
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


def _refuse_left_open(analysis: Analysis) -> None:
    """Raise for a transaction that would be rolled back after the last statement, when the others are in force."""
    if analysis.left_open is not None:
        raise invalid(
            analysis.script,
            analysis.left_open.offset,
            f"{_headline(analysis.left_open)} begins a transaction that nothing in this script ends",
            "end it with COMMIT, or remove it",
        )


def _refuse_temporary(analysis: Analysis) -> None:
    """Raise for what is gone when the script goes on in another session: its name may then mean a table that stays."""
    for statement in analysis.statements:
        # most need not be taken apart
        if "temp" in statement.text.lower() and makes_temporary(list(tokens(statement.text))):
            raise invalid(
                analysis.script,
                statement.offset,
                f"{_headline(statement)} makes something that ends with the session, and a script outside a transaction may "
                "have to go on in another one",
                "make an ordinary table, and drop it in the end; or add ON COMMIT DROP, between a BEGIN and a COMMIT of the "
                "script's own",
            )


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
    script: Script, sql: ServerText, error: libpgquery.GrammarError, *, strict: bool
) -> list[libpgquery.Piece]:
    """Return the pieces of a text that the grammar rejects with `error`."""
    parts = list(split_tokens(sql.text))
    without = without_comments(sql.text)
    if without != sql.text:
        # Unlike the server, the library's scanner does not let a comment stand between the parts of a string that goes
        # on in the next line. Without the comments it says the same of all other text.
        try:
            return libpgquery.split(without)
        except libpgquery.GrammarError:
            pass
    if strict:
        offset = error.offset
        if offset >= len(sql.text) and parts:
            # "at end of input": show the last thing that is there, and not a comment after it
            offset = parts[-1][-1].start
        remedy = "correct the SQL; PostgreSQL 18's grammar does not accept it"
        raise invalid(script, sql.original(offset), error.message, remedy, sqlstate=SYNTAX_ERROR) from error
    return [libpgquery.Piece(part[0].start, part[-1].end) for part in parts]


def describe(script: Script, pieces: Sequence[libpgquery.Piece], sql: ServerText) -> Analysis:
    """Look at each of `pieces`, the statements of `sql` in order, which is what of `script` is SQL.

    Raises:
        ProblemError: a token is in none of them, or rows belong to none.
        LexicalError: `COPY` to the client, or one from it without rows.
    """
    text = sql.text
    rows = {each.statement: each for each in sql.rows}
    statements = []
    alone = []
    control = opened = None
    untracked: tuple[Statement, str] | None = None
    losses: list[str] = []
    slot_detached = False
    line, line_start, seen, covered = script.first_line, 0, 0, 0
    whole = script.text
    for first, last in pieces:
        start = _next_token(script, sql, covered, first)
        covered = last
        end = _last_token_end(text, start, last)
        offset = sql.original(start) if sql.cuts else start
        newlines = whole.count("\n", seen, offset)
        if newlines:
            line += newlines
            line_start = whole.rfind("\n", seen, offset) + 1
        seen = offset
        statement = Statement(text[start:end], offset, line, offset - line_start + 1)
        if not is_telling(statement.text):
            statements.append(statement)
            alone.append(False)
            continue
        part = list(tokens(statement.text))
        partner = copy_partner(part)
        if partner == TO_CLIENT:
            raise LexicalError(
                start, "COPY ... TO STDOUT has nowhere to send its rows", "remove it from the migration"
            )
        if partner == FROM_CLIENT:
            statement = _with_rows(script, statement, rows.pop(offset, None))
        statements.append(statement)
        slot_detached = slot_detached or detaches_slot(part)
        alone.append(needs_autocommit(part) and not (slot_detached and drops_subscription(part)))
        if controls_transaction(part):
            control = control or statement
            # within a transaction another BEGIN is only warned of, and one COMMIT ends it
            opened = opened or statement if part[0].text.upper() in _BEGINS else None
        if untracked is None and (instead := loses_track(part)):
            untracked = statement, instead
        losses.extend(data_loss(part))
    _next_token(script, sql, covered, len(text))
    for orphan in rows.values():
        raise _nobodys(script, orphan.start)
    return Analysis(tuple(statements), tuple(alone), control, tuple(losses), script, untracked, opened)


def _with_rows(script: Script, statement: Statement, rows: Rows | None) -> Statement:
    """`statement`, a COPY from the client, with the rows that follow it."""
    if rows is None:
        raise invalid(
            script,
            statement.offset,
            "no rows were found for this COPY ... FROM STDIN",
            "put the COPY, its rows and the line `\\.` outside of anything else",
        )
    return replace(statement, copy_data=script.text[rows.start : rows.end], copy_offset=rows.start)


def _next_token(script: Script, sql: ServerText, covered: int, start: int) -> int:
    """Return where the next token begins, once it is certain that none stands between `covered` and `start`."""
    position = first_token(sql.text, covered, len(sql.text))
    if position < start:
        raise _nobodys(script, sql.original(position))
    return position


def _nobodys(script: Script, offset: int) -> ProblemError:
    return invalid(
        script,
        offset,
        "this text would belong to no statement",
        "split the script here into two migrations, and please report this as an error of reconciler",
    )


def _last_token_end(text: str, start: int, end: int) -> int:
    """Where the last token between `start` and `end` ends."""
    if text.startswith(";", end) and text[end - 1] not in _NO_END:
        # what a `;` ends holds no open comment
        return end
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
