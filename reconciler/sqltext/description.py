"""What each statement of a script does to transactions and data, once it is known where the statements are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from reconciler.model import COCKROACHDB, POSTGRESQL, Problem, ProblemError, Reason, Script, Statement
from reconciler.sqltext.classification import (
    controls_transaction,
    detaches_slot,
    drops_subscription,
    is_telling,
    loses_track,
    needs_autocommit,
)
from reconciler.sqltext.clientside import Rows, ServerText
from reconciler.sqltext.cockroachdb import StatementKind, kind_of, refuse_byte_escapes, untracked
from reconciler.sqltext.lexer import Token, first_token, tokens
from reconciler.sqltext.libpgquery import Piece
from reconciler.sqltext.loss import data_loss
from reconciler.sqltext.place import excerpt, locate
from reconciler.sqltext.splitter import FROM_CLIENT, TO_CLIENT, copy_partner
from reconciler.sqltext.splitter import statements as split_tokens

_NO_END = frozenset(" \t\n\r\f\v/")
"""What may stand before a `;` and is no part of a statement: blanks, or the end of a comment."""
_BEGINS = ("BEGIN", "START")


class Analysis(NamedTuple):
    """What a script holds.

    `statements` in the order they run; `needs_autocommit` says of each whether the server refuses it inside a
    transaction, or would end the transaction for it; `transaction_control` is the first statement that begins or ends a transaction (savepoints do not);
    `data_loss` names what is thrown away, in words. `script` is what was analysed. `loses_track` is the first statement
    after which nobody could tell what is in force, and what to write instead. `left_open` begins a transaction of the
    script's own that the script does not end. `engine` is the server it was analysed for; `kinds` is told for CockroachDB
    alone, one for each statement.
    """

    statements: tuple[Statement, ...]
    needs_autocommit: tuple[bool, ...]
    transaction_control: Statement | None
    data_loss: tuple[str, ...]
    script: Script = Script("", "", 1)
    loses_track: tuple[Statement, str] | None = None
    left_open: Statement | None = None
    engine: str = POSTGRESQL
    kinds: tuple[StatementKind, ...] = ()


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


def describe(script: Script, pieces: Sequence[Piece], sql: ServerText) -> Analysis:
    """Look at each of `pieces`, the statements of `sql` in order, which is what of `script` is SQL.

    Raises:
        ProblemError: a token is in none of them, rows belong to none, or a `COPY` is to the client or without its rows.
    """
    rows = {each.statement: each for each in sql.rows}
    statements = []
    alone = []
    control = opened = None
    no_track: tuple[Statement, str] | None = None
    losses: list[str] = []
    slot_detached = False
    for statement in _statements(script, pieces, sql):
        if not is_telling(statement.text):
            statements.append(statement)
            alone.append(False)
            continue
        part = list(tokens(statement.text))
        partner = copy_partner(part)
        if partner == TO_CLIENT:
            raise _copies_to_client(script, statement)
        if partner == FROM_CLIENT:
            statement = _with_rows(script, statement, rows.pop(statement.offset, None))
        statements.append(statement)
        slot_detached = slot_detached or detaches_slot(part)
        alone.append(needs_autocommit(part) and not (slot_detached and drops_subscription(part)))
        if controls_transaction(part):
            control = control or statement
            # within a transaction another BEGIN is only warned of, and one COMMIT ends it
            opened = opened or statement if part[0].text.upper() in _BEGINS else None
        if no_track is None and (instead := loses_track(part)):
            no_track = statement, instead
        losses.extend(data_loss(part))
    for orphan in rows.values():
        raise _nobodys(script, orphan.start)
    return Analysis(tuple(statements), tuple(alone), control, tuple(losses), script, no_track, opened)


def describe_for_cockroachdb(script: Script, sql: ServerText) -> Analysis:
    """Look at each statement of `sql`, which is what of `script` is SQL.

    Raises:
        ProblemError: a token is in none of them, or there are rows to be sent or got.
        LexicalError: there are no tokens from some point on, or a literal that not everybody reads alike.
    """
    parts = list(split_tokens(sql.text))
    pieces = [Piece(part[0].start, part[-1].end) for part in parts]
    statements = []
    kinds = []
    control: Statement | None = None
    no_track: tuple[Statement, str] | None = None
    losses: list[str] = []
    for statement, part in zip(_statements(script, pieces, sql), parts, strict=True):
        refuse_byte_escapes(part)
        _refuse_copy(script, statement, part)
        kind = kind_of(part)
        statements.append(statement)
        kinds.append(kind)
        if kind is StatementKind.TRANSACTION:
            control = control or statement
        elif no_track is None and (instead := untracked(part)):
            no_track = statement, instead
        losses.extend(data_loss(part))
    alone = tuple(kind is StatementKind.SCHEMA for kind in kinds)
    return Analysis(
        tuple(statements),
        alone,
        control,
        tuple(losses),
        script,
        no_track,
        engine=COCKROACHDB,
        kinds=tuple(kinds),
    )


def _refuse_copy(script: Script, statement: Statement, part: Sequence[Token]) -> None:
    """Raise for rows that CockroachDB takes or gives in a message of their own alone, which no record can share."""
    partner = copy_partner(part)
    if partner == TO_CLIENT:
        raise _copies_to_client(script, statement)
    if partner == FROM_CLIENT:
        raise invalid(
            script,
            statement.offset,
            "COPY ... FROM STDIN cannot be part of a migration for CockroachDB, which takes it only in a message of its own: "
            "its rows and the record of them could not be committed together",
            "write the rows as INSERT or UPSERT; load many of them by IMPORT INTO, outside of migrations",
        )


def _copies_to_client(script: Script, statement: Statement) -> ProblemError:
    return invalid(
        script,
        statement.offset,
        "COPY ... TO STDOUT has nowhere to send its rows",
        "remove it from the migration",
    )


def _statements(script: Script, pieces: Sequence[Piece], sql: ServerText) -> Iterator[Statement]:
    """Yield the statement in each of `pieces`, and make certain that nothing stands between them.

    Raises:
        ProblemError: a token is in none of them.
    """
    text, whole = sql.text, script.text
    line, line_start, seen, covered = script.first_line, 0, 0, 0
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
        yield Statement(text[start:end], offset, line, offset - line_start + 1)
    _next_token(script, sql, covered, len(text))


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
