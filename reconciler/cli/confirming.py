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
        UsageError: the reason is empty, too long or no text, or there is nobody to ask.
    """
    if not consent.reason.isascii():
        try:
            consent.reason.encode()
        except UnicodeEncodeError:
            raise UsageError(
                "the reason is not UTF-8",
                remedy="write it in the encoding of this terminal, or in plain ASCII",
            ) from None
    if not any(character.isprintable() and not character.isspace() for character in consent.reason):
        raise UsageError(
            "the reason is empty", remedy="say in a few words why: --reason 'restored by hand, INC-7'"
        )
    if len(consent.reason) > _LONGEST_REASON:
        raise UsageError(
            f"the reason is longer than {_LONGEST_REASON} characters", remedy="name the ticket that tells it"
        )
    # there is none at all when it was closed
    if not consent.yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise UsageError(
            "this changes databases by your word alone, and there is no terminal to ask at",
            remedy="add --yes to take what it shows",
        )


async def agrees(question: str) -> bool:
    """Ask at the terminal. Anything but `y` and `yes` is a no. Ctrl-C and SIGTERM end the waiting.

    Args:
        question: one line.
    """
    import termios

    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    terminal = sys.stdin.fileno()
    # what was typed before the question was there is no answer to it
    termios.tcflush(terminal, termios.TCIFLUSH)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    loop.add_reader(terminal, answered.set)
    try:
        await answered.wait()
    except asyncio.CancelledError:
        sys.stderr.write("\n")
        raise
    finally:
        loop.remove_reader(terminal)
    answer = os.read(terminal, 1024).decode("utf-8", "replace")
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in _YES
