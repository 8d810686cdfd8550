"""What `up` shows on a terminal while a migration takes its time."""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from pathlib import Path

import psycopg
import pytest

from tests.command_line import execute, execute_on_terminal, manifest, migration
from tests.git import Repository
from tests.looking import rows

_SLOW = (
    "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_sleep(0.004); RETURN n; END $$"
)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture
def building(git_repository: Repository, fresh_database: str) -> Path:
    """A repository whose only migration builds an index for some three seconds."""
    rows(fresh_database, _SLOW)
    rows(fresh_database, "CREATE TABLE big (n int, filler text)")
    rows(fresh_database, "INSERT INTO big SELECT n, repeat('x', 400) FROM generate_series(1, 700) n")
    git_repository.commit(
        "Build",
        {
            "manifests/dev.yaml": manifest(1),
            "migrations/1_index_the_big_table.sql": migration("CREATE INDEX big_n ON big (slow(n));"),
        },
    )
    return git_repository.path


def frames(out: str) -> list[str]:
    """What stood in the line that is written again and again."""
    return [_ESCAPE.sub("", each) for each in re.split(r"\r\x1b\[2K|\n", out) if each]


def cells(text: str) -> int:
    """Columns that a text takes."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_bar_shows_how_far_a_build_has_come(building: Path, fresh_database: str, columns: int) -> None:
    answer = execute_on_terminal("up", folder=building, ORDERS_DSN=fresh_database, COLUMNS=str(columns))
    assert answer.exit == 0
    bars = [re.search(r"(█*)(░*) +(\d+) %$", frame) for frame in frames(answer.out)]
    found = [(len(bar[1]), len(bar[2]), int(bar[3])) for bar in bars if bar is not None]
    assert len(found) >= 2, frames(answer.out)
    assert [percent for _, _, percent in found] == sorted(percent for _, _, percent in found)
    for done, left, percent in found:
        assert done + left >= 10
        assert done == int((done + left) * percent / 100) or done == int((done + left) * (percent + 1) / 100)
    assert max(map(cells, frames(answer.out)[:-2])) < columns
    (first, *_) = [frame for frame in frames(answer.out) if frame.endswith("%")]
    assert "up 1 index_the" in first
    assert ("building index: scanning table (public.big)" in first) == (columns == 200)
    # nothing of it stays
    assert answer.out.endswith("\n")
    assert "█" not in answer.out.rsplit("\r\x1b[2K", 1)[1]


@pytest.mark.parametrize("terminal", ["dumb", "none"])
def test_nothing_of_it_is_written_elsewhere(building: Path, fresh_database: str, terminal: str) -> None:
    if terminal == "dumb":
        answer = execute_on_terminal("up", folder=building, ORDERS_DSN=fresh_database, TERM="dumb")
    else:
        answer = execute("up", folder=building, ORDERS_DSN=fresh_database)
    assert answer.exit == 0
    assert [line.split("[")[0] for line in answer.out.splitlines()] == [
        "dev: up 1 index_the_big_table ",
        answer.out.splitlines()[1].split("[")[0],
    ]
    assert not re.search(r"\r|\x1b|█|%", answer.out)


def test_a_terminal_without_these_letters_gets_a_bar_of_others(building: Path, fresh_database: str) -> None:
    answer = execute_on_terminal(
        "up", folder=building, ORDERS_DSN=fresh_database, COLUMNS="80", PYTHONIOENCODING="ascii"
    )
    assert re.search(r"\[#*\.*\] +\d+ %", answer.out)
    assert "\\u2588" not in answer.out


def test_a_phase_without_a_percentage_is_told_in_words_and_so_is_who_is_in_the_way(
    git_repository: Repository, fresh_database: str
) -> None:
    rows(fresh_database, "CREATE TABLE a (id int)")
    git_repository.commit(
        "Build",
        {
            "manifests/dev.yaml": manifest(2),
            "migrations/1_i.sql": migration("CREATE INDEX CONCURRENTLY a_id ON a (id);"),
            "migrations/2_s.sql": migration("SELECT pg_sleep(1.2);"),
        },
    )
    older = psycopg.connect(fresh_database, application_name="old")
    older.execute("INSERT INTO a VALUES (1)")

    def end() -> None:
        # long enough to be looked at
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not rows(
            fresh_database, "SELECT FROM pg_stat_activity WHERE application_name LIKE '%%watching)'"
        ):
            time.sleep(0.02)
        time.sleep(0.5)
        older.close()

    ending = threading.Thread(target=end)
    ending.start()
    answer = execute_on_terminal("up", folder=git_repository.path, ORDERS_DSN=fresh_database, COLUMNS="200")
    ending.join()
    assert answer.exit == 0
    shown = frames(answer.out)
    told = "dev: running up 1 i … waiting for writers before build (public.a_id); blocked by pid "
    (blocked, *_) = [frame for frame in shown if frame.startswith(told)]
    assert 'application "old"' in blocked
    assert "█" not in blocked
    assert "dev: running up 2 s …" in [frame.rstrip() for frame in shown]


def test_a_wide_name_stays_in_its_line(git_repository: Repository, fresh_database: str) -> None:
    name = "表" * 60
    git_repository.commit(
        "Build", {"manifests/dev.yaml": manifest(1), f"migrations/1_{name}.sql": migration("SELECT 1;")}
    )
    answer = execute_on_terminal("up", folder=git_repository.path, ORDERS_DSN=fresh_database, COLUMNS="80")
    assert answer.exit == 0
    (running, *_) = [frame for frame in frames(answer.out) if "running" in frame]
    assert cells(running) < 80
    assert running.endswith("…")
