"""Large scripts are taken apart once, and are known as a burden before that."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import pytest

from reconciler.model import COCKROACHDB, POSTGRESQL, ProblemError, Script
from reconciler.planner import is_heavy, plan
from reconciler.planner.memory import Memory, analysis_of
from tests.unit.planner.builders import database, file, files, request, row

LARGE = "INSERT INTO t VALUES (1);\n" * 20_000


def test_large_scripts_are_remembered() -> None:
    script = Script(LARGE, "migrations/1_a.sql", 1)
    same = Script("".join([LARGE]), "migrations/1_a.sql", 1)
    assert analysis_of(script, POSTGRESQL) is analysis_of(same, POSTGRESQL)
    other = analysis_of(script, COCKROACHDB)
    assert other is analysis_of(same, COCKROACHDB)
    assert other is not analysis_of(script, POSTGRESQL)


def test_a_script_that_cannot_be_taken_apart_is_refused_each_time() -> None:
    script = Script("SELECT 'no end", "migrations/1_a.sql", 1)
    for _ in range(2):
        with pytest.raises(ProblemError):
            analysis_of(script, POSTGRESQL)


def test_what_is_remembered_is_bounded_by_weight_and_the_newest_stays() -> None:
    memory: Memory[str, int] = Memory(limit=10_000)
    asked: list[str] = []

    def ask(key: str, length: int) -> None:
        def find_out() -> int:
            asked.append(key)
            return length

        memory.get(key, length, find_out)

    for key in ("a", "b", "a", "c"):
        ask(key, 3000)
    assert asked == ["a", "b", "c"]
    assert ("a" in memory, "b" in memory, "c" in memory) == (True, False, True)
    ask("larger than all of it", 20_000)
    assert "larger than all of it" not in memory
    assert "c" in memory


def test_threads_may_share_it() -> None:
    memory: Memory[int, int] = Memory(limit=20_000)
    wrong: list[int] = []

    def work() -> None:
        for number in range(3000):
            key = number % 40
            if memory.get(key, 100, partial(int, key)) != key:
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_request_is_heavy_until_its_large_scripts_were_taken_apart() -> None:
    large = file(2, up=LARGE.replace("t", "heavy"), down=LARGE.replace("t", "burden"))
    up = request([*files(1), large], database(), 2)
    assert is_heavy(up)
    plan(up)
    assert not is_heavy(up)
    down = request([*files(1), large], database([row(file(1)), row(large)]), 1)
    assert is_heavy(down)
    plan(down)
    assert not is_heavy(down)


def test_what_need_not_be_taken_apart_is_no_burden() -> None:
    large = file(2, up=LARGE.replace("t", "other"))
    applied = database([row(file(1)), row(large)])
    assert not is_heavy(request([*files(1), large], applied, 2))
    assert not is_heavy(request([*files(1), large], database(), 1))
    # unless the file is another than was applied
    changed = replace(large, checksum="0" * 64)
    assert is_heavy(request([*files(1), changed], applied, 2))
