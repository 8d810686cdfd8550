from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.model import ProblemError, Reason, Source
from reconciler.source import GitCredentials, open_source
from reconciler.source.folders import Limits
from reconciler.source.local import LocalSource, open_local
from tests.git import Repository
from tests.integration.source_support import Ticks, expect, run_git

FILES: dict[str, str | bytes | None] = {
    "manifests/dev.yaml": "target_version: 1\n",
    "migrations/00001_first.sql": "-- UP MIGRATION\n",
    "migrations/archive/00000_old.sql": "old\n",
    "README.md": "hello\n",
}


async def contents(source: Source, *folders: str) -> dict[str, bytes]:
    snapshot = await source.read(await source.head(), folders)
    assert not snapshot.skipped
    return {path: file.content for path, file in snapshot.files.items()}


def test_it_is_a_source(git_repository: Repository) -> None:
    source: Source = open_local(git_repository.path)
    assert source.branch == "main"


async def test_head_and_read(git_repository: Repository) -> None:
    commit = git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    revision = await source.head()
    assert (revision.commit, revision.branch) == (commit, "main")
    assert revision.author == "Ada Author <ada@example.org>"
    assert abs((datetime.now(UTC) - revision.committed_at).total_seconds()) < 600
    snapshot = await source.read(revision, ["migrations", "manifests", "nowhere"])
    assert {path: file.content for path, file in snapshot.files.items()} == {
        "manifests/dev.yaml": b"target_version: 1\n",
        "migrations/00001_first.sql": b"-- UP MIGRATION\n",
    }
    assert snapshot.files["manifests/dev.yaml"].blob == git_repository.run(
        "rev-parse", "HEAD:manifests/dev.yaml"
    )
    assert snapshot.skipped == {}


async def test_uncommitted_files_are_not_read(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    git_repository.write({"manifests/dev.yaml": "target_version: 2\n", "manifests/new.yaml": "x"})
    git_repository.run("add", "--all")
    assert await contents(source, "manifests") == {"manifests/dev.yaml": b"target_version: 1\n"}


async def test_a_later_snapshot_reads_only_what_changed(git_repository: Repository) -> None:
    many: dict[str, str | bytes | None] = {f"migrations/{n:05}_x.sql": f"select {n}" for n in range(300)}
    git_repository.commit(files=many)
    source = open_local(git_repository.path)
    first = await source.read(await source.head(), ["migrations"])
    git_repository.commit(files={"migrations/00007_x.sql": "changed", "migrations/00300_x.sql": "new"})
    git_repository.run("rm", "--quiet", "migrations/00000_x.sql")
    git_repository.commit()
    second = await source.read(await source.head(), ["migrations"])
    assert len(first.files) == len(second.files) == 300
    assert second.files["migrations/00007_x.sql"].content == b"changed"
    assert second.files["migrations/00008_x.sql"] is first.files["migrations/00008_x.sql"]
    assert "migrations/00000_x.sql" not in second.files
    # the older one is still what it was
    again = await source.read(first.revision, ["migrations"])
    assert {p: f.content for p, f in again.files.items()} == {p: f.content for p, f in first.files.items()}


async def test_the_root_and_nested_folders(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path / "migrations")
    assert source.root == git_repository.path
    assert await contents(source, "") == {"README.md": b"hello\n"}
    assert await contents(source, "./migrations/archive/") == {"migrations/archive/00000_old.sql": b"old\n"}


async def test_what_is_no_regular_file_is_reported(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    commit = git_repository.head
    path = git_repository.path
    (path / "migrations/link.sql").symlink_to("/etc/passwd")
    (path / "linked").symlink_to("migrations")
    git_repository.run("add", "--all")
    git_repository.run("update-index", "--add", "--cacheinfo", f"160000,{commit},migrations/sub")
    git_repository.run("commit", "--quiet", "--message=odd")
    source = open_local(path)
    snapshot = await source.read(await source.head(), ["migrations", "linked", "README.md", "../x"])
    assert list(snapshot.files) == ["migrations/00001_first.sql"]
    assert "symbolic link" in snapshot.skipped["migrations/link.sql"]
    assert "submodule" in snapshot.skipped["migrations/sub"]
    assert "symbolic link" in snapshot.skipped["linked"]
    assert "not a folder" in snapshot.skipped["README.md"]
    assert "../x" in snapshot.skipped


async def test_a_large_file_is_skipped_and_costs_nothing_later(git_repository: Repository) -> None:
    git_repository.commit(files={**FILES, "migrations/00002_huge.sql": b"-- padding\n" * (50 << 20 >> 3)})
    source = open_local(git_repository.path)
    snapshot = await source.read(await source.head(), ["migrations"])
    assert list(snapshot.files) == ["migrations/00001_first.sql"]
    assert "bytes, more than" in snapshot.skipped["migrations/00002_huge.sql"]
    git_repository.commit(files={"migrations/00003_third.sql": "x"})
    snapshot = await source.read(await source.head(), ["migrations"])
    assert sorted(snapshot.files) == ["migrations/00001_first.sql", "migrations/00003_third.sql"]
    assert "migrations/00002_huge.sql" in snapshot.skipped


async def test_large_files_among_many(git_repository: Repository) -> None:
    files: dict[str, str | bytes | None] = {
        f"m/{n:03}.sql": b"x" * (200 if n % 50 == 49 else n) for n in range(200)
    }
    git_repository.commit(files=files)
    source = open_local(git_repository.path, limits=Limits(file_bytes=199))
    snapshot = await source.read(await source.head(), ["m"])
    assert len(snapshot.skipped) == 4
    assert {path: file.content for path, file in snapshot.files.items()} == {
        path: content for path, content in files.items() if path not in snapshot.skipped
    }


@pytest.mark.parametrize("limits", [Limits(files=3), Limits(total_bytes=30)])
async def test_too_much_is_an_error(git_repository: Repository, limits: Limits) -> None:
    git_repository.commit(files={f"m/{n}.sql": b"x" * 10 for n in range(4)})
    source = open_local(git_repository.path, limits=limits)
    with pytest.raises(ProblemError, match="more than 3") as caught:
        await source.read(await source.head(), ["m"])
    assert caught.value.problem.reason is Reason.FETCH_FAILED


async def test_names_that_cannot_be_shown(git_repository: Repository) -> None:
    git_repository.commit(files={"m/ok.sql": "x", "m/größe.sql": "x", "m/line\nbreak.sql": "x"})
    (Path(os.fsencode(git_repository.path).decode()) / "m" / os.fsdecode(b"bad\xff.sql")).write_text("x")
    git_repository.commit()
    source = open_local(git_repository.path, limits=Limits(path_bytes=20))
    git_repository.commit(files={"m/" + "l" * 30: "x"})
    snapshot = await source.read(await source.head(), ["m"])
    assert sorted(snapshot.files) == ["m/größe.sql", "m/ok.sql"]
    assert "UTF-8" in snapshot.skipped["m/bad\\xff.sql"]
    assert len(snapshot.skipped) == 3
    assert all(path.isprintable() for path in snapshot.skipped)


async def test_a_tree_that_names_its_parent(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    blob = git_repository.run("hash-object", "-w", "--stdin", stdin=b"evil")
    raw = b"".join(b"100644 %s\0" % name + bytes.fromhex(blob) for name in (b"..", b"../x", b"ok"))
    inner = git_repository.run("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=raw)
    outer = git_repository.run("mktree", stdin=f"040000 tree {inner}\tm\n".encode())
    commit = git_repository.run("commit-tree", outer, "-m", "evil")
    git_repository.run("update-ref", "refs/heads/evil", commit)
    source = open_local(git_repository.path, "evil")
    snapshot = await source.read(await source.head(), ["m"])
    assert list(snapshot.files) == ["m/ok"]
    assert len(snapshot.skipped) == 2


# Repository: empty, no such branch, another checkout, deleted, rewritten, shallow


async def test_an_empty_repository(git_repository: Repository) -> None:
    source = open_local(git_repository.path)
    assert source.branch == "main"
    problem = await expect(source, Reason.REPOSITORY_EMPTY)
    assert str(git_repository.path) in problem.message
    commit = git_repository.commit(files=FILES)
    assert (await source.head()).commit == commit


async def test_no_such_branch(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path, "production")
    problem = await expect(source, Reason.BRANCH_NOT_FOUND)
    assert "'production'" in problem.message
    assert "main" in problem.message


async def test_a_branch_that_is_deleted_while_running(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    git_repository.branch("production")
    source = open_local(git_repository.path, "production")
    revision = await source.head()
    git_repository.run("branch", "--delete", "--force", "production")
    await expect(source, Reason.BRANCH_NOT_FOUND)
    assert (await source.read(revision, ["manifests"])).files


async def test_checkout_of_another_branch_moves_nothing(git_repository: Repository) -> None:
    commit = git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    git_repository.run("checkout", "--quiet", "-b", "other")
    git_repository.commit(files={"manifests/dev.yaml": "target_version: 9\n"})
    assert (await source.head()).commit == commit
    assert source.branch == "main"


def test_a_detached_head(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    git_repository.run("checkout", "--quiet", "--detach")
    with pytest.raises(ProblemError, match="--branch") as caught:
        open_local(git_repository.path)
    assert caught.value.problem.reason is Reason.BRANCH_NOT_FOUND
    assert open_local(git_repository.path, "main").branch == "main"


async def test_deleted_and_restored_while_running(git_repository: Repository, tmp_path: Path) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        git_repository.path.rename(tmp_path / "away")
        await ticks.next()
        await expect(source, Reason.FETCH_FAILED)
        assert await source.is_ancestor("a" * 40, "b" * 40) is None
        (tmp_path / "away").rename(git_repository.path)
        await ticks.next()
        assert (await source.head()).commit == git_repository.head


async def test_replaced_by_another_repository_while_running(
    git_repository: Repository, tmp_path: Path
) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        shutil.rmtree(git_repository.path)
        # as a linked working tree, whose git folder is elsewhere
        other = Repository(tmp_path / "other", branch="elsewhere")
        commit = other.commit(files={"manifests/dev.yaml": "other\n"})
        other.run("worktree", "add", "--quiet", "-b", "main", str(git_repository.path))
        await ticks.next()
        assert (await source.head()).commit == commit
        assert await contents(source, "manifests") == {"manifests/dev.yaml": b"other\n"}
        newer = Repository(git_repository.path).commit(files={"manifests/dev.yaml": "newer\n"})
        await ticks.next()
        assert (await source.head()).commit == newer


async def test_a_rewritten_branch(git_repository: Repository) -> None:
    first = git_repository.commit(files=FILES)
    second = git_repository.commit(files={"manifests/dev.yaml": "2"})
    source = open_local(git_repository.path)
    assert (await source.head()).commit == second
    git_repository.reset(first)
    third = git_repository.commit(files={"manifests/dev.yaml": "3"})
    assert (await source.head()).commit == third
    assert await source.is_ancestor(second, third) is False
    assert await source.is_ancestor(first, third) is True
    assert await source.is_ancestor("a" * 40, third) is None
    assert await source.is_ancestor("main", third) is None


async def test_a_shallow_repository(git_repository: Repository, tmp_path: Path) -> None:
    first = git_repository.commit(files=FILES)
    second = git_repository.commit(files={"README.md": "2"})
    git_repository.run("clone", "--quiet", "--depth=1", git_repository.url, str(tmp_path / "shallow"))
    source = open_local(tmp_path / "shallow")
    revision = await source.head()
    assert revision.commit == second
    assert len(await contents(source, "manifests", "migrations")) == 2
    assert await source.is_ancestor(first, second) is None
    change = await source.last_change(revision, "manifests/dev.yaml")
    assert change is not None
    assert change.commit == second
    # both commits are here, the way between them is not
    git_repository.run("config", "uploadpack.allowAnySHA1InWant", "true")
    Repository(tmp_path / "shallow").run("fetch", "--quiet", "--depth=1", "origin", first)
    assert await source.is_ancestor(first, second) is None


# kinds of repositories


async def test_a_linked_working_tree(git_repository: Repository, tmp_path: Path) -> None:
    commit = git_repository.commit(files=FILES)
    git_repository.run("worktree", "add", "--quiet", "-b", "feature/x", str(tmp_path / "linked"))
    source = open_local(tmp_path / "linked")
    assert (source.branch, source.root) == ("feature/x", tmp_path / "linked")
    assert (await source.head()).commit == commit
    async with Ticks(source) as ticks:
        newer = Repository(tmp_path / "linked").commit(files={"README.md": "2"})
        await ticks.next()
        assert (await source.head()).commit == newer


async def test_a_bare_repository_with_packed_references(git_repository: Repository, tmp_path: Path) -> None:
    commit = git_repository.commit(files=FILES)
    git_repository.run("clone", "--quiet", "--bare", git_repository.url, str(tmp_path / "bare.git"))
    assert run_git("-C", str(tmp_path / "bare.git"), "pack-refs", "--all") == 0
    assert not (tmp_path / "bare.git/refs/heads/main").exists()
    source = open_local(tmp_path / "bare.git")
    assert source.root is None
    assert (await source.head()).commit == commit
    assert len(await contents(source, "manifests")) == 1
    async with Ticks(source) as ticks:
        newer = git_repository.commit(files={"README.md": "2"})
        git_repository.run("push", "--quiet", str(tmp_path / "bare.git"), "main")
        await ticks.next()
        assert (await source.head()).commit == newer


async def test_sha256_objects(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    init = ("init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    assert run_git(*init, str(tmp_path / "r")) == 0
    commit = Repository(tmp_path / "r").commit(files=FILES)
    source = open_local(tmp_path / "r")
    assert len(commit) == 64
    assert (await source.head()).commit == commit
    assert len(await contents(source, "manifests", "migrations")) == 2


async def test_references_in_a_reftable(tmp_path: Path) -> None:
    init = ("init", "--quiet", "--ref-format=reftable", "--initial-branch=main")
    if run_git(*init, str(tmp_path / "r")) != 0:
        pytest.skip("this git has no reftable: following one is NOT tested")
    repository = Repository(tmp_path / "r")
    source = open_local(tmp_path / "r")
    repository.commit(files=FILES)
    await source.head()
    async with Ticks(source) as ticks:
        newer = repository.commit(files={"README.md": "2"})
        await ticks.next()
        assert (await source.head()).commit == newer


async def test_a_damaged_repository(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    revision = await source.head()
    blob = git_repository.run("rev-parse", "HEAD:manifests/dev.yaml")
    (git_repository.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(ProblemError, match="git fsck") as caught:
        await source.read(revision, ["manifests"])
    assert caught.value.problem.reason is Reason.FETCH_FAILED
    assert len(await contents(source, "migrations")) == 1


# history


async def test_last_change(git_repository: Repository) -> None:
    first = git_repository.commit(files=FILES)
    second = git_repository.commit(files={"README.md": "2"})
    source = open_local(git_repository.path)
    revision = await source.head()
    for _ in range(2):
        change = await source.last_change(revision, "manifests/dev.yaml")
        assert change is not None
        assert (change.commit, change.author) == (first, "Ada Author <ada@example.org>")
    readme = await source.last_change(revision, "README.md")
    assert readme is not None
    assert readme.commit == second
    assert await source.last_change(revision, "none") is None
    assert await source.last_change(revision, "../x") is None
    # later commits that leave it alone, then one that does not, then the old content again
    git_repository.commit(files={"README.md": "3"})
    change = await source.last_change(await source.head(), "manifests/dev.yaml")
    assert change is not None
    assert change.commit == first
    git_repository.commit(files={"manifests/dev.yaml": "2"})
    back = git_repository.commit(files={"manifests/dev.yaml": FILES["manifests/dev.yaml"]})
    change = await source.last_change(await source.head(), "manifests/dev.yaml")
    assert change is not None
    assert change.commit == back


async def test_last_change_of_a_path_with_wildcards(git_repository: Repository) -> None:
    first = git_repository.commit(files={"a*": "1", "ab": "1"})
    git_repository.commit(files={"ab": "2"})
    source = open_local(git_repository.path)
    change = await source.last_change(await source.head(), "a*")
    assert change is not None
    assert change.commit == first


# changes


async def test_a_commit_is_seen(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        for text in ("2", "3"):
            commit = git_repository.commit(files={"README.md": text})
            await ticks.next()
            assert (await source.head()).commit == commit


async def test_a_commit_between_head_and_changes_is_seen(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    await source.head()
    git_repository.commit(files={"README.md": "2"})
    async with Ticks(source) as ticks:
        await ticks.next()


async def test_packing_references_on_a_nested_branch_loses_nothing(git_repository: Repository) -> None:
    git_repository.run("checkout", "--quiet", "-b", "team/feature")
    git_repository.commit(files=FILES)
    source = open_local(git_repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        git_repository.run("pack-refs", "--all", "--prune")
        await ticks.next()
        await source.head()
        commit = git_repository.commit(files={"README.md": "2"})
        await ticks.next()
        assert (await source.head()).commit == commit


# whose repository, which repository


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
def test_a_repository_of_another_user_must_be_named(git_repository: Repository, tmp_path: Path) -> None:
    """As in a container whose user is not the owner of the mounted repository."""
    git_repository.commit(files=FILES)
    os.chown(git_repository.path, 12345, 12345)
    os.chown(git_repository.path / ".git", 12345, 12345)
    with pytest.raises(ProblemError, match="belongs to another user") as caught:
        open_local(git_repository.path, trusted=False)
    assert "--repo" in caught.value.problem.remedy
    assert open_local(git_repository.path).branch == "main"


async def test_a_named_repository_of_another_user_is_read(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    for path in (git_repository.path, git_repository.path / ".git"):
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
    source = open_local(git_repository.path)
    assert len(await contents(source, "manifests")) == 1


def test_identity_is_the_origin_or_the_path(git_repository: Repository) -> None:
    assert open_local(git_repository.path).repository == str(git_repository.path)
    git_repository.run("remote", "add", "origin", "git@example.org:team/app.git")
    assert open_local(git_repository.path).repository == "example.org/team/app"


def test_the_place_is_the_local_path_whatever_the_origin_is(git_repository: Repository) -> None:
    git_repository.run("remote", "add", "origin", "git@example.org:team/app.git")
    (git_repository.path / "below").mkdir()
    assert open_local(git_repository.path / "below").place == str(git_repository.path)
    assert open_local(git_repository.path / ".git").place in (
        str(git_repository.path), str(git_repository.path / ".git")
    )  # fmt: skip


def _open(repository: str | None, *, branch: str | None = None, working_tree: bool = False) -> object:
    return open_source(
        repository, branch=branch, working_tree=working_tree, state_folder=Path("/nonexistent"), interval=1,
        credentials=GitCredentials(),
    )  # fmt: skip


def test_open_source(git_repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git_repository.write({"below/x": "x"})
    monkeypatch.chdir(git_repository.path / "below")
    for name in (None, ".", str(git_repository.path)):
        source = _open(name)
        assert isinstance(source, LocalSource)
        assert source.root == git_repository.path
    with pytest.raises(UsageError, match="--working-tree"):
        _open("https://example.org/app", working_tree=True)
    with pytest.raises(UsageError):
        _open("-x")
    with pytest.raises(UsageError):
        _open(None, branch="--upload-pack=x")
    with pytest.raises(ProblemError, match="no folder"):
        _open(str(tmp_path / "none"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(ProblemError, match="not in a git repository"):
        _open(str(tmp_path / "plain"))


def test_opening_imports_nothing_heavy(git_repository: Repository) -> None:
    git_repository.commit(files=FILES)
    code = (
        # what the interpreter's own start brings along is not ours
        "import asyncio, sys\nbefore = set(sys.modules)\n"
        "from reconciler.source.local import open_local\n"
        "async def main():\n"
        "    s = open_local(sys.argv[1]); r = await s.head(); await s.read(r, ['manifests'])\n"
        "asyncio.run(main())\n"
        "print([m for m in ('git', 'watchfiles', 'tempfile', 'random', 'structlog') if m in set(sys.modules) - before])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(git_repository.path)], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
