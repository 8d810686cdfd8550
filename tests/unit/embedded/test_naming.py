from __future__ import annotations

import shlex

from psycopg.conninfo import conninfo_to_dict

from reconciler.embedded import database_name, psql_command
from reconciler.embedded.naming import LONGEST_NAME, conninfo


def test_a_database_named_like_its_environment_keeps_that_name() -> None:
    assert database_name("dev", "dev") == "dev"
    assert database_name("dev", "orders") == "dev.orders"


def test_different_pairs_never_share_a_name() -> None:
    pairs = [
        ("a.b", "c"),
        ("a", "b.c"),
        ("a.b.c", "a.b.c"),
        ("a", "b"),
        ("a.b", "a.b"),
        ("postgres", "postgres"),
        ("template1", "template1"),
        ("x" * 80, "y"),
        ("x" * 80, "z"),
        ("ü" * 40, "ü" * 40),
    ]
    names = {database_name(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(0 < len(name.encode()) <= LONGEST_NAME for name in names)
    assert not names & {"postgres", "template0", "template1"}


def test_libpq_reads_a_connection_string_back() -> None:
    for value in ("plain", "with space", "quo'te", "back\\slash", "ü=é", "", "tab\there"):
        assert conninfo_to_dict(conninfo(host="/x", dbname=value)).get("dbname", "") == value


def test_a_shell_reads_the_psql_command_back() -> None:
    for name in ("dev", "it's", 'a"b', "$HOME `id` \\ !x"):
        dsn = conninfo(host="/some folder", dbname=name)
        program, argument = shlex.split(psql_command(dsn))
        assert program.endswith("psql")
        assert conninfo_to_dict(argument)["dbname"] == name
