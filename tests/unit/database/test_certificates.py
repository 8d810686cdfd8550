"""What certificates and keys leave on the disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from reconciler.database import PemFiles, PemUse
from reconciler.model import ProblemError

KEY = PemUse("production", "orders", "client_key")
TEXT = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----"

_KILLED = f"""
import os, signal
from reconciler.database import PemFiles, PemUse
files = PemFiles()
print(files.path(PemUse("production", "orders", "ca"), {TEXT!r}, None), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_text_is_one_file_for_its_owner_until_the_end(scratch: Path) -> None:
    files = PemFiles()
    path = Path(files.path(KEY, TEXT, None))
    assert files.path(KEY, TEXT, None) == str(path)
    assert path.read_text() == TEXT + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    files.close()
    assert list(scratch.iterdir()) == []


def test_the_file_before_the_newest_stays_for_who_is_about_to_read_it() -> None:
    files = PemFiles()
    first, second, third = (Path(files.path(KEY, TEXT + str(number), None)) for number in range(3))
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
    files.close()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(scratch: Path) -> None:
    living = PemFiles()
    used = Path(living.path(KEY, TEXT, None))
    killed = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.is_relative_to(scratch)
    assert left.exists()
    next_one = PemFiles()
    next_one.path(KEY, TEXT, None)
    assert not left.parent.exists()
    assert used.exists()
    living.close()
    next_one.close()


def test_a_path_is_taken_as_it_is_and_begins_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_text(TEXT)
    files = PemFiles()
    assert files.path(KEY, str(tmp_path / "key.pem"), None) == str(tmp_path / "key.pem")
    assert files.path(KEY, "key.pem", tmp_path) == str(tmp_path / "key.pem")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.path(KEY, "~/key.pem", Path("/elsewhere")) == str(tmp_path / "key.pem")
    assert files.path(PemUse("production", "orders", "ca"), "system", tmp_path) == "system"
    for nowhere in ("system", "nowhere.pem", "a\0b", "x" * 5000):
        with pytest.raises(ProblemError, match="`client_key`"):
            files.path(KEY, nowhere, tmp_path)
