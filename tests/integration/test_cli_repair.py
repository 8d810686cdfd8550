"""`baseline`, `repair`, `unlock` and `history` against real repositories and real databases."""

from __future__ import annotations

import io
from pathlib import Path

import psycopg
import pytest

from reconciler.database.reading import ADVISORY_KEY
from tests.command_line import (
    Answer,
    CommandLine,
    execute,
    execute_on_terminal,
    manifest,
    migration,
    three_tables,
)
from tests.daemon import Daemon
from tests.git import Repository
from tests.looking import applied, journal, rows
from tests.servers import TestServer

WHY = ("--reason", "looked at it, INC-7", "--yes")


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, any_database: str) -> Repository:
    """A repository that declares version 2 of 3 for one database, and is the working directory."""
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(2), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=any_database)
    return git_repository


def told_on_a_terminal(answer: str, *arguments: str, folder: Path, dsn: str) -> Answer:
    """Run a command at a terminal of 100 columns, and answer its question."""
    return execute_on_terminal(*arguments, folder=folder, answer=answer, COLUMNS="100", ORDERS_DSN=dsn)


def test_baseline_takes_a_database_over_that_already_has_the_schema(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    rows(any_database, "CREATE TABLE a (id int); CREATE TABLE b (id int)")
    # the usual way to find out that it is needed
    assert reconciler("up").exit == 1
    answer = reconciler("baseline", "--version", "2", *WHY)
    assert (answer.exit, answer.err) == (0, "")
    assert "dev: migrations 1 to 2 count as applied from now on, 2 rows in all" in answer.out
    assert applied(any_database) == [1, 2]
    assert reconciler("plan").out == "dev: in sync at version 2\n"
    events = journal(any_database, "baseline")
    assert [(each["version"], each["outcome"], each["message"]) for each in events] == [
        (1, "baselined", "looked at it, INC-7"),
        (2, "baselined", "looked at it, INC-7"),
    ]
    assert events[0]["os_user"]
    assert events[0]["git_revision"] == declared.head
    # what it takes to go down again is there
    declared.commit("Lower", {"manifests/dev.yaml": manifest(0), "migrations/00002_create_b.sql": None})
    assert reconciler("down", "--version", "0").exit == 0
    assert applied(any_database) == []


def test_baseline_again_has_nothing_to_do_and_goes_on_from_a_beginning(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    assert reconciler("baseline", "--version", "1", *WHY).exit == 0
    again = reconciler("baseline", "--version", "1", *WHY)
    assert (again.exit, again.out) == (
        0,
        "dev: nothing to do: its history has every migration up to 1 already\n",
    )
    more = reconciler("baseline", "--version", "2", *WHY)
    assert "migration 2 (create_b) counts as applied" in more.out
    assert applied(any_database) == [1, 2]


def test_baseline_refuses_what_it_cannot_vouch_for(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    unknown = reconciler("baseline", "--version", "9", *WHY)
    assert unknown.exit == 3
    assert "no migration has the number 9; the newest is 3" in unknown.err
    above = reconciler("baseline", "--version", "3", *WHY)
    assert above.exit == 3
    assert "manifests/dev.yaml declares version 2, below 3" in above.err
    assert reconciler("baseline", "--version", "0", *WHY).exit == 2
    assert reconciler("repair", "--mark-applied", "2", *WHY).exit == 0
    other = reconciler("baseline", "--version", "2", *WHY)
    assert other.exit == 3
    assert "that is not where the files begin: 2 (create_b, success up)" in other.err
    assert applied(any_database) == [2]


def test_nothing_is_changed_without_a_reason_or_somebody_to_ask(
    reconciler: CommandLine, declared: Repository, any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for arguments in (
        ("baseline", "--version", "1", "--reason", "why"),
        ("repair", "--mark-applied", "1", "--reason", "why"),
        ("unlock", "--reason", "why"),
        ("repair", "--mark-applied", "1", "--yes"),
        ("repair", "--mark-applied", "1", "--yes", "--reason", " "),
        ("repair", "--mark-applied", "0", *WHY),
        ("repair", "--mark-applied", "1", "--claim", *WHY),
        ("repair", *WHY),
        ("repair", "--claim", "--dsn", any_database, *WHY),
    ):
        assert reconciler(*arguments).exit == 2, arguments
    assert applied(any_database) == []


def test_a_person_at_a_terminal_is_asked(declared: Repository, any_database: str) -> None:
    arguments = ("repair", "--mark-applied", "1", "--reason", "why")
    no = told_on_a_terminal("\n", *arguments, folder=declared.path, dsn=any_database)
    assert no.exit == 3
    assert "nothing was changed" in no.out
    assert applied(any_database) == []
    yes = told_on_a_terminal("y\n", *arguments, folder=declared.path, dsn=any_database)
    assert yes.exit == 0
    assert "Change dev so? [y/N]" in yes.out
    assert applied(any_database) == [1]
    print(no.out, yes.out)


def test_a_changed_file_is_accepted(reconciler: CommandLine, declared: Repository, any_database: str) -> None:
    reconciler("up")
    assert "is the one that was applied" in reconciler("repair", "--accept-checksum", "2", *WHY).out
    declared.commit(
        "Rewrite",
        {"migrations/00002_create_b.sql": migration("CREATE TABLE b (id int, x int);", "DROP TABLE b;\n")},
    )
    assert "ChecksumMismatch" in reconciler("plan").out
    answer = reconciler("repair", "--accept-checksum", "2", *WHY, "--output", "json")
    assert answer.exit == 0
    (database,) = answer.json["databases"]
    assert database["done"] is True
    assert database["repair"]["kind"] == "checksum_accepted"
    assert reconciler("plan").out == "dev: in sync at version 2\n"
    (event,) = journal(any_database, "repair")
    assert (event["outcome"], event["version"]) == ("checksum_accepted", 2)
    assert rows(any_database, "SELECT git_revision FROM schema_migrations WHERE version = 2") == [
        (declared.head,)
    ]


def test_what_needs_no_repair_gets_none(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    reconciler("up")
    assert "is applied already" in reconciler("repair", "--mark-applied", "1", *WHY).out
    assert "it belongs to" in reconciler("repair", "--claim", *WHY).out
    wrong = reconciler("repair", "--mark-rolled-back", "1", *WHY)
    assert wrong.exit == 3
    assert "nothing is in doubt about it" in wrong.err
    assert reconciler("repair", "--mark-rolled-back", "7", *WHY).exit == 3
    assert reconciler("repair", "--mark-applied", "7", *WHY).exit == 3
    assert reconciler("repair", "--accept-checksum", "3", *WHY).exit == 3
    assert journal(any_database, "repair") == []


def in_doubt(dsn: str, direction: str) -> None:
    """Make the row of migration 2 what a killed process leaves behind."""
    rows(
        dsn,
        "UPDATE schema_migrations SET status = 'running', direction = %s, transactional = false, statements_done = 1, "
        "statements_total = 3 WHERE version = 2",
        direction,
    )


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_row_in_doubt_is_settled_by_a_persons_word(
    reconciler: CommandLine, declared: Repository, any_database: str, direction: str
) -> None:
    reconciler("up")
    before = rows(any_database, "SELECT checksum, down_script FROM schema_migrations WHERE version = 2")
    in_doubt(any_database, direction)
    assert "OutcomeUnknown" in reconciler("plan").out
    answer = reconciler("repair", "--mark-applied", "2", *WHY)
    assert answer.exit == 0
    assert f"running ({direction}), 1 of 3 statements done" in answer.out
    assert applied(any_database) == [1, 2]
    assert (
        rows(any_database, "SELECT checksum, down_script FROM schema_migrations WHERE version = 2") == before
    )
    assert reconciler("plan").out == "dev: in sync at version 2\n"
    in_doubt(any_database, direction)
    answer = reconciler("repair", "--mark-rolled-back", "2", *WHY)
    assert answer.exit == 0
    assert "a running daemon applies it again at once" in answer.out
    assert rows(any_database, "SELECT version FROM schema_migrations") == [(1,)]
    assert [event["outcome"] for event in journal(any_database, "repair")] == [
        "marked_applied",
        "marked_rolled_back",
    ]


def test_a_failed_migration_is_armed_again(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    rows(any_database, "CREATE TABLE a (id int)")
    assert reconciler("up").exit == 1
    assert "StatementFailed" in reconciler("status").out
    rows(any_database, "DROP TABLE a")
    assert reconciler("repair", "--mark-rolled-back", "1", *WHY).exit == 0
    assert "StatementFailed" not in reconciler("status").out


def test_a_database_is_handed_over(reconciler: CommandLine, declared: Repository, any_database: str) -> None:
    reconciler("up")
    declared.commit("Rename", {"manifests/dev.yaml": None, "manifests/test.yaml": manifest(2)})
    refused = reconciler("plan")
    assert "reconciler repair --claim --environment test --database test --reason ..." in refused.out
    answer = reconciler("repair", "--claim", *WHY)
    assert (answer.exit, answer.err) == (0, "")
    assert reconciler("plan").out == "test: in sync at version 2\n"
    (event,) = journal(any_database, "repair")
    assert event["message"].startswith("taken over from dev/dev of ")
    assert event["message"].endswith(": looked at it, INC-7")


def test_a_repair_without_the_privilege_says_what_is_missing(
    reconciler: CommandLine, declared: Repository, any_server: TestServer, any_database: str
) -> None:
    reconciler("up")
    role = any_server.create_role()
    with psycopg.connect(any_database, autocommit=True) as connection:
        connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role.name}"'.encode())
    reconciler.set(
        ORDERS_DSN=psycopg.conninfo.make_conninfo(
            any_database, user=role.name, password=role.password, host="127.0.0.1"
        )
    )
    in_doubt(any_database, "up")
    answer = reconciler("repair", "--mark-applied", "2", *WHY)
    assert answer.exit == 1
    assert "PermissionDenied" in answer.err
    assert applied(any_database) == [1]


def test_unlock_shows_the_holder_and_ends_its_session(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    reconciler("up")
    assert "nobody holds the lock" in reconciler("unlock", *WHY).out
    with psycopg.connect(any_database, autocommit=True, application_name="forgotten") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        holder.execute(
            "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'reconciler run on elsewhere', since = now()"
        )
        answer = reconciler("unlock", "--dsn", any_database, *WHY)
        assert (answer.exit, answer.err) == (0, "")
        assert "reconciler run on elsewhere" in answer.out
        assert "application forgotten" in answer.out
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    (event,) = journal(any_database, "unlock")
    assert event["outcome"] == "terminated"
    assert event["message"].endswith("(reconciler run on elsewhere): looked at it, INC-7")
    assert rows(any_database, "SELECT owner, holder FROM schema_migrations_lock") == [(None, None)]
    assert reconciler("up").exit == 0


def test_unlock_of_a_database_without_a_journal_claims_no_record(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    with psycopg.connect(any_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        answer = reconciler("unlock", *WHY)
        assert (answer.exit, answer.err) == (0, "")
        assert answer.out.endswith(
            "dev: the lock is freed; that is not recorded: there is no journal yet that could tell of it\n"
        )
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    assert rows(any_database, "SELECT to_regclass('schema_migrations_journal')") == [(None,)]
    # our tables, and nobody has ever taken the lock
    reconciler("up")
    rows(any_database, "DELETE FROM schema_migrations_lock")
    with psycopg.connect(any_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        answer = reconciler("unlock", *WHY)
        assert answer.out.endswith("dev: the lock is freed, and that is recorded in its journal\n")
    assert [each["outcome"] for each in journal(any_database, "unlock")] == ["terminated"]


def test_unlock_clears_what_a_holder_left_behind(
    reconciler: CommandLine, declared: Repository, any_database: str
) -> None:
    reconciler("up")
    rows(
        any_database,
        "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'somebody', since = now()",
    )
    answer = reconciler("unlock", *WHY, "--output", "json")
    assert answer.exit == 0
    (database,) = answer.json["databases"]
    assert (database["freed"], database["lock"]["owner"], database["lock"]["held"]) == (
        True,
        "somebody",
        False,
    )
    assert rows(any_database, "SELECT owner FROM schema_migrations_lock") == [(None,)]
    (event,) = journal(any_database, "unlock")
    assert event["outcome"] == "cleared"


def test_unlock_without_the_privilege_says_so_and_does_nothing(
    reconciler: CommandLine, declared: Repository, any_server: TestServer, any_database: str
) -> None:
    reconciler("up")
    role = any_server.create_role()
    with psycopg.connect(any_database, autocommit=True) as holder:
        holder.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role.name}"'.encode())
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        dsn = psycopg.conninfo.make_conninfo(
            any_database, user=role.name, password=role.password, host="127.0.0.1"
        )
        answer = reconciler("unlock", "--dsn", dsn, *WHY)
        assert answer.exit == 1
        assert "pg_signal_backend" in answer.err
        assert holder.execute("SELECT 1").fetchone() == (1,)
    assert journal(any_database, "unlock") == []


def test_a_running_daemon_goes_on_after_a_repair(declared: Repository, any_database: str) -> None:
    rows(any_database, "CREATE TABLE a (id int); CREATE TABLE b (id int)")
    with Daemon(declared, variables={"ORDERS_DSN": any_database}) as daemon:
        daemon.wait_problem("dev", "StatementFailed")
        answer = execute("baseline", "--version", "2", *WHY, folder=declared.path, ORDERS_DSN=any_database)
        assert answer.exit == 0, answer.err
        daemon.wait_ready("dev", 2)
