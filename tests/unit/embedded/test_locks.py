from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.embedded.locks import FileLock, is_free


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_shared_holders_keep_an_exclusive_one_out(path: Path) -> None:
    first, second, third = (FileLock(path) for _ in range(3))
    assert first.acquire(exclusive=False, timeout=0)
    assert second.acquire(exclusive=False, timeout=0)
    assert not third.acquire(exclusive=True, timeout=0)
    assert is_free(path)
    first.release()
    second.release()
    assert third.acquire(exclusive=True, timeout=0)
    assert not is_free(path)


def test_only_the_last_holder_can_upgrade(path: Path) -> None:
    first, second = FileLock(path), FileLock(path)
    first.acquire(exclusive=False, timeout=0)
    second.acquire(exclusive=False, timeout=0)
    assert not first.try_upgrade()
    assert not first.held
    assert second.try_upgrade()
    assert not is_free(path)


def test_a_lock_on_a_deleted_file_is_not_current(path: Path) -> None:
    first, second = FileLock(path), FileLock(path)
    first.acquire(exclusive=True, timeout=0)
    assert first.is_current
    path.unlink()
    assert not first.is_current
    assert second.acquire(exclusive=True, timeout=0)
    path.unlink()
    assert is_free(path)


def test_a_lock_that_was_handed_over_lives_as_long_as_its_new_holder(path: Path) -> None:
    lock = FileLock(path)
    lock.acquire(exclusive=True, timeout=0)
    program = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, pass_fds=[lock.fileno()]) as child:
        lock.hand_over()
        assert not is_free(path)
        child.communicate(b"")
    assert is_free(path)


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from reconciler.embedded.locks import FileLock; "
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(exclusive=True, timeout=0); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert not is_free(path)
        child.kill()
    assert is_free(path)


def test_wrong_use_is_refused(path: Path) -> None:
    lock = FileLock(path)
    with pytest.raises(ValueError, match="not held"):
        lock.fileno()
    lock.acquire(exclusive=True, timeout=0)
    with pytest.raises(ValueError, match="already held"):
        lock.acquire(exclusive=True, timeout=0)
    lock.release()
    lock.release()
