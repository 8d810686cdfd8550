from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.model import ProblemError, Reason, Source
from reconciler.source import GitCredentials, open_source
from reconciler.source.folders import Limits
from reconciler.source.working_tree import WorkingTreeSource, open_working_tree
from tests.git import Repository
from tests.integration.source_support import Ticks, expect

FOLDERS = ["manifests", "migrations"]


@pytest.fixture(name="repository")
def _repository(git_repository: Repository) -> Repository:
    git_repository.commit(files={"manifests/dev.yaml": "1", "migrations/00001_first.sql": "one"})
    return git_repository


async def contents(source: Source, *folders: str) -> dict[str, bytes]:
    snapshot = await source.read(await source.head(), folders or FOLDERS)
    return {path: file.content for path, file in snapshot.files.items()}


async def test_uncommitted_files_are_read(repository: Repository) -> None:
    source: Source = open_working_tree(repository.path)
    clean = await source.head()
    assert clean.working_tree
    assert clean.commit == repository.head
    assert clean.short.endswith("+")
    repository.write({"manifests/dev.yaml": "2", "migrations/00002_second.sql": "two"})
    (repository.path / "migrations/00001_first.sql").unlink()
    assert await contents(source) == {"manifests/dev.yaml": b"2", "migrations/00002_second.sql": b"two"}
    snapshot = await source.read(await source.head(), FOLDERS)
    blob = repository.run("hash-object", "manifests/dev.yaml")
    assert snapshot.files["manifests/dev.yaml"].blob == blob
    change = await source.last_change(snapshot.revision, "manifests/dev.yaml")
    assert change is not None


async def test_states_that_differ_are_different_revisions(repository: Repository) -> None:
    source = open_working_tree(repository.path)
    seen = []
    for text in ("a", "b", "a"):
        repository.write({"manifests/dev.yaml": text})
        seen.append(await source.head())
    assert seen[0] == seen[2] != seen[1]
    assert seen[0].digest


async def test_a_snapshot_is_what_head_saw(repository: Repository) -> None:
    source = open_working_tree(repository.path)
    revision = await source.head()
    repository.write({"manifests/dev.yaml": "later"})
    snapshot = await source.read(revision, FOLDERS)
    assert snapshot.files["manifests/dev.yaml"].content == b"1"


async def test_an_edit_and_a_commit_are_seen(repository: Repository) -> None:
    source = open_working_tree(repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        repository.write({"manifests/dev.yaml": "22"})
        await ticks.next()
        assert await contents(source) == {"manifests/dev.yaml": b"22", "migrations/00001_first.sql": b"one"}
        commit = repository.commit()
        await ticks.next()
        assert (await source.head()).commit == commit


async def test_a_folder_that_appears_later(repository: Repository) -> None:
    source = open_working_tree(repository.path)
    assert await contents(source, "db/changes") == {}
    await source.head()
    async with Ticks(source) as ticks:
        repository.write({"db/changes/1.sql": "x"})
        await ticks.next()
        assert await contents(source, "db/changes") == {"db/changes/1.sql": b"x"}


async def test_checkout_of_another_branch_is_refused(repository: Repository) -> None:
    source = open_working_tree(repository.path)
    await source.head()
    repository.run("checkout", "--quiet", "-b", "other")
    problem = await expect(source, Reason.BRANCH_NOT_FOUND)
    assert "other" in problem.message
    repository.checkout("main")
    await source.head()


async def test_what_is_no_regular_file_is_skipped(repository: Repository, tmp_path: Path) -> None:
    folder = repository.path / "migrations"
    (tmp_path / "secret").write_text("secret")
    (folder / "link.sql").symlink_to(tmp_path / "secret")
    (folder / "large.sql").write_bytes(b"x" * 101)
    os.mkfifo(folder / "pipe.sql")
    (folder / "below").mkdir()
    source = open_working_tree(repository.path, limits=Limits(file_bytes=100))
    snapshot = await source.read(await source.head(), FOLDERS)
    assert sorted(snapshot.files) == ["manifests/dev.yaml", "migrations/00001_first.sql"]
    assert sorted(snapshot.skipped) == [f"migrations/{name}.sql" for name in ("large", "link", "pipe")]


@pytest.mark.parametrize("linked", ["migrations", "db"])
async def test_nothing_is_read_through_a_linked_folder(
    repository: Repository, tmp_path: Path, linked: str
) -> None:
    (tmp_path / "outside/migrations").mkdir(parents=True)
    (tmp_path / "outside/migrations/secret.sql").write_text("secret")
    (tmp_path / "outside/secret.sql").write_text("secret")
    if linked == "migrations":
        shutil.rmtree(repository.path / "migrations")
    (repository.path / linked).symlink_to(tmp_path / "outside")
    source = open_working_tree(repository.path)
    folder = "migrations" if linked == "migrations" else "db/migrations"
    snapshot = await source.read(await source.head(), [folder, "../outside", ".git"])
    assert snapshot.files == {}
    assert set(snapshot.skipped) == {folder, "../outside", ".git"}


async def test_the_working_tree_vanishes(repository: Repository, tmp_path: Path) -> None:
    source = open_working_tree(repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        repository.path.rename(tmp_path / "away")
        await ticks.next()
        await expect(source, Reason.FETCH_FAILED)
        (tmp_path / "away").rename(repository.path)
        await ticks.next()
        assert len(await contents(source)) == 2


async def test_too_many_files(repository: Repository) -> None:
    repository.write({f"migrations/{n}.sql": "x" for n in range(5)})
    with pytest.raises(ProblemError, match="more than 3"):
        await open_working_tree(repository.path, limits=Limits(files=3)).head()


async def test_an_empty_repository(git_repository: Repository) -> None:
    await expect(open_working_tree(git_repository.path), Reason.REPOSITORY_EMPTY)


def test_opening(repository: Repository, tmp_path: Path) -> None:
    source = open_source(
        str(repository.path), branch=None, working_tree=True, state_folder=tmp_path, interval=1,
        credentials=GitCredentials(),
    )  # fmt: skip
    assert isinstance(source, WorkingTreeSource)
    assert source.root == repository.path
    repository.run("clone", "--quiet", "--bare", repository.url, str(tmp_path / "bare"))
    with pytest.raises(UsageError, match="no working tree"):
        open_working_tree(tmp_path / "bare")
