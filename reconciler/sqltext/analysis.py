"""What there is to know of a script before it runs: its statements, and what they do to transactions and data."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model import COCKROACHDB, POSTGRESQL, Directives, Script, Statement
from reconciler.sqltext import libpgquery
from reconciler.sqltext.classification import makes_temporary
from reconciler.sqltext.clientside import ServerText, server_text
from reconciler.sqltext.description import Analysis, describe, describe_for_cockroachdb, invalid
from reconciler.sqltext.lexer import LexicalError, tokens, without_comments
from reconciler.sqltext.loss import data_loss
from reconciler.sqltext.splitter import statements as split_tokens

SYNTAX_ERROR = "42601"
"""The SQLSTATE the server itself gives for it."""


def analyse(script: Script, *, strict: bool = False, engine: str = POSTGRESQL) -> Analysis:
    """Split `script` and look at each statement.

    For PostgreSQL its own grammar splits. Where it rejects the text, our lexer says what nobody could run, and splits the rest.
    Either way what is left between the statements must be blanks, comments and semicolons, so none is ever dropped. Rows
    of a COPY and lines of pg_dump for psql alone are cut out before. For CockroachDB, whose grammar is another one, our lexer
    splits and the server has the last word.

    Args:
        script: the SQL of one direction.
        strict: True refuses what PostgreSQL 18's grammar rejects, before a server is asked; for checking files. False
            leaves the last word to the server, which may be newer; our lexer's statements stand then. Means nothing for
            CockroachDB.
        engine: the server that is to run it, `POSTGRESQL` or `COCKROACHDB`.

    Raises:
        ProblemError: `MigrationInvalid`, with place and excerpt.
    """
    _refuse_unsendable(script)
    try:
        sql = server_text(script.text)
    except LexicalError as error:
        raise invalid(script, error.offset, error.message, error.remedy) from error
    try:
        if engine == COCKROACHDB:
            return describe_for_cockroachdb(script, sql)
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
    atomicity unasked: a mix without the directive is refused. On CockroachDB, which has no such thing to lose, one statement
    that needs to stand alone makes all of them run one by one.

    Raises:
        ProblemError: `MigrationInvalid`, for such a mix, for BEGIN, COMMIT and the like in a transactional script (on
            CockroachDB in any), and for a transaction of the script's own that it leaves open.
    """
    if analysis.loses_track is not None:
        statement, instead = analysis.loses_track
        raise invalid(
            analysis.script,
            statement.offset,
            f"{_headline(statement)} cannot be part of a migration",
            f"write {instead}",
        )
    if analysis.engine == COCKROACHDB:
        return _transactional_on_cockroachdb(directives, analysis)
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


def _transactional_on_cockroachdb(directives: Directives, analysis: Analysis) -> bool:
    if analysis.transaction_control is not None:
        statement = analysis.transaction_control
        raise invalid(
            analysis.script,
            statement.offset,
            f"{_headline(statement)} controls a transaction, and on CockroachDB no migration can have one of its own: "
            "every change of the schema commits by itself",
            "remove it; a migration that changes rows and no schema runs as one transaction, and is tried again as a whole",
        )
    if not directives.no_transaction and not any(analysis.needs_autocommit):
        return True
    _refuse_temporary(analysis)
    return False


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


def _headline(statement: Statement) -> str:
    """The first words of a statement, enough to recognise it."""
    words: Sequence[str] = statement.text.split(None, 4)
    return " ".join(words[:4]) + (" ..." if len(words) > 4 else "")
