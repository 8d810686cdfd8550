"""The search for canaries finds them, in every form; and a canary that got out fails the run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.applying import table
from tests.canaries import WATCH, Watch, password, planted, planted_file, token
from tests.command_line import CommandLine
from tests.daemon import Daemon, manifest
from tests.git import Repository
from tests.servers import TestServer

SECRETS = [password(), token()]
FORMS = {
    "raw": str,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "encoded for a query": quote_plus,
    "every byte percent-encoded": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "JSON": json.dumps,
    "repr": repr,
    "hexadecimal": lambda secret: secret.encode().hex(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "base64 with a name before it": lambda secret: base64.b64encode(f"user:{secret}".encode()).decode(),
    "base64 with a name of another length": lambda secret: base64.b64encode(f"us:{secret}".encode()).decode(),
    "base64 of a document": lambda secret: base64.b64encode(json.dumps({"a": secret}).encode()).decode(),
    "the first half": lambda secret: secret[: len(secret) // 2 + 4],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("secret", SECRETS, ids=["password", "token"])
def test_each_form_of_a_canary_is_found(secret: str, form: object) -> None:
    assert callable(form)
    watch = Watch()
    watch.see("log", f"x {form(secret)} y")
    assert len(watch.leaks) == 1
    assert watch.leaks[0].startswith("log, tests/integration/test_canaries.py::test_each_form")
    assert watch.seen["log"] == 1


def test_what_holds_none_is_no_leak() -> None:
    watch = Watch()
    watch.see("log", "postgresql://u:***@h/d is reached as u")
    assert not watch.leaks


def test_the_half_of_a_password_behind_a_bare_sign_is_found() -> None:
    watch = Watch()
    watch.see("log", password().rpartition("@")[2])
    assert watch.leaks


def test_process_titles_are_looked_at() -> None:
    watch = Watch()
    secret = token()
    inner = f"import time; time.sleep(60)  # {secret}"
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.stdin.readline()])"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(inner + "\n")
        process.stdin.flush()
        while not watch.leaks:
            assert process.poll() is None
            watch.see_titles(process.pid)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            subprocess.run(["kill", child], check=True)
    assert watch.leaks[0].startswith("title")


@pytest.mark.parametrize(
    "dsn",
    [
        "host=/tmp port=5432 dbname=d user=u",
        "postgresql://u@127.0.0.1:5432/d",
        "postgresql://127.0.0.1:5432/d?sslmode=disable",
        "postgresql:///d",
    ],
)
def test_a_planted_connection_string_differs_in_its_password_only(dsn: str) -> None:
    parameters = conninfo_to_dict(planted(dsn))
    watch = Watch()
    watch.see("log", str(parameters.pop("password")))
    assert watch.leaks
    assert parameters == conninfo_to_dict(dsn)
    assert planted_file(dsn).read_text(encoding="utf-8") == planted(dsn)


@pytest.mark.parametrize(
    "text", ["embedded", "", "100", "postgresql://u:own@h/d", "host=h password=own", "/usr/bin:/bin"]
)
def test_anything_else_is_left_alone(text: str) -> None:
    assert planted(text) == text


_LEAKING = """
import logging
from tests.applying import table
from tests.canaries import WATCH, password

def test_that_leaks():
    {leak}

def test_that_does_not():
    pass
"""


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        ("WATCH.see('http', 'x' + password())", "http, test_leak.py::test_that_leaks"),
        ("logging.warning(password())", "captured, test_leak.py::test_that_leaks"),
        ("print(password())", "captured, test_leak.py::test_that_leaks"),
        ("pass", ""),
    ],
)
def test_a_canary_that_got_out_fails_the_run(tmp_path: Path, leak: str, kind: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.canaries import canaries, pytest_runtest_makereport\n")
    (tmp_path / "test_leak.py").write_text(_LEAKING.format(leak=leak))
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == (1 if kind else 0), answer.stdout
    assert kind in answer.stdout
    assert ("texts have a canary secret in them" in answer.stdout) is bool(kind)


def test_commands_are_watched(fresh_database: str, reconciler: CommandLine) -> None:
    before = WATCH.seen["output"]
    reconciler.set(DSN=fresh_database)
    assert "kanari" in os.environ["DSN"]
    assert reconciler("history").exit == 0
    assert WATCH.seen["output"] == before + 2


def test_daemons_and_databases_are_watched(git_repository: Repository, server: TestServer) -> None:
    name = server.create_database()
    before = WATCH.seen.copy()
    git_repository.commit(
        files={"manifests/dev.yaml": manifest(server.dsn(name), 1), "migrations/1_a.sql": table("a")}
    )
    with Daemon(git_repository) as daemon:
        daemon.wait_ready("dev", 1)
    server.drop_database(name)
    for kind in ("log", "http", "title", "rows"):
        assert WATCH.seen[kind] > before[kind], kind


@pytest.mark.parametrize("masking", [True, False])
def test_a_command_that_forgot_to_mask_would_be_found(
    git_repository: Repository, fresh_database: str, masking: bool
) -> None:
    script = (
        'printf "%s\\n" "$RECONCILER_DSN"; printf "a:%s" "${RECONCILER_DSN#*password=}" | base64 --wrap 0'
    )
    hooks = f"hooks: {{before: [[sh, -c, {json.dumps(script)}]]}}\n"
    git_repository.commit(
        files={"manifests/dev.yaml": manifest("{env: A}", 1, hooks), "migrations/1_a.sql": table("a")}
    )
    forget = (
        "" if masking else "import reconciler.redaction as r; r.Redactor.__call__ = lambda self, text: text\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", f"{forget}from reconciler.cli import run; run(['up', '--allow-hooks'])"],
        cwd=git_repository.path,
        env={**os.environ, "A": planted(fresh_database)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hook" in answer.stderr
    watch = Watch()
    watch.see("output", answer.stderr)
    assert bool(watch.leaks) is not masking
