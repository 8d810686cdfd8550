"""Bad input by commits: the environment it is about says what is wrong, all others go on, and a good commit heals it.

One daemon takes all of it, one case after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.applying import migration, table
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, exists, rows
from tests.servers import TestServer

Files = dict[str, str | bytes | None]


class Scene(NamedTuple):
    """A daemon with two environments: `good`, which each case moves, and `bad`, which it is about."""

    repository: Repository
    daemon: Daemon
    good: str
    bad: str

    def bad_manifest(self, target: int = 1, extra: str = "") -> str:
        """What `bad` should say."""
        return manifest(self.bad, target, f"migrations: bad\n{extra}")

    def break_it(self, files: Files) -> None:
        """Commit what is wrong, and have `good` follow the same commit."""
        self.repository.write(files)
        self._move_good()

    def heal(self) -> None:
        """Commit a good state again; `bad` must be in order then, without a restart."""
        for path in sorted((self.repository.path / "bad").iterdir()):
            with suppress(IsADirectoryError):
                path.unlink()
        self.repository.write({"manifests/bad.yaml": None} if self._is_link("manifests/bad.yaml") else {})
        self.repository.write({"manifests/bad.yaml": self.bad_manifest(), "bad/1_a.sql": table("a")})
        commit = self._move_good()
        self.daemon.wait_ready("bad", 1)
        self.daemon.wait_observed("bad", commit)
        assert applied(self.bad) == [1]

    def _is_link(self, name: str) -> bool:
        return (self.repository.path / name).is_symlink()

    def _move_good(self) -> str:
        target = 1 if self.daemon.status("good", "good")["target_version"] != 1 else 2
        commit = self.repository.commit(files={"manifests/good.yaml": manifest(self.good, target)})
        self.daemon.wait_ready("good", target)
        assert self.daemon.get("/healthz") == (200, "ok\n")
        return commit


@pytest.fixture(scope="module")
def shared_scene(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    names = [server.create_database() for _ in range(2)]
    good, bad = (server.dsn(name) for name in names)
    repository = Repository(tmp_path_factory.mktemp("bad_input") / "repository")
    repository.commit(
        files={
            "manifests/good.yaml": manifest(good, 1),
            "manifests/bad.yaml": manifest(bad, 1, "migrations: bad\n"),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
            "bad/1_a.sql": table("a"),
        }
    )
    with Daemon(repository) as daemon:
        daemon.wait_ready("good", 1)
        daemon.wait_ready("bad", 1)
        yield Scene(repository, daemon, good, bad)
    for name in names:
        server.drop_database(name)


@pytest.fixture
def scene(shared_scene: Scene) -> Iterator[Scene]:
    before = len(shared_scene.daemon.log)
    yield shared_scene
    shared_scene.heal()
    assert not [
        event
        for event in shared_scene.daemon.log[before:]
        if event["event"] in ("internal error", "released")
    ]


def _laughs() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 20)]
    return "\n".join(levels) + "\ntarget_version: 1\n"


DATABASE = "database: {dsn: dbname=x}\n"
MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "no YAML": (f"target_version: [1\n{DATABASE}", ""),
    "wrong type": (f"target_version: one\n{DATABASE}", "target_version"),
    "a list": ("- target_version: 1\n", ""),
    "unknown key": (f"target_version: 1\ntarget: 2\n{DATABASE}", "target"),
    "duplicate key": (f"target_version: 1\ntarget_version: 2\n{DATABASE}", "target_version"),
    "negative": (f"target_version: -1\n{DATABASE}", "-1"),
    "too large a number": (f"target_version: 9223372036854775808\n{DATABASE}", "9223372036854775808"),
    "billion laughs": (_laughs(), ""),
    "deeply nested": ("target_version: " + "[" * 50_000, ""),
    "ten megabytes": (b"# " + b"x" * (10 << 20) + b"\ntarget_version: 1\n", ""),
    "empty": ("", "empty"),
    "not UTF-8": (b"target_version: 1 # \xff\xfe\n", ""),
    "a password": ("target_version: 1\ndatabase: {dsn: 'postgresql://me:hunter2@db/x'}\n", "password"),
    "no database": ("target_version: 1\n", "database"),
}


@pytest.mark.parametrize(("content", "named"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_cannot_be_used(scene: Scene, content: str | bytes, named: str) -> None:
    scene.break_it({"manifests/bad.yaml": content})
    problem = scene.daemon.status("bad")["problem"]
    assert problem["reason"] == "ManifestInvalid"
    assert problem["file"] == "manifests/bad.yaml"
    assert problem["line"] >= 1
    assert problem["message"]
    assert named in problem["message"]
    assert "hunter2" not in str(problem) + scene.daemon.text
    # the database stays as it is, and says why
    assert scene.daemon.wait_problem("bad", "ManifestInvalid") == problem
    assert scene.daemon.status("bad", "bad")["current_version"] == 1
    assert applied(scene.bad) == [1]
    assert scene.daemon.metrics()['reconciler_config_errors{environment="bad"}'] == 1


def test_a_manifest_that_is_a_symbolic_link(scene: Scene) -> None:
    path = scene.repository.path / "manifests" / "bad.yaml"
    path.unlink()
    path.symlink_to("good.yaml")
    scene.break_it({})
    problem = scene.daemon.wait_problem("bad", "ManifestInvalid")
    assert "symbolic link" in problem["message"]


def test_two_files_for_one_environment(scene: Scene) -> None:
    scene.break_it({"manifests/worse.yaml": "environment: bad\n" + scene.bad_manifest(0)})
    problem = scene.daemon.wait_problem("bad", "ManifestInvalid")
    assert "worse.yaml" in problem["message"]
    assert applied(scene.bad) == [1]
    scene.repository.write({"manifests/worse.yaml": None})


def test_an_engine_that_is_another_than_declared(scene: Scene) -> None:
    scene.break_it({"manifests/bad.yaml": manifest(scene.bad, 1, "  engine: cockroachdb\n")})
    problem = scene.daemon.wait_problem("bad", "EngineMismatch")
    assert "cockroachdb" in problem["message"]


def test_a_target_that_no_file_has(scene: Scene) -> None:
    scene.break_it({"manifests/bad.yaml": scene.bad_manifest(99)})
    problem = scene.daemon.wait_problem("bad", "TargetUnknown")
    assert "99" in problem["message"]
    assert scene.daemon.status("bad", "bad")["current_version"] == 1


def test_a_migrations_folder_that_is_not_there(scene: Scene) -> None:
    scene.break_it({"manifests/bad.yaml": manifest(scene.bad, 1, "migrations: nowhere\n")})
    problem = scene.daemon.wait_problem("bad", "TargetUnknown")
    assert "no migrations" in problem["message"]
    assert applied(scene.bad) == [1]


def test_a_migrations_folder_beyond_all_limits(scene: Scene) -> None:
    folder = scene.repository.path / "huge"
    folder.mkdir()
    for number in range(1, 20_010):
        (folder / f"{number}.txt").touch()
    scene.break_it({"manifests/bad.yaml": manifest(scene.bad, 1, "migrations: huge\n")})
    problem = scene.daemon.status("bad")["problem"]
    assert "huge" in problem["message"]
    assert applied(scene.bad) == [1]
    for path in folder.iterdir():
        path.unlink()


class Case(NamedTuple):
    """What is committed as migration 2, and what is said of it."""

    files: Files
    message: str
    line: int | None = None
    reason: str = "MigrationInvalid"


UP, DOWN = "-- UP MIGRATION\n", "-- DOWN MIGRATION\n"
MIGRATIONS = {
    "duplicate numbers": Case({"bad/2_b.sql": table("b"), "bad/02_c.sql": table("c")}, "same version"),
    "bad name": Case({"bad/2_b.sql": table("b"), "bad/oops.sql": table("c")}, "oops.sql"),
    "number zero": Case({"bad/2_b.sql": table("b"), "bad/0_zero.sql": table("c")}, "0_zero.sql"),
    "huge number": Case({"bad/2_b.sql": table("b"), "bad/9223372036854775808_x.sql": table("c")}, "9223372036854775808"),
    "no UP section": Case({"bad/2_b.sql": "CREATE TABLE b (id int);\n"}, "UP MIGRATION"),
    "two UP sections": Case({"bad/2_b.sql": f"{UP}SELECT 1;\n{UP}SELECT 2;\n"}, "UP", 3),
    "empty": Case({"bad/2_b.sql": ""}, "empty"),
    "NUL bytes": Case({"bad/2_b.sql": UP.encode() + b"SELECT '\0';\n"}, "NUL", 2),
    "not UTF-8": Case({"bad/2_b.sql": UP.encode() + b"SELECT '\xff';\n"}, "UTF-8", 2),
    "UTF-16": Case({"bad/2_b.sql": f"{UP}SELECT 1;\n".encode("utf-16")}, "UTF-16"),
    "fifty megabytes": Case({"bad/2_b.sql": UP.encode() + b"-- x\n" * (10 << 20)}, "52428"),
    "unbalanced parenthesis": Case({"bad/2_b.sql": f"{UP}CREATE TABLE b (id int;\n{DOWN}DROP TABLE b;\n"}, "", 2),
    "unbalanced quote": Case({"bad/2_b.sql": f"{UP}SELECT 'b;\n{DOWN}DROP TABLE b;\n"}, "", 2),
    "a psql command": Case({"bad/2_b.sql": f"{UP}SELECT 1;\n\\i other.sql\n"}, "\\i", 3),
    "a transaction of its own": Case({"bad/2_b.sql": f"{UP}BEGIN;\nSELECT 1;\nCOMMIT;\n"}, "BEGIN", 2),
    "COPY data without an end": Case({"bad/2_b.sql": f"{UP}COPY b FROM stdin;\n1\n{DOWN}SELECT 1;\n"}, "COPY", 2),
    "unknown directive": Case({"bad/2_b.sql": f"-- reconciler: no-transactoin\n{UP}SELECT 1;\n"}, "no-transactoin", 1),
    "a mix": Case({"bad/2_b.sql": f"{UP}CREATE TABLE b (id int);\nCREATE INDEX CONCURRENTLY i ON b (id);\n"}, "transaction"),
}  # fmt: skip


@pytest.mark.parametrize("case", MIGRATIONS.values(), ids=MIGRATIONS)
def test_a_migration_that_cannot_be_used(scene: Scene, case: Case) -> None:
    scene.break_it({"manifests/bad.yaml": scene.bad_manifest(2), **case.files})
    problem = scene.daemon.wait_problem("bad", case.reason)
    assert case.message in problem["message"]
    assert problem["remedy"]
    assert problem["file"] in case.files
    if case.line is not None:
        assert problem["line"] == case.line
    assert applied(scene.bad) == [1]
    assert not exists(scene.bad, "b")


@pytest.mark.parametrize("kind", ["symbolic link", "submodule", "folder"])
def test_a_migration_that_is_no_plain_file(scene: Scene, kind: str) -> None:
    path = scene.repository.path / "bad" / "2_b.sql"
    if kind == "symbolic link":
        os.symlink("/etc/passwd", path)
        scene.break_it({"manifests/bad.yaml": scene.bad_manifest(2)})
    elif kind == "folder":
        scene.break_it({"manifests/bad.yaml": scene.bad_manifest(2), "bad/2_b.sql/x": "x"})
    else:
        inner = Repository(path)
        inner.commit(files={"x": "x"})
        scene.break_it({"manifests/bad.yaml": scene.bad_manifest(2)})
        assert scene.repository.run("ls-files", "--stage", "bad/2_b.sql").startswith("160000")
    # a folder is no file at all: then the number has none
    problem = scene.daemon.wait_problem("bad", "TargetUnknown" if kind == "folder" else "MigrationInvalid")
    assert (kind in problem["message"]) == (kind != "folder")
    assert "root:" not in scene.daemon.text
    assert applied(scene.bad) == [1]
    _remove(path)


FINE: dict[str, tuple[str | bytes, str]] = {
    "BOM": (b"\xef\xbb\xbf" + migration("CREATE TABLE b AS SELECT 1 AS id;", "DROP TABLE b;").encode(), "1"),
    "CRLF": (migration("CREATE TABLE b AS\nSELECT 1 AS id;", "DROP TABLE b;").replace("\n", "\r\n"), "1"),
    "markers in strings": (
        migration("CREATE TABLE b AS SELECT '\n-- DOWN MIGRATION\n' AS id;", "DROP TABLE b;"),
        "\n-- DOWN MIGRATION\n",
    ),
    "percent signs": (migration("CREATE TABLE b AS SELECT '%s %(x)s 100%' AS id;", "DROP TABLE b;"), "%s %(x)s 100%"),
    "another search path": (
        migration("CREATE TABLE b AS SELECT 1 AS id; SET search_path = pg_catalog;", "DROP TABLE b; SET search_path = pg_temp;"),
        "1",
    ),
    "another role": (
        migration("CREATE TABLE b AS SELECT 1 AS id; SET ROLE pg_monitor;", "DROP TABLE b; SET ROLE pg_monitor;"),
        "1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "result"), FINE.values(), ids=FINE)
def test_a_migration_that_only_looks_bad(scene: Scene, content: str | bytes, result: str) -> None:
    scene.break_it(
        {"manifests/bad.yaml": scene.bad_manifest(3), "bad/2_b.sql": content, "bad/3_c.sql": table("c")}
    )
    scene.daemon.wait_ready("bad", 3)
    assert rows(scene.bad, "SELECT id::text FROM public.b") == [(result,)]
    assert exists(scene.bad, "public.c")
    assert applied(scene.bad) == [1, 2, 3]
    owner = rows(scene.bad, "SELECT tableowner = current_user FROM pg_tables WHERE tablename = 'c'")
    assert owner == [(True,)]


def test_an_applied_migration_that_is_rewritten(scene: Scene) -> None:
    scene.break_it({"bad/1_a.sql": migration("CREATE TABLE a (id bigint);", "DROP TABLE a;")})
    problem = scene.daemon.wait_problem("bad", "ChecksumMismatch")
    assert problem["file"] == "bad/1_a.sql"
    assert problem["version"] == 1
    assert scene.daemon.status("bad", "bad")["state"] == "blocked"


@pytest.mark.parametrize("left", [None, "README"], ids=["gone", "without a manifest"])
def test_a_manifests_folder_without_manifests_keeps_every_environment(scene: Scene, left: str | None) -> None:
    daemon, repository = scene.daemon, scene.repository
    before = daemon.status("good", "good")["current_version"]
    files: Files = {"manifests/bad.yaml": None, "manifests/good.yaml": None}
    repository.commit(files={**files, **({f"manifests/{left}": "x"} if left else {})})
    wait_until(lambda: daemon.status()["problems"], "the daemon says so")
    (problem,) = daemon.status()["problems"]
    assert problem["reason"] == "ManifestNotFound"
    assert "manifests/" in problem["message"]
    assert daemon.status("good", "good")["current_version"] == before
    assert applied(scene.bad) == [1]
    # both go on being looked after: a later pass sees them as they are
    assert {environment["environment"] for environment in daemon.status()["environments"]} == {"good", "bad"}
    assert daemon.metrics()['reconciler_config_errors{environment=""}'] == 1
    if left:
        repository.write({f"manifests/{left}": None})
    scene.heal()
    assert daemon.status()["problems"] == []


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
