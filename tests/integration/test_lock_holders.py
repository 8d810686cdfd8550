"""What those who wait for the lock are told of whoever holds it and does not say who it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reconciler.database.reading import ADVISORY_KEY
from tests.command_line import CommandLine, manifest, three_tables
from tests.git import Repository

WHY = ("--reason", "why", "--yes")


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, fresh_database: str) -> Path:
    """A repository that declares version 2 of 3, at which its database is, and is the working directory."""
    short = "timeouts: {acquire: 0s}\n"
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2, more=short), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    assert reconciler("up").exit == 0
    git_repository.commit("Raise", {"manifests/dev.yaml": manifest(3, more=short)})
    return git_repository.path


@pytest.fixture
def stranger(fresh_database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session that is none of ours, for the lock to be taken by it."""
    with psycopg.connect(fresh_database, autocommit=True, application_name="psql") as connection:
        yield connection


def test_a_holder_that_does_not_say_who_it_is_is_told_by_its_session(
    reconciler: CommandLine, declared: Path, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    stranger.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
    who = f"session {stranger.info.backend_pid} of user {stranger.info.user}, application psql"
    up = reconciler("up")
    assert up.exit == 3
    assert f"waiting for the lock, held by {who}" in up.err
    assert f"another process holds the lock of this database: {who}" in up.err
    assert "remedy: `reconciler unlock` shows it" in up.err
    for arguments in (("repair", "--mark-applied", "3", *WHY), ("up",)):
        answer = reconciler(*arguments, "--output", "json")
        assert answer.exit == 3, answer
        told = answer.json.get("results") or answer.json["databases"]
        problem = told[0]["problem"]
        assert problem["reason"] == "LockHeld"
        assert who in problem["message"]
        assert "`reconciler unlock` shows it" in problem["remedy"]
        assert "tried again" not in problem["remedy"]


def test_unlock_does_not_say_that_the_lock_is_free_while_others_hold_it(
    reconciler: CommandLine,
    declared: Path,
    stranger: psycopg.Connection[tuple[object, ...]],
    fresh_database: str,
) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as other:
        for each in (stranger, other):
            each.execute("SELECT pg_advisory_lock_shared(%s)", [ADVISORY_KEY])
        first = reconciler("unlock", *WHY)
        assert first.exit == 3
        assert "is freed" not in first.out
        left = [each.info.backend_pid for each in (stranger, other) if alive(each)]
        assert len(left) == 1
        assert f"session {left[0]}" in first.err
        assert "run the command again" in first.err
        second = reconciler("unlock", *WHY)
        assert (second.exit, "the lock is freed" in second.out) == (0, True)
        assert not alive(stranger)
        assert not alive(other)


def alive(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the server still serves it."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
