"""`reconciler create`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from reconciler.cli.new_migration import next_number, slug, write_migration
from reconciler.errors import UsageError
from reconciler.formats import parse_migration
from tests.command_line import CommandLine
from tests.git import Repository

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_writes_the_next_number_and_prints_the_path(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    reconciler.set(GIT_AUTHOR_NAME="Ada Author")
    answer = reconciler("create", "add", "multitenancy")
    assert (answer.exit, answer.out) == (0, "migrations/00001_add_multitenancy.sql\n")
    text = (tmp_path / "migrations/00001_add_multitenancy.sql").read_text()
    lines = text.splitlines()
    assert lines[0] == "-- Migration: 00001_add_multitenancy.sql"
    assert lines[1] == "-- Description: Add multitenancy"
    assert abs((date.fromisoformat(lines[2].removeprefix("-- Date: ")) - datetime.now(UTC).date()).days) <= 1
    assert lines[3] == "-- Author: Ada Author"
    assert "-- UP MIGRATION\n" in text
    assert "-- DOWN MIGRATION\n" in text
    assert reconciler("create", "next").out == "migrations/00002_next.sql\n"


def test_what_it_writes_is_a_migration_once_sql_is_in_it(tmp_path: Path) -> None:
    created = write_migration(tmp_path, "Index ORDERS", timestamp=False, no_transaction=True, now=NOW)
    text = created.path.read_text().replace("-- UP MIGRATION\n", "-- UP MIGRATION\nSELECT 1;\n")
    parsed = parse_migration(f"migrations/{created.path.name}", text.encode())
    assert (parsed.version, parsed.name, parsed.description) == (1, "index_orders", "Index ORDERS")
    assert parsed.directives.no_transaction


def test_json_names_path_version_and_name(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("create", "x", "--output", "json")
    assert answer.json == {"path": "migrations/00001_x.sql", "version": 1, "name": "x"}


def test_goes_to_the_root_of_the_repository_and_the_folder_of_the_manifests(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    git_repository.write(
        {
            "manifests/dev.yaml": "target_version: 0\nmigrations: db/schema\ndatabase: {dsn: embedded}\n",
            "manifests/broken.yaml": "]",
            "deep/er/x": "",
        }
    )
    reconciler.enter(git_repository.path / "deep" / "er")
    assert reconciler("create", "x").exit == 0
    assert os.listdir(git_repository.path / "db/schema") == ["00001_x.sql"]


def test_nothing_is_written_outside_the_repository(
    reconciler: CommandLine, git_repository: Repository, tmp_path: Path
) -> None:
    reconciler.enter(git_repository.path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (git_repository.path / "link").symlink_to(outside)
    for folder in (str(outside), "../outside", "link", "link/deeper"):
        answer = reconciler("create", "x", "--migrations", folder)
        assert answer.exit == 2
        assert "outside the repository" in answer.err
    assert os.listdir(outside) == []
    assert reconciler("create", "x", "--migrations", "new/folder").exit == 0


def test_manifests_that_disagree_leave_the_usual_folder(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    for name in ("one", "two"):
        text = f"target_version: 0\nmigrations: db/{name}\ndatabase: {{dsn: embedded}}\n"
        git_repository.write({f"manifests/{name}.yaml": text})
    reconciler.enter(git_repository.path)
    assert reconciler("create", "x").out == "migrations/00001_x.sql\n"
    assert reconciler("create", "x", "--migrations", "db/two").out == "db/two/00001_x.sql\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "00001"),
        (["00041_a.sql"], "00042"),
        (["1_a.sql", "2_b.sql"], "3"),
        (["9_a.sql"], "10"),
        (["001_a.sql", "00007_b.SQL"], "00008"),
        (["5.sql", "7broken.sql", "8_notes.txt", "readme.sql"], "8"),
        (["20250115103000_a.sql"], "20260102030405"),
        (["20270115103000_a.sql"], "20270115103001"),
        (["99999999999999_a.sql"], "100000000000000"),
    ],
)
def test_next_number(names: list[str], expected: str) -> None:
    assert next_number(names, timestamp=False, now=NOW) == expected


def test_timestamps_never_go_back() -> None:
    assert next_number([], timestamp=True, now=NOW) == "20260102030405"
    assert next_number(["20260102030405_a.sql"], timestamp=True, now=NOW) == "20260102030406"


def test_highest_number_has_no_next() -> None:
    with pytest.raises(UsageError, match="no number above"):
        next_number([f"{2**63 - 1}_a.sql"], timestamp=False, now=NOW)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Add invoices", "add_invoices"),
        ("  add--invoices.sql ", "add_invoices"),
        ("2fa & more!", "2fa_more"),
        ("Straße ändern", "straße_ändern"),
        ("a\nb", "a_b"),
    ],
)
def test_slug(title: str, expected: str) -> None:
    assert slug(title) == expected


@pytest.mark.parametrize("title", ["", "  ", "---", "../x", "a/b", "a\\b", "a\0b", ".sql"])
def test_names_that_are_none_are_refused(title: str) -> None:
    with pytest.raises(UsageError):
        slug(title)


def test_too_long_a_name_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shorter NAME"):
        write_migration(tmp_path, "x" * 250, timestamp=False, no_transaction=False, now=NOW)
    assert os.listdir(tmp_path) == []


def test_many_at_once_get_different_numbers(tmp_path: Path) -> None:
    def write(index: int) -> int:
        return write_migration(tmp_path, f"m{index}", timestamp=False, no_transaction=False, now=NOW).version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(24))) == list(range(1, 25))


def test_folder_that_cannot_be_written_is_an_error(reconciler: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "migrations").write_text("a file")
    reconciler.enter(tmp_path)
    answer = reconciler("create", "x")
    assert answer.exit == 1
    assert "cannot write a migration" in answer.err
