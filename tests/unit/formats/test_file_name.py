"""File names give version and name."""

from __future__ import annotations

import pytest

from reconciler.formats import leading_version, parse_file_name
from reconciler.model import ProblemError, Reason


@pytest.mark.parametrize(
    ("path", "version", "name"),
    [
        ("migrations/00001_add_multitenancy.sql", 1, "add_multitenancy"),
        ("20250115103000_x.sql", 20250115103000, "x"),
        ("a/b/9223372036854775807_the last.one.sql", 2**63 - 1, "the last.one"),
        ("0000000000000000000000000000007_ü.sql", 7, "ü"),
        (f"1_{'n' * 255}.sql", 1, "n" * 255),
    ],
)
def test_version_and_name(path: str, version: int, name: str) -> None:
    assert parse_file_name(path) == (version, name)
    assert leading_version(path) == version


@pytest.mark.parametrize(
    ("file_name", "version", "message"),
    [
        ("readme.sql", None, "not the name of a migration"),
        ("1.sql", 1, "not the name of a migration"),
        ("1_.sql", 1, "not the name of a migration"),
        ("1_a.SQL", 1, "not the name of a migration"),
        ("-1_a.sql", None, "not the name of a migration"),
        ("1-a.sql", 1, "not the name of a migration"),
        ("٣_a.sql", None, "not the name of a migration"),
        ("0_a.sql", None, "out of range"),
        ("9223372036854775808_a.sql", None, "out of range"),
        ("9" * 5000 + "_a.sql", None, "out of range"),
        (f"3_{'n' * 256}.sql", 3, "has 256 characters"),
        ("3_a\nb.sql", 3, "cannot be printed"),
        ("3_a\0.sql", 3, "cannot be printed"),
        ("3_\u202etxt.sql", 3, "cannot be printed"),
        ("3_\udcff.sql", 3, "cannot be printed"),
        ("3_ .sql", 3, "cannot be printed"),
    ],
)
def test_refused(file_name: str, version: int | None, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        parse_file_name(f"migrations/{file_name}")
    problem = caught.value.problem
    assert problem.reason is Reason.MIGRATION_INVALID
    assert problem.version == version
    assert problem.place is not None
    assert problem.remedy
    assert problem.message.isprintable()
    assert len(problem.message) < 250
