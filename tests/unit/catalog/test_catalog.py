"""The catalog: order, collisions, and one bad file that hides no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.catalog import Catalog, CatalogReader
from reconciler.model import File, Reason, Revision, Snapshot

REVISION = Revision("a" * 40, "main", datetime(2025, 1, 15, tzinfo=UTC), "Ada <ada@example.org>")
GOOD = b"-- UP MIGRATION\nSELECT 1;\n-- DOWN MIGRATION\nSELECT 2;\n"


def snapshot(files: Mapping[str, bytes], skipped: Mapping[str, str] | None = None) -> Snapshot:
    return Snapshot(
        REVISION,
        {path: File(path, hashlib.sha1(content).hexdigest(), content) for path, content in files.items()},
        skipped or {},
    )


def read(
    files: Mapping[str, bytes], skipped: Mapping[str, str] | None = None, folder: str = "migrations"
) -> Catalog:
    return CatalogReader().read(snapshot(files, skipped), folder)


def test_ordered_by_number() -> None:
    catalog = read({"migrations/10_c.sql": GOOD, "migrations/009_b.sql": GOOD, "migrations/1_a.sql": GOOD})
    assert catalog.versions == (1, 9, 10)
    assert [migration.name for migration in catalog] == ["a", "b", "c"]
    assert len(catalog) == 3
    assert 9 in catalog
    assert 2 not in catalog
    assert "9" not in catalog
    found = catalog.get(10)
    assert found is not None
    assert found.name == "c"
    assert catalog.get(2) is None
    assert catalog.problems == ()


@given(st.sets(st.integers(1, 40)), st.integers(0, 45))
def test_ordinal_counts(versions: set[int], version: int) -> None:
    catalog = read({f"migrations/{each}_x.sql": GOOD for each in versions})
    assert catalog.ordinal(version) == sum(each <= version for each in versions)


def test_bad_files_hide_no_other() -> None:
    catalog = read(
        {
            "migrations/1_a.sql": GOOD,
            "migrations/2_b.sql": b"",
            "migrations/3_c.sql": GOOD,
            "migrations/notes.sql": GOOD,
            "migrations/4-d.sql": GOOD,
            "migrations/5_e.SQL": GOOD,
        },
        {
            "migrations/6_f.sql": "a symbolic link",
            "migrations/README": "a symbolic link",
            "other/7_g.sql": "a submodule",
        },
    )
    assert catalog.versions == (1, 3)
    assert [problem.version for problem in catalog.problems] == [2, 4, 5, 6, None]
    assert all(problem.reason is Reason.MIGRATION_INVALID and problem.place for problem in catalog.problems)
    linked = catalog.problem_for(6)
    assert linked is not None
    assert linked.message == "6_f.sql was not read: a symbolic link"
    nameless = catalog.problem_for(None)
    assert nameless is not None
    assert "notes.sql" in nameless.message
    assert catalog.problem_for(1) is None


@pytest.mark.parametrize("second", ["migrations/00007_b.sql", "migrations/7_a.sql"])
def test_a_number_used_twice_names_both_files(second: str) -> None:
    catalog = read({"migrations/1_z.sql": GOOD, "migrations/007_a.sql": GOOD, second: GOOD})
    assert catalog.versions == (1,)
    (problem,) = catalog.problems
    assert problem.version == 7
    assert "007_a.sql" in problem.message
    assert second.rpartition("/")[2] in problem.message


def test_other_files_are_ignored() -> None:
    catalog = read(
        {
            "migrations/1_a.sql": GOOD,
            "migrations/README.md": b"\xff",
            "migrations/.gitkeep": b"",
            "migrations/.#2_b.sql": b"",
            "migrations/old/3_c.sql": GOOD,
            "migrations2/4_d.sql": GOOD,
            "5_e.sql": GOOD,
        }
    )
    assert catalog.versions == (1,)
    assert catalog.problems == ()


@pytest.mark.parametrize("folder", ["db/migrations", "db/migrations/", "./db//migrations"])
def test_folder_as_people_write_it(folder: str) -> None:
    assert read({"db/migrations/1_a.sql": GOOD, "migrations/2_b.sql": GOOD}, folder=folder).versions == (1,)


@pytest.mark.parametrize("folder", ["", "."])
def test_the_root_is_a_folder(folder: str) -> None:
    assert read({"1_a.sql": GOOD, "migrations/2_b.sql": GOOD}, folder=folder).versions == (1,)


def test_an_empty_folder_is_an_empty_catalog() -> None:
    catalog = read({})
    assert len(catalog) == 0
    assert catalog.ordinal(5) == 0


def test_unchanged_files_are_parsed_once() -> None:
    reader = CatalogReader()
    files = {f"migrations/{version}_x.sql": GOOD for version in range(1, 6)}
    files["migrations/6_x.sql"] = b"SELECT 1"
    first = reader.read(snapshot(files), "migrations")
    assert reader.read(snapshot(files), "migrations/") is first
    # the other folder's files are not forgotten for it
    assert reader.read(snapshot({"other/1_x.sql": GOOD}), "other").versions == (1,)
    assert reader.read(snapshot({**files, "README.md": b""}), "migrations") is first

    changed = reader.read(snapshot({**files, "migrations/3_x.sql": GOOD + b"--"}), "migrations")
    assert [changed.get(version) is first.get(version) for version in range(1, 6)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert changed.problems[0] is first.problems[0]

    fewer = reader.read(
        snapshot({path: content for path, content in files.items() if "5_x" not in path}), "migrations"
    )
    assert fewer.versions == (1, 2, 3, 4)
    renamed = reader.read(snapshot({"migrations/9_x.sql": GOOD}), "migrations")
    assert renamed.versions == (9,)
    empty = reader.read(snapshot({}), "migrations")
    assert empty.versions == ()


def test_what_was_skipped_is_read_anew() -> None:
    reader = CatalogReader()
    files = {"migrations/1_a.sql": GOOD}
    assert reader.read(snapshot(files), "migrations").problems == ()
    assert (
        reader.read(snapshot(files, {"migrations/2_b.sql": "too large"}), "migrations").problems[0].version
        == 2
    )
    assert reader.read(snapshot(files), "migrations").problems == ()
