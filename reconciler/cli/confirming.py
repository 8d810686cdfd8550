"""Asking a person before anything is changed by their word."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from reconciler.errors import UsageError
from reconciler.model.value import value

Function = TypeVar("Function", bound=Callable[..., Any])

_LONGEST_REASON = 1000
_YES = frozenset({"y", "yes"})


@value(kw_only=True)
class Consent:
    """What a person has said on the command line.

    Args:
        reason: why they do it, for the journal.
        yes: they need not be asked.
    """

    reason: str
    yes: bool


def consent_options(function: Function) -> Any:
    """`--reason` and `--yes`, as the argument `consent`."""

    def gathered(*, reason: str, yes: bool, **values: Any) -> Any:
        return function(consent=Consent(reason=reason, yes=yes), **values)

    gathered.__name__, gathered.__doc__ = function.__name__, function.__doc__
    gathered.__dict__.update(function.__dict__)
    decorated: Any = gathered
    decorated = click.option("--yes", is_flag=True, help="Do not ask: do what is shown.")(decorated)
    return click.option(
        "--reason", metavar="TEXT", required=True, help="Why; it is kept in the database's journal."
    )(decorated)


def check_consent(consent: Consent) -> None:
    """Refuse what nobody could be asked about.

    Raises:
        UsageError: the reason is empty or too long, or there is nobody to ask.
    """
    if not consent.reason.strip():
        raise UsageError(
            "the reason is empty", remedy="say in a few words why: --reason 'restored by hand, INC-7'"
        )
    if len(consent.reason) > _LONGEST_REASON:
        raise UsageError(
            f"the reason is longer than {_LONGEST_REASON} characters", remedy="name the ticket that tells it"
        )
    if not consent.yes and not sys.stdin.isatty():
        raise UsageError(
            "this changes databases by your word alone, and there is no terminal to ask at",
            remedy="add --yes to take what it shows",
        )


async def agrees(question: str) -> bool:
    """Ask at the terminal. Anything but `y` and `yes` is a no. Ctrl-C and SIGTERM end the waiting.

    Args:
        question: one line.
    """
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    terminal = sys.stdin.fileno()
    loop.add_reader(terminal, answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(terminal)
    answer = os.read(terminal, 1024).decode("utf-8", "replace")
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in _YES
