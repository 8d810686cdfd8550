"""The embedded PostgreSQL: real servers, in this process and shared with others."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from reconciler.embedded import EmbeddedServer
from reconciler.embedded.cluster import Cluster
from reconciler.embedded.installation import find_installation
from reconciler.model import ProblemError, Reason
from tests.servers import debian_installation

_REPOSITORY = Path(__file__).resolve().parents[2]
_IS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(
    not _IS_ROOT, reason="needs root: an ordinary user has one way to run a server"
)


def cluster_of(folder: Path) -> Cluster:
    home = folder / "postgresql"
    return Cluster(home / "data", home / "log", home / "server.lock")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ".reconciler"
    yield folder
    if (folder / "postgresql").exists():
        cluster_of(folder).stop()


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[EmbeddedServer]:
    """Not the session's shared server of that name, but an embedded one."""
    server = EmbeddedServer(folder)
    yield server
    await server.stop()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A short folder that every account can reach, which pytest's own folders are not."""
    parent = Path(tempfile.mkdtemp(prefix="emb-", dir="/tmp"))
    parent.chmod(0o755)
    yield parent
    for home in parent.rglob("server.lock"):
        cluster_of(home.parent.parent).stop()
    shutil.rmtree(parent)


def socket_directory(dsn: str) -> Path:
    return Path(str(conninfo_to_dict(dsn)["host"]))


def open_to_others(path: Path) -> bool:
    return path.stat().st_mode & 0o077 != 0


def exists(path: Path) -> bool:
    return path.exists()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run_in_shell(command: str) -> str:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True).stdout


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of 12 MB on `path`."""
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class Other:
    """Another process that uses the server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def answer(self) -> dict[str, str]:
        """Wait until it has the server, or has failed, and return what it says."""
        assert self.process.stdout is not None
        answer: dict[str, str] = json.loads(self.process.stdout.readline())
        return answer

    def dsn(self) -> str:
        answer = self.answer()
        assert "dsn" in answer, answer
        return answer["dsn"]

    def end(self) -> None:
        """Let it go in an orderly way."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def other_process(
    folder: Path,
    *arguments: str,
    interpreter: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Other]:
    """Start another process that uses the server, and end it."""
    process = subprocess.Popen(
        [*interpreter, "-m", "tests.integration.embedded_process", str(folder), *arguments],
        cwd=_REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        other = Other(process)
        try:
            yield other
        finally:
            other.end()


# one process


async def test_it_starts_on_need_and_keeps_its_data(folder: Path, server: EmbeddedServer) -> None:
    dsn = await server.dsn("dev")
    execute(dsn, "CREATE TABLE t AS SELECT 7 AS i")
    await server.stop()
    assert not cluster_of(folder).alive
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    assert execute(await server.dsn("dev"), "SELECT i FROM t") == [(7,)]


async def test_it_is_durable_has_no_port_and_speaks_unicode(server: EmbeddedServer) -> None:
    dsn = await server.dsn("dev")
    shown = {
        name: execute(dsn, f"SHOW {name}")[0][0]
        for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "server_encoding")
    }
    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
    }
    assert execute(dsn, "SELECT upper('é')") == [("É",)]


async def test_only_its_user_gets_near_the_socket_and_the_data(public_folder: Path) -> None:
    folder = public_folder / ".reconciler"
    server = EmbeddedServer(folder)
    directory = socket_directory(await server.start())
    for path in (folder, folder / "postgresql", folder / "postgresql/data", directory):
        assert not open_to_others(path), path
    assert directory == folder / "postgresql/socket"
    await server.stop()


async def test_git_does_not_see_it(folder: Path, server: EmbeddedServer) -> None:
    await server.start()
    assert (folder / ".gitignore").read_text() == "*\n"


async def test_each_name_is_a_database_of_its_own(server: EmbeddedServer) -> None:
    names = [
        "dev",
        "Dev",
        'we"ird',
        "it's",
        "back\\slash",
        "with space",
        "$(id)",
        "staging.orders",
        "ü",
        "x" * 63,
    ]
    for name in names:
        dsn = await server.dsn(name)
        assert execute(dsn, "SELECT current_database()") == [(name,)]
        assert await server.dsn(name) == dsn


@pytest.mark.parametrize("name", ["", "x" * 64, "ü" * 32, "a\0b"])
async def test_an_impossible_name_is_refused(server: EmbeddedServer, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be named"):
        await server.dsn(name)


async def test_a_dropped_database_is_made_again(server: EmbeddedServer) -> None:
    dsn = await server.dsn("dev")
    execute(await server.start(), "DROP DATABASE dev")
    assert await server.dsn("dev") == dsn
    assert execute(dsn, "SELECT 1") == [(1,)]


async def test_many_may_ask_at_once(folder: Path, server: EmbeddedServer) -> None:
    second = EmbeddedServer(folder)
    names = ["a", "b", "a", "b", "a"]
    found = await asyncio.gather(*(each.dsn(name) for each in (server, second) for name in names))
    assert len(set(found)) == 2
    assert {execute(dsn, "SELECT current_database()")[0][0] for dsn in found} == {"a", "b"}
    await second.stop()


async def test_the_psql_command_works_in_a_shell(folder: Path, server: EmbeddedServer) -> None:
    from reconciler.embedded import psql_command

    dsn = await server.dsn("it's $HOME")
    command = f"{psql_command(dsn)} -Atc 'SELECT current_database()'"
    assert run_in_shell(command) == "it's $HOME\n"


async def test_ctrl_c_in_the_terminal_does_not_reach_it(folder: Path, server: EmbeddedServer) -> None:
    await server.start()
    found = cluster_of(folder).pid_file()
    assert found is not None
    assert os.getsid(found.pid) != os.getsid(0)
    assert os.getpgid(found.pid) != os.getpgid(0)


async def test_a_cancelled_start_leaves_no_server_behind(folder: Path, server: EmbeddedServer) -> None:
    task = asyncio.create_task(server.start())
    await asyncio.sleep(0)
    wait_until(lambda: cluster_of(folder).alive)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.stop()
    assert not cluster_of(folder).alive


async def test_stopping_what_was_never_started_is_fine(folder: Path) -> None:
    await EmbeddedServer(folder).stop()
    assert not exists(folder)


# places


@pytest.mark.parametrize(
    "name", ["deep/" * 25 + "folder", "comma,and space", "quo\"te's", "ünïcødé", "-dash=equals\\"]
)
async def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / ".reconciler"
    folder.parent.mkdir(parents=True)
    server = EmbeddedServer(folder)
    try:
        dsn = await server.dsn("dev")
        assert execute(dsn, "SELECT 1") == [(1,)]
        directory = socket_directory(dsn)
        assert not open_to_others(directory)
    finally:
        await server.stop()
    assert not exists(directory)
    # a temporary folder made for the socket is gone as well
    assert directory.parent == folder / "postgresql" or not exists(directory.parent)


async def test_the_folder_deleted_under_a_running_server(folder: Path, server: EmbeddedServer) -> None:
    execute(await server.dsn("dev"), "CREATE TABLE t (i int)")
    old = cluster_of(folder).pid_file()
    assert old is not None
    shutil.rmtree(folder)
    try:
        assert execute(await server.dsn("dev"), "SELECT to_regclass('t')") == [(None,)]
        assert cluster_of(folder).pid_file() != old
    finally:
        # it would notice within a minute by itself
        os.kill(old.pid, signal.SIGQUIT)


# several processes


async def test_the_last_one_out_stops_it(folder: Path, server: EmbeddedServer) -> None:
    dsn = await server.dsn("dev")
    with other_process(folder) as other:
        assert other.dsn() == dsn
        await server.stop()
        assert execute(dsn, "SELECT 1") == [(1,)]
        other.end()
    assert not cluster_of(folder).alive


async def test_a_command_leaves_the_daemons_server_running(folder: Path, server: EmbeddedServer) -> None:
    dsn = await server.dsn("dev")
    before = cluster_of(folder).pid_file()
    with other_process(folder) as other:
        other.dsn()
        other.end()
    assert execute(dsn, "SELECT 1") == [(1,)]
    assert cluster_of(folder).pid_file() == before


def test_processes_that_start_it_at_the_same_time_share_it(folder: Path) -> None:
    folder.mkdir()
    with ExitStack() as stack:
        others = [stack.enter_context(other_process(folder)) for _ in range(4)]
        dsns = {other.dsn() for other in others}
        assert len(dsns) == 1
        assert execute(dsns.pop(), "SELECT 1") == [(1,)]
    assert not cluster_of(folder).alive


async def test_a_server_left_by_a_killed_process_is_adopted(folder: Path, server: EmbeddedServer) -> None:
    with other_process(folder) as other:
        execute(other.dsn(), "CREATE TABLE t AS SELECT 7 AS i")
        left = cluster_of(folder).pid_file()
        other.kill()
    assert cluster_of(folder).alive
    assert execute(await server.dsn("dev"), "SELECT i FROM t") == [(7,)]
    assert cluster_of(folder).pid_file() == left
    await server.stop()
    assert not cluster_of(folder).alive


async def test_an_interrupted_first_start_is_begun_anew(folder: Path, server: EmbeddedServer) -> None:
    unfinished = folder / "postgresql/data.unfinished"
    with other_process(folder) as other:
        wait_until((unfinished / "base").exists)
        other.kill()
    assert not exists(folder / "postgresql/data")
    assert execute(await server.dsn("dev"), "SELECT 1") == [(1,)]
    assert not unfinished.exists()


# crashes


async def test_a_killed_server_is_started_again_with_what_was_committed(
    folder: Path, server: EmbeddedServer
) -> None:
    execute(await server.dsn("dev"), "CREATE TABLE t AS SELECT 7 AS i")
    cluster_of(folder).kill()
    assert execute(await server.dsn("dev"), "SELECT i FROM t") == [(7,)]


async def test_the_process_id_of_a_dead_server_may_belong_to_anybody(
    folder: Path, server: EmbeddedServer
) -> None:
    await server.dsn("dev")
    cluster = cluster_of(folder)
    found = cluster.pid_file()
    assert found is not None
    cluster.kill()
    with bystander() as process:
        pid_file = cluster.data / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(str(found.pid), str(process.pid), 1))
        assert execute(await server.dsn("dev"), "SELECT 1") == [(1,)]
        # killed again, and its number taken again: stopping must not end a stranger
        again = cluster.pid_file()
        assert again is not None
        cluster.kill()
        pid_file.write_text(pid_file.read_text().replace(str(again.pid), str(process.pid), 1))
        await server.stop()
        assert process.poll() is None
    assert not cluster.alive


async def test_stopping_a_dead_server_signals_nobody(folder: Path, server: EmbeddedServer) -> None:
    await server.dsn("dev")
    cluster_of(folder).kill()
    await server.stop()


# what can go wrong


async def test_data_of_another_version(folder: Path, server: EmbeddedServer) -> None:
    await server.start()
    await server.stop()
    (folder / "postgresql/data/PG_VERSION").write_text("9.6\n")
    with pytest.raises(ProblemError, match="written by PostgreSQL 9") as caught:
        await server.start()
    assert "18 in " in caught.value.message
    assert caught.value.problem.reason is Reason.CONNECTION_FAILED


async def test_damaged_data(folder: Path, server: EmbeddedServer) -> None:
    await server.start()
    await server.stop()
    (folder / "postgresql/data/global/pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(ProblemError, match="did not start") as caught:
        await server.start()
    assert "FATAL" in caught.value.problem.detail or "PANIC" in caught.value.problem.detail
    assert caught.value.remedy
    (folder / "postgresql/data/PG_VERSION").write_text("nonsense")
    with pytest.raises(ProblemError, match="damaged"):
        await server.start()


async def test_a_data_folder_that_is_something_else(folder: Path, server: EmbeddedServer) -> None:
    data = folder / "postgresql/data"
    data.mkdir(parents=True)
    (data / "precious").write_text("keep me")
    with pytest.raises(ProblemError, match="neither empty nor a folder that PostgreSQL made"):
        await server.start()
    assert (data / "precious").read_text() == "keep me"


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    file = tmp_path / ".gitignore"
    file.touch()
    with pytest.raises(ProblemError, match=str(file)):
        await EmbeddedServer(file).start()


async def test_a_setting_that_stops_it_is_shown(folder: Path, server: EmbeddedServer) -> None:
    await server.start()
    await server.stop()
    with (folder / "postgresql/data/postgresql.conf").open("a") as file:
        file.write("work_mem = lots\n")
    with pytest.raises(ProblemError, match="work_mem") as caught:
        await server.start()
    assert "postgresql.conf" in caught.value.remedy


@needs_root
async def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        server = EmbeddedServer(tmp_path / ".reconciler")
        with pytest.raises(ProblemError, match="disk is full") as caught:
            await server.start()
        assert "No space left" in caught.value.problem.detail
        await server.stop()


# accounts


@needs_root
@pytest.mark.parametrize("uid", [65534, 12345], ids=["nobody", "without-login"])
def test_an_ordinary_user(public_folder: Path, uid: int) -> None:
    os.chown(public_folder, uid, uid)
    folder = public_folder / ".reconciler"
    with other_process(folder, "--uid", str(uid)) as other:
        assert execute(other.dsn(), "SELECT 1") == [(1,)]
        assert (folder / "postgresql/data").stat().st_uid == uid
    assert not cluster_of(folder).alive


@needs_root
async def test_root_uses_an_ordinary_users_server_and_leaves_it_his(public_folder: Path) -> None:
    os.chown(public_folder, 65534, 65534)
    folder = public_folder / ".reconciler"
    with other_process(folder, "--uid", "65534") as other:
        execute(other.dsn(), "CREATE TABLE t AS SELECT 7 AS i")
    server = EmbeddedServer(folder)
    assert execute(await server.dsn("dev"), "SELECT i FROM t") == [(7,)]
    await server.stop()
    with other_process(folder, "--uid", "65534") as other:
        assert execute(other.dsn(), "SELECT i FROM t") == [(7,)]


@needs_root
def test_roots_folder_is_closed_to_an_ordinary_user(public_folder: Path) -> None:
    folder = public_folder / ".reconciler"
    folder.mkdir(mode=0o700)
    with other_process(folder, "--uid", "65534") as other:
        answer = other.answer()
    assert answer["reason"] == "PermissionDenied"
    assert str(folder) in answer["message"]
    assert str(folder) in answer["remedy"]


@needs_root
@pytest.mark.parametrize("way", ["namespaces", "without", "refused"])
def test_root_below_a_folder_that_only_root_can_enter(public_folder: Path, way: str) -> None:
    private = public_folder / "root"
    private.mkdir(mode=0o700)
    folder = private / ".reconciler"
    arguments = ["--no-user-namespaces"] if way == "without" else []
    environment = (
        {"PATH": f"{_failing_unshare(public_folder)}:{os.environ['PATH']}"} if way == "refused" else {}
    )
    for expected in ([(None,)], [("t",)]):
        with other_process(folder, *arguments, environment=environment) as other:
            dsn = other.dsn()
            assert execute(dsn, "SELECT to_regclass('t')::text") == expected
            execute(dsn, "CREATE TABLE IF NOT EXISTS t (i int)")
            found = cluster_of(folder).pid_file()
            assert found is not None
            # the account is root only from within root's own namespace
            assert Path(f"/proc/{found.pid}").stat().st_uid == (0 if way == "namespaces" else 65534)
        assert not cluster_of(folder).alive
    assert private.stat().st_mode & 0o777 == 0o700
    assert not (folder / "postgresql/runtime").is_symlink()


@needs_root
@pytest.mark.parametrize("arguments", [["--no-user-namespaces"], []], ids=["nobody", "namespace"])
def test_root_in_a_container_without_the_right_to_trace(public_folder: Path, arguments: list[str]) -> None:
    granted = (
        "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot"
    )
    interpreter = ("setpriv", f"--bounding-set=-all,{granted}", sys.executable)
    folder = public_folder / ".reconciler"
    with other_process(folder, *arguments, interpreter=interpreter) as other:
        assert execute(other.dsn(), "SELECT 1") == [(1,)]
    assert not cluster_of(folder).alive


@needs_root
@pytest.mark.skipif(not find_installation().from_wheel, reason="the wheel is not installed")
def test_programs_that_nobody_cannot_read_are_copied(public_folder: Path) -> None:
    private = public_folder / "root"
    private.mkdir(mode=0o700)
    package = find_installation().programs.parent.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, private / part.name, symlinks=True)
    folder = private / ".reconciler"
    with other_process(folder, "--no-user-namespaces", environment={"PYTHONPATH": str(private)}) as other:
        dsn = other.dsn()
        found = cluster_of(folder).pid_file()
        assert found is not None
        program = Path(os.readlink(f"/proc/{found.pid}/exe"))
        assert program.parts[:2] == ("/", "tmp")
        assert execute(dsn, "SELECT count(*) > 0 FROM pg_timezone_names") == [(True,)]
    assert not program.exists()


@pytest.mark.skipif(debian_installation(15) is None, reason="PostgreSQL 15 is not installed")
def test_without_the_wheel_the_systems_server_serves(public_folder: Path) -> None:
    folder = public_folder / ".reconciler"
    # -S: no site-packages, so no wheel
    with other_process(
        folder, interpreter=(sys.executable, "-S"), environment={"PYTHONPATH": str(_REPOSITORY)}
    ) as other:
        dsn = other.dsn()
        assert execute(dsn, "SHOW server_version_num")[0][0].startswith("15")
        assert execute(dsn, "SELECT upper('é')") == [("É",)]
    # data of an older version is served by the programs of that version, if they are there
    with other_process(folder) as other:
        assert execute(other.dsn(), "SHOW server_version_num")[0][0].startswith("15")


def _failing_unshare(parent: Path) -> Path:
    folder = parent / "bin"
    folder.mkdir()
    (folder / "unshare").write_text(
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    (folder / "unshare").chmod(0o755)
    return folder


def test_the_command_line_is_plain_enough_to_paste(folder: Path) -> None:
    with other_process(folder) as other:
        program, argument = shlex.split(other.answer()["psql"])
        assert program.endswith("psql")
        assert conninfo_to_dict(argument)["dbname"] == "dev"
