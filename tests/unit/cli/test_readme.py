"""What the README says of commands is what they do."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.application import VERBS
from reconciler.cli.exits import Exit
from reconciler.cli.run import command as run_command
from reconciler.model import Problem, Reason
from reconciler.model.encoding import problem_as_dict

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
COMMANDS = README.partition("## Commands\n")[2].partition("\n## ")[0]


def test_every_verb_exit_code_and_option_of_the_daemon_is_listed() -> None:
    assert [verb for verb in VERBS if f"| `{verb}" not in COMMANDS] == []
    codes = COMMANDS.partition("Exit codes:")[2].partition("\n\n")[0]
    assert [code for code in Exit if str(int(code)) not in codes] == []
    options = [
        name
        for option in run_command.params
        if isinstance(option, click.Option)
        for name in [next(each for each in option.opts if each.startswith("-"))]
    ]
    assert [name for name in options if f"`{name}" not in COMMANDS and f"{name}`" not in COMMANDS] == []


def test_every_key_of_a_problem_is_listed() -> None:
    keys = problem_as_dict(Problem(reason=Reason.PENDING, message=""))
    json = COMMANDS.partition("A problem has ")[2]
    assert [key for key in keys if f"`{key}`" not in json] == []
