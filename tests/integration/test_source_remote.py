from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.model import Reason, Revision
from reconciler.redaction import Secret
from reconciler.source import GitCredentials, open_source
from reconciler.source.mirror import Deadlines
from reconciler.source.remote import RemoteSource
from tests.canaries import token
from tests.git import Repository
from tests.integration.source_support import HttpServer, SshServer, Ticks, expect, run_git, serving

TOKEN = token()
FILES: dict[str, str | bytes | None] = {
    "manifests/dev.yaml": "target_version: 1\n",
    "migrations/00001_first.sql": "-- UP MIGRATION\n",
    "migrations/archive/00000_old.sql": "old\n",
    "README.md": "hello\n",
}


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "served" / "app")
    repository.commit(files=FILES)
    repository.run("config", "uploadpack.allowFilter", "true")
    return repository


@pytest.fixture(name="server")
def _server(repository: Repository) -> Iterator[HttpServer]:
    with serving(repository.path.parent) as server:
        yield server


def open_remote(
    url: str,
    tmp_path: Path,
    branch: str | None = "main",
    *,
    interval: float = 30.0,
    credentials: GitCredentials | None = None,
    deadlines: Deadlines | None = None,
) -> RemoteSource:
    return RemoteSource(
        url, branch=branch, state_folder=tmp_path / "state", interval=interval,
        credentials=credentials or GitCredentials(), deadlines=deadlines,
    )  # fmt: skip


async def contents(source: RemoteSource, revision: Revision | None = None) -> dict[str, bytes]:
    snapshot = await source.read(revision or await source.head(), ["manifests", "migrations"])
    return {path: file.content for path, file in snapshot.files.items()}


def mirror_of(tmp_path: Path) -> Path:
    (mirror,) = (tmp_path / "state" / "mirrors").glob("*.git")
    return mirror


def packs(tmp_path: Path) -> int:
    return len(list((mirror_of(tmp_path) / "objects/pack").glob("*.pack")))


async def test_head_and_read_over_http(repository: Repository, server: HttpServer, tmp_path: Path) -> None:
    source = open_remote(f"{server.url}/app/.git", tmp_path)
    assert source.repository == f"127.0.0.1:{server.port}/app"
    revision = await source.head()
    assert revision.commit == repository.head
    expected = {
        "manifests/dev.yaml": b"target_version: 1\n",
        "migrations/00001_first.sql": b"-- UP MIGRATION\n",
    }
    assert await contents(source, revision) == expected
    # one pack of history, one of all files: never file by file
    assert packs(tmp_path) == 2
    server.requests.clear()
    assert await contents(source, await source.head()) == expected
    assert [request for request in server.requests if "git-upload-pack" in request] == [
        "/app/.git/info/refs?service=git-upload-pack",
        "/app/.git/git-upload-pack",
    ], "unchanged: branches listed, nothing fetched"


async def test_an_update_is_fetched(repository: Repository, server: HttpServer, tmp_path: Path) -> None:
    source = open_remote(f"{server.url}/app/.git", tmp_path)
    first = await source.head()
    await contents(source, first)
    commit = repository.commit(files={"manifests/dev.yaml": "target_version: 2\n", "manifests/new.yaml": "x"})
    revision = await source.head()
    assert revision.commit == commit
    assert (await contents(source, revision))["manifests/dev.yaml"] == b"target_version: 2\n"
    assert (await contents(source, first))["manifests/dev.yaml"] == b"target_version: 1\n"
    assert await source.is_ancestor(first.commit, commit) is True
    change = await source.last_change(revision, "migrations/00001_first.sql")
    assert change is not None
    assert change.commit == first.commit


@pytest.mark.parametrize("filters", ["true", "false"])
async def test_a_file_url_with_and_without_filters(
    repository: Repository, tmp_path: Path, filters: str
) -> None:
    repository.run("config", "uploadpack.allowFilter", filters)
    source = open_remote(repository.url, tmp_path)
    for text in ("2", "3"):
        repository.commit(files={"manifests/dev.yaml": text, "README.md": text})
        assert (await contents(source))["manifests/dev.yaml"] == text.encode()


async def test_a_server_that_gives_out_no_single_objects(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """Protocol version 0 refuses what is not a tip; the mirror is then made with everything in it."""
    repository.run("config", "protocol.version", "0")
    source = open_remote(f"{server.url}/app/.git", tmp_path)
    server.protocol = ""
    assert len(await contents(source)) == 2
    repository.commit(files={"manifests/dev.yaml": "2"})
    assert (await contents(source))["manifests/dev.yaml"] == b"2"
    assert (mirror_of(tmp_path) / "reconciler-unfiltered").exists()


async def test_many_files_are_fetched_at_once(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    repository.commit(files={f"migrations/{n:05}_x.sql": f"select {n};" for n in range(2, 3000)})
    source = open_remote(f"{server.url}/app/.git", tmp_path)
    assert len(await contents(source)) == 3000
    assert packs(tmp_path) == 2


async def test_the_default_branch_is_pinned(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    source = open_remote(f"{server.url}/app/.git", tmp_path, branch=None)
    first = await source.head()
    assert (source.branch, first.branch) == ("main", "main")
    repository.run("checkout", "--quiet", "-b", "other")
    repository.commit(files={"README.md": "other"})
    assert await source.head() == first


async def test_empty_then_filled(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "served" / "app")
    source = open_remote(repository.url, tmp_path, branch=None)
    await expect(source, Reason.REPOSITORY_EMPTY)
    commit = repository.commit(files=FILES)
    assert (await source.head()).commit == commit


async def test_no_such_branch(repository: Repository, tmp_path: Path) -> None:
    source = open_remote(repository.url, tmp_path, branch="production")
    problem = await expect(source, Reason.BRANCH_NOT_FOUND)
    assert "'production'" in problem.message
    assert "main" in problem.message
    repository.branch("production")
    assert (await source.head()).branch == "production"


async def test_two_branches_share_a_mirror(repository: Repository, tmp_path: Path) -> None:
    repository.run("checkout", "--quiet", "-b", "team/other")
    repository.commit(files={"manifests/dev.yaml": "other"})
    main, other = (
        open_remote(repository.url, tmp_path),
        open_remote(repository.url, tmp_path, branch="team/other"),
    )
    assert (await contents(main))["manifests/dev.yaml"] == b"target_version: 1\n"
    assert (await contents(other))["manifests/dev.yaml"] == b"other"
    mirror_of(tmp_path)


async def test_a_force_push(repository: Repository, tmp_path: Path) -> None:
    first = repository.head
    second = repository.commit(files={"manifests/dev.yaml": "2"})
    source = open_remote(repository.url, tmp_path)
    await contents(source)
    repository.reset(first)
    third = repository.commit(files={"manifests/dev.yaml": "3"})
    assert (await contents(source))["manifests/dev.yaml"] == b"3"
    assert await source.is_ancestor(second, third) is False
    assert await source.is_ancestor(first, third) is True


async def test_sha256_and_a_repository_made_anew(repository: Repository, tmp_path: Path) -> None:
    source = open_remote(repository.url, tmp_path)
    await contents(source)
    shutil.rmtree(repository.path)
    repository.path.mkdir()
    init = ("init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    assert run_git(*init, str(repository.path)) == 0
    commit = Repository(repository.path).commit(files={"manifests/dev.yaml": "new"})
    assert (await source.head()).commit == commit
    assert await contents(source) == {"manifests/dev.yaml": b"new"}


async def test_a_server_that_is_away_for_a_while(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    source = open_remote(f"{server.url}/app/.git", tmp_path)
    revision = await source.head()
    before = await contents(source, revision)
    server.stop()
    problem = await expect(source, Reason.FETCH_FAILED)
    assert f"127.0.0.1:{server.port}" in problem.message
    assert await contents(source, revision) == before, "what is here stays readable"
    assert await source.last_change(revision, "README.md") is not None
    commit = repository.commit(files={"README.md": "2"})
    server.start()
    assert (await source.head()).commit == commit


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    async def swallow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        writer.close()

    listener = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    source = open_remote(f"http://127.0.0.1:{port}/app", tmp_path, deadlines=Deadlines(list=0.3))
    problem = await expect(source, Reason.FETCH_FAILED)
    assert "0.3 s" in problem.message

    patient = open_remote(f"http://127.0.0.1:{port}/app", tmp_path, deadlines=Deadlines(list=3600))
    looking = asyncio.create_task(patient.head())
    while not _children_named(b"ls-remote", str(port)):
        await asyncio.sleep(0.01)
    looking.cancel()
    async with asyncio.timeout(15):
        with pytest.raises(asyncio.CancelledError):
            await looking
    assert not _children_named(b"ls-remote", str(port)), "who stops waiting stops the work"
    listener.close()


def _children_named(command: bytes, port: str) -> list[bytes]:
    return [line for line in _command_lines() if command in line and port.encode() in line]


def _command_lines() -> list[bytes]:
    lines = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            lines.append((entry / "cmdline").read_bytes())
    return lines


async def test_a_missing_repository(server: HttpServer, tmp_path: Path) -> None:
    problem = await expect(open_remote(f"{server.url}/none", tmp_path), Reason.FETCH_FAILED)
    assert "not found" in problem.message
    assert "credentials" in problem.remedy


# credentials


async def test_the_token(repository: Repository, tmp_path: Path) -> None:
    with serving(repository.path.parent, token=TOKEN) as server:
        url = f"{server.url}/app/.git"
        without = await expect(open_remote(url, tmp_path), Reason.AUTHENTICATION_FAILED)
        assert "--git-token" in without.remedy
        wrong = GitCredentials(token=Secret("wrong-token-canary"))
        problem = await expect(open_remote(url, tmp_path, credentials=wrong), Reason.AUTHENTICATION_FAILED)
        assert "wrong-token-canary" not in str(problem)
        right = open_remote(url, tmp_path, credentials=GitCredentials(token=Secret(TOKEN)))
        assert len(await contents(right)) == 2
        named = open_remote(
            url.replace("//", "//robot@"), tmp_path, credentials=GitCredentials(token=Secret(TOKEN))
        )
        assert len(await contents(named)) == 2
    for mirror in (tmp_path / "state" / "mirrors").rglob("*"):
        assert mirror.is_dir() or TOKEN.encode() not in mirror.read_bytes()


async def test_a_token_that_is_rotated(repository: Repository, tmp_path: Path) -> None:
    current = Secret(TOKEN)

    async def renew() -> Secret:
        return current

    with serving(repository.path.parent, token=TOKEN) as server:
        credentials = GitCredentials(token=current, renew=renew)
        source = open_remote(f"{server.url}/app/.git", tmp_path, credentials=credentials)
        await source.head()
        server.token = token()
        await expect(source, Reason.AUTHENTICATION_FAILED)
        current = Secret("line\nbreak")
        await expect(source, Reason.FETCH_FAILED)
        current = Secret(server.token)
        repository.commit(files={"migrations/2_b.sql": "-- UP MIGRATION\n"})
        assert len(await contents(source)) == 3


async def test_the_token_is_in_no_command_line(repository: Repository, tmp_path: Path) -> None:
    seen: set[bytes] = set()
    with serving(repository.path.parent, token=TOKEN) as server:
        source = open_remote(
            f"{server.url}/app/.git", tmp_path, credentials=GitCredentials(token=Secret(TOKEN))
        )
        working = asyncio.create_task(contents(source))
        while not working.done():
            seen.update(_command_lines())
            await asyncio.sleep(0)
        await working
    ours = [line for line in seen if str(server.port).encode() in line]
    assert any(b"ls-remote" in line for line in ours)
    assert not [line for line in seen if TOKEN.encode() in line]


async def test_the_token_does_not_follow_a_redirect(repository: Repository, tmp_path: Path) -> None:
    with serving(repository.path.parent, token=TOKEN) as elsewhere, serving(repository.path.parent) as server:
        server.redirect = elsewhere.url
        source = open_remote(
            f"{server.url}/app/.git", tmp_path, credentials=GitCredentials(token=Secret(TOKEN))
        )
        await expect(source, Reason.AUTHENTICATION_FAILED)
        assert elsewhere.requests


async def test_ssh(repository: Repository, tmp_path: Path) -> None:
    with SshServer(tmp_path / "ssh") as ssh:
        url = ssh.url(repository.path)
        good = GitCredentials(ssh_key=ssh.key, known_hosts=ssh.known_hosts)
        source = open_remote(url, tmp_path, credentials=good)
        assert len(await contents(source)) == 2
        repository.commit(files={"manifests/dev.yaml": "2"})
        assert (await contents(source))["manifests/dev.yaml"] == b"2"
        wrong_key = open_remote(url, tmp_path, credentials=replace(good, ssh_key=ssh.other_key))
        await expect(wrong_key, Reason.AUTHENTICATION_FAILED)
        wrong_host = open_remote(url, tmp_path, credentials=replace(good, known_hosts=ssh.wrong_hosts))
        problem = await expect(wrong_host, Reason.AUTHENTICATION_FAILED)
        assert "--git-known-hosts" in problem.remedy


# a mirror that was left in a bad state


async def test_interrupted_by_sigkill(repository: Repository, tmp_path: Path) -> None:
    source = open_remote(repository.url, tmp_path)
    await contents(source)
    mirror = mirror_of(tmp_path)
    for leftover in ("refs/heads/main.lock", "packed-refs.lock", "config.lock", "shallow.lock"):
        (mirror / leftover).write_text("")
    (mirror / "objects/pack/tmp_pack_x").write_bytes(b"half")
    made = mirror.stat().st_ino
    commit = repository.commit(files={"manifests/dev.yaml": "2"})
    assert (await source.head()).commit == commit
    assert (await contents(source))["manifests/dev.yaml"] == b"2"
    assert mirror.stat().st_ino == made, "cleaned, not made anew"
    assert not list(mirror.rglob("*.lock"))
    assert not (mirror / "objects/pack/tmp_pack_x").exists()


async def test_a_first_fetch_that_was_killed(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom reconciler.source import *\n"
        "s = open_source(sys.argv[1], branch='main', working_tree=False, state_folder=Path(sys.argv[2]), interval=1,"
        " credentials=GitCredentials())\nprint('go', flush=True)\nasyncio.run(s.head())\n"
    )
    url = f"{server.url}/app/.git"
    for pause in (0.05, 0.15, 0.25):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, url, str(tmp_path / "state"), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        await child.stdout.readline()
        await asyncio.sleep(pause)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        await child.wait()
    assert len(await contents(open_remote(url, tmp_path))) == 2


@pytest.mark.parametrize(
    "damage",
    ["packs gone", "pack cut", "HEAD gone", "config garbage", "reference garbage", "not a folder's content"],
)
async def test_a_damaged_mirror_is_made_anew(repository: Repository, tmp_path: Path, damage: str) -> None:
    source = open_remote(repository.url, tmp_path)
    before = await contents(source)
    mirror = mirror_of(tmp_path)
    pack_files = list((mirror / "objects/pack").iterdir())
    if damage == "packs gone":
        for file in pack_files:
            file.unlink()
    elif damage == "pack cut":
        for file in pack_files:
            if file.suffix == ".pack":
                file.chmod(0o600)
                file.write_bytes(file.read_bytes()[:20])
    elif damage == "HEAD gone":
        (mirror / "HEAD").unlink()
    elif damage == "config garbage":
        (mirror / "config").write_text("[core\n\0")
    elif damage == "reference garbage":
        (mirror / "refs/heads/main").write_text("garbage\n")
    else:
        shutil.rmtree(mirror)
        mirror.mkdir()
    # a new process, which has nothing in memory
    again = open_remote(repository.url, tmp_path)
    assert await contents(again) == before
    assert (await again.head()).commit == repository.head


async def test_files_lost_from_the_mirror(repository: Repository, tmp_path: Path) -> None:
    source = open_remote(repository.url, tmp_path)
    revision = await source.head()
    await contents(source, revision)
    for file in (mirror_of(tmp_path) / "objects/pack").iterdir():
        file.unlink()
    again = open_remote(repository.url, tmp_path)
    assert len(await contents(again, revision)) == 2, "read() mends it by itself"


async def test_two_processes_on_one_mirror(repository: Repository, tmp_path: Path) -> None:
    sources = [open_remote(repository.url, tmp_path) for _ in range(4)]
    for text in ("1", "2", "3"):
        repository.commit(files={"manifests/dev.yaml": text})
        found = await asyncio.gather(*(contents(source) for source in sources))
        assert [files["manifests/dev.yaml"] for files in found] == [text.encode()] * 4


async def test_a_mirror_that_another_process_holds(repository: Repository, tmp_path: Path) -> None:
    source = open_remote(repository.url, tmp_path, deadlines=Deadlines(lock=0.2))
    await source.head()
    commit = repository.commit()
    lock = os.open(mirror_of(tmp_path).with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    problem = await expect(source, Reason.FETCH_FAILED)
    assert "another process" in problem.message
    os.close(lock)
    assert (await source.head()).commit == commit


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_state_folder_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    await expect(open_remote(repository.url, tmp_path), Reason.FETCH_FAILED)


async def test_a_state_folder_that_is_a_file(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    problem = await expect(open_remote(repository.url, tmp_path), Reason.FETCH_FAILED)
    assert str(tmp_path / "state") in problem.message


# changes


async def test_changes_beat_and_poke(repository: Repository, tmp_path: Path) -> None:
    async with Ticks(open_remote(repository.url, tmp_path, interval=0.02)) as ticks:
        for _ in range(3):
            await ticks.next()
    slow = open_remote(repository.url, tmp_path, interval=3600)
    async with Ticks(slow) as ticks:
        slow.poke()
        await ticks.next()
        slow.poke()
        await ticks.next()
        assert ticks.count == 2


# whose repository


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
async def test_a_file_url_of_another_user(repository: Repository, tmp_path: Path) -> None:
    for path in (repository.path, repository.path / ".git"):
        os.chown(path, 12345, 12345)
    assert len(await contents(open_remote(repository.url, tmp_path))) == 2


def test_open_source_takes_urls(tmp_path: Path) -> None:
    source = open_source(
        "git@example.org:team/app.git", branch=None, working_tree=False, state_folder=tmp_path / "state", interval=30,
        credentials=GitCredentials(),
    )  # fmt: skip
    assert isinstance(source, RemoteSource)
    assert (source.root, source.branch, source.repository) == (None, "HEAD", "example.org/team/app")
    assert source.place == "ssh://example.org/team/app.git"
    assert not (tmp_path / "state").exists(), "opening touches nothing"


def test_bad_intervals_and_urls(tmp_path: Path) -> None:
    for url, interval in (("https://example.org/app", 0.0), ("ext::sh -c x", 1.0)):
        with pytest.raises(UsageError):
            open_remote(url, tmp_path, interval=interval)


async def test_git_is_not_installed(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_remote(repository.url, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = await expect(source, Reason.FETCH_FAILED)
    assert "install git" in problem.remedy
