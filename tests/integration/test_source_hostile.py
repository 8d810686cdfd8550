"""A repository that tries to have its reader run a program. Nothing of the kind may leave a trace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model import ProblemError, Reason, Source
from reconciler.source import GitCredentials
from reconciler.source.local import open_local
from reconciler.source.remote import RemoteSource
from reconciler.source.working_tree import open_working_tree
from tests.git import Repository
from tests.integration.source_support import Ticks, run_git

FOLDERS = ["manifests", "migrations"]


@pytest.fixture(name="marks")
def _marks(tmp_path: Path) -> Iterator[Path]:
    """A folder in which every program the repository names leaves a file; it must stay empty."""
    marks = tmp_path / "executed"
    marks.mkdir()
    yield marks
    assert list(marks.iterdir()) == []


def program(marks: Path, name: str) -> str:
    path = marks.parent / f"program-{name}"
    path.write_text(f"#!/bin/sh\ntouch {marks}/{name}\n")
    path.chmod(0o755)
    return str(path)


def booby_trap(repository: Repository, marks: Path) -> None:
    """Set everything by which a repository's configuration can name a program."""
    for setting in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy",
        "core.alternateRefsCommand", "credential.helper", "gpg.program", "gpg.ssh.program", "diff.external",
        "diff.evil.textconv", "diff.evil.command", "filter.evil.smudge", "filter.evil.clean", "filter.evil.process",
        "uploadpack.packObjectsHook", "sequence.editor", "remote.origin.uploadpack", "remote.origin.receivepack",
        "pager.log", "pager.cat-file", "merge.evil.driver", "interactive.diffFilter", "alias.cat-file",
        "alias.rev-list", "trailer.x.command",
    ):  # fmt: skip
        repository.run("config", setting, program(marks, setting))
    repository.run("config", "log.showSignature", "true")
    repository.run("config", "core.hooksPath", str(marks.parent / "hooks"))
    repository.run("config", "protocol.ext.allow", "always")
    repository.run("config", "remote.origin.url", f"ext::{program(marks, 'ext')}")
    for folder in (marks.parent / "hooks", repository.path / ".git/hooks"):
        folder.mkdir(exist_ok=True)
        for hook in (
            "post-checkout",
            "reference-transaction",
            "post-index-change",
            "fsmonitor-watchman",
            "pre-auto-gc",
        ):
            (folder / hook).write_text(f"#!/bin/sh\ntouch {marks}/{hook}\n")
            (folder / hook).chmod(0o755)


@pytest.fixture(name="trapped")
def _trapped(git_repository: Repository, marks: Path) -> Repository:
    git_repository.commit(
        files={
            "manifests/dev.yaml": "1",
            "migrations/1.sql": "one",
            ".gitattributes": "* diff=evil filter=evil merge=evil\n",
            ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch /tmp/x"\n\tupdate = !touch /tmp/x\n',
        }
    )
    booby_trap(git_repository, marks)
    return git_repository


async def use(source: Source) -> None:
    """Everything a source can be asked."""
    revision = await source.head()
    snapshot = await source.read(revision, FOLDERS)
    assert len(snapshot.files) == 2
    assert source.repository
    assert await source.last_change(revision, "manifests/dev.yaml") is not None
    assert await source.is_ancestor(revision.commit, revision.commit) is True
    assert await source.is_ancestor("a" * 40, revision.commit) is None


def test_the_traps_work(trapped: Repository, marks: Path) -> None:
    """Without our precautions, they do execute."""
    with contextlib.suppress(AssertionError):
        trapped.run("status")
    assert list(marks.iterdir()) != []
    for mark in marks.iterdir():
        mark.unlink()


async def test_a_local_repository(trapped: Repository) -> None:
    await use(open_local(trapped.path))


async def test_a_working_tree(trapped: Repository) -> None:
    await use(open_working_tree(trapped.path))


async def test_a_remote_repository_on_this_machine(trapped: Repository, tmp_path: Path) -> None:
    for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        trapped.run("config", setting, "true")
    source = RemoteSource(
        trapped.url, branch="main", state_folder=tmp_path / "state", interval=30, credentials=GitCredentials()
    )
    await use(source)


async def test_what_is_fetched_is_checked(trapped: Repository, tmp_path: Path) -> None:
    """Without filters the hostile .gitmodules arrives, and git's own check refuses it."""
    source = RemoteSource(
        trapped.url, branch="main", state_folder=tmp_path / "state", interval=30, credentials=GitCredentials()
    )
    with pytest.raises(ProblemError, match="fsck") as caught:
        await source.head()
    assert caught.value.problem.reason is Reason.FETCH_FAILED


async def test_a_partial_clone_fetches_nothing_behind_our_back(
    git_repository: Repository, tmp_path: Path, marks: Path
) -> None:
    git_repository.commit(files={"manifests/dev.yaml": "1"})
    git_repository.run("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    assert (
        run_git("clone", "--quiet", "--no-checkout", "--filter=blob:none", git_repository.url, str(clone))
        == 0
    )
    booby_trap(Repository(clone), marks)
    for url in (f"ext::{program(marks, 'ext')}", git_repository.url):
        Repository(clone).run("config", "remote.origin.url", url)
        source = open_local(clone)
        with pytest.raises(ProblemError, match="refetch") as caught:
            await source.read(await source.head(), ["manifests"])
        assert caught.value.problem.reason is Reason.FETCH_FAILED


async def test_replacement_objects_do_not_count(git_repository: Repository) -> None:
    git_repository.commit(files={"manifests/dev.yaml": "1"})
    evil = git_repository.run("hash-object", "-w", "--stdin", stdin=b"evil")
    git_repository.run("replace", git_repository.run("rev-parse", "HEAD:manifests/dev.yaml"), evil)
    source = open_local(git_repository.path)
    snapshot = await source.read(await source.head(), ["manifests"])
    assert snapshot.files["manifests/dev.yaml"].content == b"1"


async def test_the_callers_environment_does_not_count(
    trapped: Repository, tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.commit(files={"manifests/dev.yaml": "wrong"})
    for name, value in {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": str(other.path),
        "GIT_OBJECT_DIRECTORY": str(other.path / ".git/objects"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": program(marks, "environment"),
        "GIT_SSH_COMMAND": program(marks, "ssh"),
        "GIT_ASKPASS": program(marks, "askpass"),
        "GIT_EXTERNAL_DIFF": program(marks, "diff"),
        "GIT_TRACE": str(marks / "trace"),
        "GIT_NAMESPACE": "wrong",
        "GIT_SHALLOW_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    await use(open_local(trapped.path))
    trapped.run("config", "uploadpack.allowFilter", "true")
    await use(
        RemoteSource(
            trapped.url,
            branch="main",
            state_folder=tmp_path / "state",
            interval=30,
            credentials=GitCredentials(),
        )
    )


async def test_an_author_cannot_forge_output(git_repository: Repository) -> None:
    git_repository.write({"manifests/dev.yaml": "1"})
    git_repository.run("add", "--all")
    git_repository.run("commit", "--quiet", "--author=A\x1b[2J\x07 <a\x08@b>", "--message=x")
    source = open_local(git_repository.path)
    revision = await source.head()
    change = await source.last_change(revision, "manifests/dev.yaml")
    assert revision.author.isprintable()
    assert change is not None
    assert change.author == revision.author


async def test_a_commit_beyond_the_calendar(git_repository: Repository) -> None:
    tree = git_repository.run("mktree", stdin=b"")
    raw = f"tree {tree}\nauthor A <a@b> 99999999999999999 +0000\ncommitter A <a@b> 99999999999999999 +0000\n\nx\n"
    commit = git_repository.run(
        "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=raw.encode()
    )
    (git_repository.path / ".git/refs/heads/main").write_text(f"{commit}\n")
    source = open_local(git_repository.path)
    assert (await source.head()).committed_at.year == 9999
    assert (await source.read(await source.head(), FOLDERS)).files == {}


async def test_a_flood_of_commits_is_followed_to_the_last(git_repository: Repository) -> None:
    git_repository.commit(files={"manifests/dev.yaml": "0"})
    source = open_local(git_repository.path)
    await source.head()
    async with Ticks(source) as ticks:
        commits = await asyncio.to_thread(lambda: [git_repository.commit() for _ in range(20)])
        await ticks.next()
        for _ in range(100):
            if (await source.head()).commit == commits[-1]:
                break
            await ticks.next()
        assert (await source.head()).commit == commits[-1]
