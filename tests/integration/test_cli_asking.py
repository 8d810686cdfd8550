"""Asking a person before anything is changed by their word, on real terminals and where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psycopg
import pytest

from reconciler.database.reading import ADVISORY_KEY
from tests.command_line import execute, execute_on_terminal, manifest, three_tables
from tests.git import Repository, git_environment
from tests.looking import applied

ARGUMENTS = ("repair", "--mark-applied", "1", "--reason", "why")


@pytest.fixture
def declared(git_repository: Repository) -> Repository:
    """A repository that declares version 2 of 3 for one database."""
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2), **three_tables()})
    return git_repository


def test_what_was_typed_before_the_question_does_not_answer_it(
    declared: Repository, fresh_database: str
) -> None:
    told = execute_on_terminal(
        *ARGUMENTS, folder=declared.path, ahead="y\n", answer="\n", ORDERS_DSN=fresh_database
    )
    assert (told.exit, "nothing was changed" in told.out) == (3, True)
    assert applied(fresh_database) == []


@pytest.mark.parametrize(
    ("sent", "exit", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_question_ends_its_line(
    declared: Repository, fresh_database: str, sent: int, exit: int, said: str
) -> None:
    told = execute_on_terminal(
        *ARGUMENTS, folder=declared.path, asked_for=lambda pid: os.kill(pid, sent), ORDERS_DSN=fresh_database
    )
    assert told.exit == exit
    assert told.out.endswith(f"Change dev so? [y/N] \n{said}\n")
    assert applied(fresh_database) == []


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("restored \udcff", "not UTF-8"),
        ("\x07\x1b", "the reason is empty"),
        ("\u200b \n", "the reason is empty"),
    ],
)
def test_a_reason_that_nobody_can_read_is_refused(
    declared: Repository, fresh_database: str, reason: str, said: str
) -> None:
    told = execute(
        "repair",
        "--mark-applied",
        "1",
        "--reason",
        reason,
        "--yes",
        folder=declared.path,
        ORDERS_DSN=fresh_database,
    )
    assert (told.exit, said in told.err) == (2, True), told.err
    assert "bug" not in told.err
    assert applied(fresh_database) == []


@pytest.mark.parametrize("more", [(), ("--yes",)])
def test_a_closed_standard_input_is_no_terminal(
    declared: Repository, fresh_database: str, more: tuple[str, ...]
) -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "reconciler", *ARGUMENTS, *more],
        cwd=declared.path,
        env={**git_environment(), "ORDERS_DSN": fresh_database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == (0 if more else 2), process.stderr
    assert ("there is no terminal to ask at" in process.stderr) is not bool(more)
    assert applied(fresh_database) == ([1] if more else [])


def test_a_connection_that_dies_while_the_question_stands_is_opened_anew(
    declared: Repository, fresh_database: str
) -> None:
    def end_all(_: int) -> None:
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'reconciler'"
            ).fetchall()
            assert ended == [(True,)]

    for arguments in (ARGUMENTS, ("baseline", "--version", "2", "--reason", "why")):
        told = execute_on_terminal(
            *arguments, folder=declared.path, answer="y\n", asked_for=end_all, ORDERS_DSN=fresh_database
        )
        assert told.exit == 0, told.out
    assert applied(fresh_database) == [1, 2]
    with psycopg.connect(fresh_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        told = execute_on_terminal(
            "unlock",
            "--reason",
            "why",
            folder=declared.path,
            answer="y\n",
            asked_for=end_all,
            ORDERS_DSN=fresh_database,
        )
        assert told.exit == 0, told.out
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
