from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from reconciler.manifest import Manifest, ManifestReader, read_manifests
from reconciler.model import File, Revision, Snapshot

_REVISION = Revision("a" * 40, "main", datetime(2026, 1, 1, tzinfo=UTC), "A Person <person@example.org>")


def snapshot(files: dict[str, str], skipped: dict[str, str] | None = None) -> Snapshot:
    read = {
        path: File(path, hashlib.sha1(text.encode()).hexdigest(), text.encode())
        for path, text in files.items()
    }
    return Snapshot(_REVISION, read, skipped or {})


def good(environment: str = "", target: int = 1) -> str:
    return f"{f'environment: {environment}' if environment else ''}\ntarget_version: {target}\ndatabase: {{dsn: embedded}}\n"


def test_each_file_is_an_environment() -> None:
    found = read_manifests(
        snapshot({"manifests/b.yml": good(), "manifests/a.yaml": good("prod"), "manifests/README.md": "x"})
    )
    assert list(found) == ["b", "prod"]
    assert all(isinstance(result, Manifest) for result in found.values())


def test_only_the_folder_itself_counts() -> None:
    files = {
        "manifests/old/a.yaml": good(),
        "migrations/b.yaml": good(),
        "c.yaml": good(),
        "manifestsx/d.yaml": good(),
    }
    assert read_manifests(snapshot(files)) == {}
    assert list(read_manifests(snapshot({"x/m/a.yaml": good()}), "x/m")) == ["a"]


def test_a_broken_file_does_not_hide_the_others() -> None:
    found = read_manifests(snapshot({"manifests/a.yaml": "target_version: [", "manifests/b.yaml": good()}))
    assert isinstance(found["b"], Manifest)
    problems = found["a"]
    assert isinstance(problems, tuple)
    assert "this is not YAML" in problems[0].message


def test_two_files_for_one_environment_are_a_problem_of_both() -> None:
    found = read_manifests(
        snapshot({"manifests/a.yaml": good("x"), "manifests/b.yaml": good("x"), "manifests/c.yaml": good()})
    )
    problems = found["x"]
    assert isinstance(problems, tuple)
    assert [str(problem) for problem in problems] == [
        "ManifestInvalid: manifests/a.yaml:1:1: the environment 'x' is declared by manifests/b.yaml too; "
        "keep one of the files, or give them different names with 'environment:'",
        "ManifestInvalid: manifests/b.yaml:1:1: the environment 'x' is declared by manifests/a.yaml too; "
        "keep one of the files, or give them different names with 'environment:'",
    ]
    assert isinstance(found["c"], Manifest)


def test_both_endings_of_one_name_are_two_files() -> None:
    found = read_manifests(snapshot({"manifests/a.yaml": good(), "manifests/a.yml": "broken: ["}))
    problems = found["a"]
    assert isinstance(problems, tuple)
    assert len(problems) == 3


def test_what_could_not_be_read_is_a_problem() -> None:
    found = read_manifests(
        snapshot({}, {"manifests/a.yaml": "symbolic link", "manifests/notes": "submodule"})
    )
    assert list(found) == ["a"]
    problems = found["a"]
    assert isinstance(problems, tuple)
    assert "the manifest is no plain file: symbolic link" in problems[0].message


def test_unchanged_content_is_not_read_again() -> None:
    reader = ManifestReader()
    first = reader.read(snapshot({"manifests/a.yaml": good(), "manifests/b.yaml": "["}))
    second = reader.read(snapshot({"manifests/a.yaml": good(), "manifests/b.yaml": "["}))
    assert first["a"] is second["a"]
    third = reader.read(snapshot({"manifests/a.yaml": good(target=2)}))
    assert isinstance(third["a"], Manifest)
    assert third["a"].target_version == 2


def test_equal_content_under_two_names_is_two_environments() -> None:
    found = ManifestReader().read(snapshot({"manifests/a.yaml": good(), "manifests/b.yaml": good()}))
    assert [result.environment for result in found.values() if isinstance(result, Manifest)] == ["a", "b"]


def test_a_file_that_breaks_still_stands_for_its_environment() -> None:
    reader = ManifestReader()
    reader.read(snapshot({"manifests/a.yaml": good("prod")}))
    for broken in (
        snapshot({"manifests/a.yaml": "["}),
        snapshot({}, {"manifests/a.yaml": "too large"}),
        snapshot({"manifests/a.yaml": ""}),
    ):
        found = reader.read(broken)
        assert list(found) == ["prod"]
        assert isinstance(found["prod"], tuple)
    assert list(reader.read(snapshot({"manifests/a.yaml": good("test")}))) == ["test"]
