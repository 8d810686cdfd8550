"""The frame of the command line: verbs, placement of options, errors, what is imported when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from reconciler import __version__
from reconciler.cli.application import VERBS, Verbs, application, verb_first
from reconciler.cli.exits import Exit, worst
from tests.command_line import CommandLine, execute, execute_on_terminal, start


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, reconciler: CommandLine) -> None:
    answer = reconciler(verb, "--help")
    assert answer.exit == 0
    assert "Examples:" in answer.out
    assert f"  reconciler {verb}" in answer.out


def test_help_lists_all_verbs_and_exit_codes(reconciler: CommandLine) -> None:
    answer = reconciler("--help")
    assert answer.exit == 0
    for verb in VERBS:
        assert f"\n  {verb} " in answer.out
    assert "3 out of sync" in answer.out


def test_verbs_are_those_of_the_contract() -> None:
    names = ["run", "status", "plan", "up", "down", "create", "validate", "history", "wait", "retry"]
    names += ["baseline", "repair", "unlock"]
    assert isinstance(application, Verbs)
    assert application.list_commands(click.Context(application)) == names


def test_without_a_verb_shows_help_and_is_wrong_usage(reconciler: CommandLine) -> None:
    answer = reconciler()
    assert answer.exit == 2
    assert "Verbs:" in answer.out + answer.err


def test_unknown_verb_names_a_near_one(reconciler: CommandLine) -> None:
    answer = reconciler("statsu")
    assert answer.exit == 2
    assert "Did you mean 'status'?" in answer.err


def test_unknown_option_is_wrong_usage(reconciler: CommandLine) -> None:
    assert reconciler("status", "--frobnicate").exit == 2
    assert reconciler("--frobnicate", "status").exit == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status"], ["status"]),
        (["-e", "dev", "status"], ["status", "-e", "dev"]),
        (["-edev", "status"], ["status", "-edev"]),
        (["--repo=x", "-vv", "status", "-d", "y"], ["status", "--repo=x", "-vv", "-d", "y"]),
        (["--environment", "status", "plan"], ["plan", "--environment", "status"]),
        (["-v", "--help"], ["--help"]),
        (["--version"], ["--version"]),
        (["up", "--version", "3"], ["up", "--version", "3"]),
        ([], []),
        (["-e"], ["-e"]),
    ],
)
def test_common_options_may_stand_before_the_verb(arguments: list[str], expected: list[str]) -> None:
    assert verb_first(arguments) == expected


def test_option_before_a_verb_that_has_none_such_is_refused(reconciler: CommandLine) -> None:
    answer = reconciler("--dsn", "postgresql://", "create", "x")
    assert answer.exit == 2
    assert "--dsn" in answer.err


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "9223372036854775808", "9" * 5000, "١"])
def test_versions_out_of_range_are_wrong_usage(text: str, reconciler: CommandLine) -> None:
    answer = reconciler("plan", f"--version={text}")
    assert answer.exit == 2
    assert "is no version" in answer.err


@pytest.mark.parametrize("text", ["60", "soon", "-1s", ""])
def test_durations_need_a_unit(text: str, reconciler: CommandLine) -> None:
    assert reconciler("wait", "--version", "1", f"--timeout={text}").exit == 2


def test_two_ways_to_name_a_database_are_wrong_usage(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("status", "--dsn", "postgresql://", "-e", "dev")
    assert answer.exit == 2
    assert "give only one of them" in answer.err


def test_token_on_the_command_line_is_refused_and_not_repeated(
    reconciler: CommandLine, tmp_path: Path
) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("status", "--repo", "https://git.example.org/x.git", "--git-token", "hunter2hunter2")
    assert answer.exit == 2
    assert "env:NAME" in answer.err
    assert "hunter2hunter2" not in answer.err


def test_dsn_that_is_none_is_not_repeated(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("status", "--dsn", "hunter2hunter2")
    assert answer.exit == 2
    assert "hunter2hunter2" not in answer.out + answer.err


def test_outside_a_repository_says_what_to_do(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("status")
    assert answer.exit == 1
    assert "--repo" in answer.err


def test_errors_are_a_document_where_one_is_asked_for(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    problem = reconciler("status", "--output", "json")
    assert problem.exit == 1
    assert problem.json["problem"]["reason"] == "FetchFailed"
    assert "error:" in problem.err
    usage = reconciler("wait", "--dsn", "env:X", "--output=json")
    assert usage.exit == 2
    assert usage.json["problem"]["message"] == "a DSN alone does not say which version to wait for"
    assert usage.json["problem"].keys() == problem.json["problem"].keys()


def test_worst_puts_errors_before_being_out_of_sync() -> None:
    assert worst([]) is Exit.DONE
    assert worst([Exit.DONE, Exit.OUT_OF_SYNC]) is Exit.OUT_OF_SYNC
    assert worst([Exit.OUT_OF_SYNC, Exit.ERROR, Exit.DONE]) is Exit.ERROR


def test_version_imports_nothing_that_takes_time() -> None:
    program = (
        "import sys; sys.argv = ['reconciler', '--version']\n"
        "from reconciler.__main__ import main; main()\n"
        "print(sorted(set(sys.modules) & {'click', 'asyncio', 'psycopg', 'yaml', 'dataclasses', 're', 'typing'}))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=_ROOT
    )
    assert result.stdout == f"reconciler {__version__}\n[]\n"


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], {"asyncio", "psycopg", "yaml", "reconciler.model", "rich"}),
        (["create", "x"], {"asyncio", "psycopg", "git", "uvicorn", "rich"}),
        (["validate"], {"asyncio", "psycopg", "git", "uvicorn", "rich"}),
        (["status"], {"git", "rich", "watchfiles", "structlog", "uvicorn", "prometheus_client", "tempfile"}),
    ],
)
def test_verbs_do_not_pay_for_what_they_do_not_use(
    arguments: list[str], forbidden: set[str], tmp_path: Path
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1_a.sql").write_text("-- UP MIGRATION\nSELECT 1;\n")
    program = (
        "import sys\nfrom reconciler.cli import run\n"
        f"run({arguments!r})\nprint(sorted(set(sys.modules) & {forbidden!r}), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stderr.splitlines()[-1] == "[]"


def test_version_is_answered_as_option_and_by_the_module(tmp_path: Path) -> None:
    assert execute("--version", folder=tmp_path).out == f"reconciler {__version__}\n"
    assert execute("-v", "--version", folder=tmp_path).out == f"reconciler {__version__}\n"


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with start("status", "--help", folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == Exit.READER_GONE


@pytest.mark.parametrize("arguments", ["--version", "--help", "-v --version", "create x"])
def test_output_that_cannot_be_written_or_is_closed_is_no_bug(arguments: str, tmp_path: Path) -> None:
    def shell(redirection: str) -> subprocess.CompletedProcess[str]:
        line = f'"{sys.executable}" -m reconciler {arguments} {redirection}'
        return subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)

    full = shell(">/dev/full")
    assert (full.returncode, full.stderr) == (
        Exit.ERROR,
        "error: cannot write the answer to standard output: No space left on device\n",
    )
    closed = shell(">&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_errors_are_coloured_only_where_that_is_wanted(tmp_path: Path) -> None:
    assert "\x1b[1;31merror" in execute_on_terminal("status", folder=tmp_path).out
    assert "\x1b" not in execute_on_terminal("status", folder=tmp_path, NO_COLOR="1").out
    assert "\x1b" not in execute_on_terminal("status", folder=tmp_path, TERM="dumb").out


_ROOT = Path(__file__).parents[3]
