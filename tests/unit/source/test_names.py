from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import UsageError
from reconciler.source.names import check_branch, is_commit, path_parts


@pytest.mark.parametrize("name", ["main", "feature/login", "release-1.2", "a@b", "größe", "v1.0"])
def test_good_branches(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "-main", "--upload-pack=x", "@", "HEAD", "a..b", "a b", "a\tb", "a\nb", "a~1", "a^", "a:b", "a?", "a*",
        "a[b", "a\\b", "a@{1}", ".a", "a/.b", "a.lock", "a.lock/b", "/a", "a/", "a//b", "a.", "x" * 2000, "\udcff",
    ],
)  # fmt: skip
def test_hostile_branches(name: str) -> None:
    with pytest.raises(UsageError):
        check_branch(name)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab/.@{-~^: *[\\\x7flock", min_size=1, max_size=8))
def test_branches_agree_with_git(name: str) -> None:
    by_git = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False)
    try:
        check_branch(name)
        accepted = True
    except UsageError:
        accepted = False
    # `--branch` also expands @{-1}; we never accept what git refuses
    assert not accepted or by_git.returncode == 0
    if by_git.returncode == 0 and name not in ("@", "HEAD") and "@{" not in name:
        assert accepted


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("migrations", ("migrations",)),
        ("./db/migrations/", ("db", "migrations")),
        ("", ()),
        (".", ()),
        ("/etc", None),
        ("../x", None),
        ("a/../b", None),
        (".git", None),
        ("a/.GIT/b", None),
        ("a\nb", None),
        ("a\0b", None),
        ("\udcff", None),
        ("x" * 2000, None),
    ],
)
def test_paths(path: str, expected: tuple[str, ...] | None) -> None:
    assert path_parts(path) == expected


def test_commits() -> None:
    assert is_commit("a" * 40)
    assert is_commit("0" * 64)
    assert not any(map(is_commit, ["", "main", "A" * 40, "a" * 41, "a" * 40 + "\n", "--output=x", "a" * 39]))
