"""The `reconciler` command: its verbs, and how every error reaches a person."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from reconciler import __version__
from reconciler.cli.exits import Exit
from reconciler.errors import ReconcilerError, UsageError


class Verb(NamedTuple):
    """Where a verb is, and its line in `--help`, so that listing the verbs imports none of them."""

    module: str
    help: str


VERBS = {
    "run": Verb("run", "Run the daemon: keep every database at the version git declares."),
    "status": Verb("status", "Show where every database stands."),
    "plan": Verb("plan", "Show what it takes to reach the declared version; change nothing."),
    "up": Verb("up", "Apply migrations, to the declared version."),
    "down": Verb("down", "Take migrations back, to a lower version."),
    "create": Verb("create", "Write a new, empty migration file."),
    "validate": Verb("validate", "Check manifests and migration files."),
    "history": Verb("history", "Show what was applied to a database, and every attempt."),
    "wait": Verb("wait", "Wait until databases have reached a version."),
    "retry": Verb("retry", "Ask for another attempt at what failed for good."),
    "baseline": Verb("baseline", "Take over a database that already has the schema."),
    "repair": Verb("repair", "Set a database's history right by your word."),
    "unlock": Verb("unlock", "Show who holds the lock of a database, and free it."),
}

_EARLY_OPTIONS = {
    "--repo": True,
    "--branch": True,
    "--environment": True,
    "--database": True,
    "--dsn": True,
    "--output": True,
    "--verbose": False,
    "-e": True,
    "-d": True,
    "-v": False,
}
"""The common options, which may stand before the verb as well, and whether they take a value."""

_EPILOG = """
\b
Common options, before or after the verb:
  --repo, --branch, -e/--environment, -d/--database, --dsn, --output text|json, -v

\b
Exit codes:
  0 in sync, or done     2 wrong usage
  1 error or finding     3 out of sync, pending, waiting, refused or drifted
  130 interrupted        143 terminated

\b
Example:
  reconciler status --environment dev
"""


class Verbs(click.Group):
    """Imports a verb when it is asked for, and lets common options stand before it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of a day's work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb called `cmd_name`, or None."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"reconciler.cli.{verb.module}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move common options that stand before the verb behind it, where they are parsed."""
        return super().parse_args(ctx, verb_first(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for one that does not exist, name the ones that do."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The verbs are {', '.join(VERBS)}."
            ctx.fail(f"There is no verb {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def verb_first(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the common options that stand before the verb moved right behind it."""
    early: list[str] = []
    rest = list(arguments)
    while rest:
        name, equals, _ = rest[0].partition("=")
        if name not in _EARLY_OPTIONS and rest[0][:2] in ("-e", "-d"):
            name, equals = rest[0][:2], rest[0][2:]
        if rest[0].strip("v") == "-" and len(rest[0]) > 1:
            name = "-v"
        takes_value = _EARLY_OPTIONS.get(name)
        if takes_value is None:
            break
        count = 2 if takes_value and not equals else 1
        early += rest[:count]
        rest = rest[count:]
    if not rest:
        return early
    # --help, --version, or an option we do not know: click answers that
    return rest if rest[0].startswith("-") else [rest[0], *early, *rest[1:]]


@click.command(
    cls=Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(__version__, message="reconciler %(version)s")
def application() -> None:
    """Bring PostgreSQL databases to the schema version that git declares, up or down."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Nothing but an interpreter's own failure gets out of here."""
    _replace_closed_streams()
    try:
        _spell_out_what_cannot_be_encoded()
        # not `application.main`, which answers a broken pipe with the exit code of an error
        with application.make_context("reconciler", list(arguments)) as context:
            result = application.invoke(context)
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.DONE
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ReconcilerError as error:
        return _fail(error, as_json=_wants_json(list(arguments)))
    except Exception as error:  # noqa: BLE001  the last place where a person can be told in a line instead of a traceback
        if isinstance(error, OSError) and not _output_works():
            return _output_lost(error)
        return _crash(error, verbose=_wants_traceback(arguments))
    except BaseException as error:
        if _is_termination(error):
            _say("terminated")
            return Exit.TERMINATED
        raise


def _replace_closed_streams() -> None:
    """A command that was started without a standard output (`>&-`) has none to write to, and goes on all the same."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # open for as long as the process lives, as the one that is missing would be
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _spell_out_what_cannot_be_encoded() -> None:
    """A file name that is not UTF-8, or a terminal that is not, must not cost a command its answer."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_termination(error: BaseException) -> bool:
    running = sys.modules.get("reconciler.cli.running")
    return running is not None and isinstance(error, running.Terminated)


def _fail(error: ReconcilerError, *, as_json: bool) -> int:
    from reconciler.cli.terminal import write_error, write_json
    from reconciler.model.problem import ProblemError
    from reconciler.report.problems import error_text, problem_text

    if as_json:
        from reconciler.model.encoding import error_as_dict

        with contextlib.suppress(OSError):
            write_json({"problem": error_as_dict(error)})
    if isinstance(error, ProblemError):
        from reconciler.cli.judging import exit_of_problem

        write_error(problem_text(error.problem))
        return exit_of_problem(error.problem)
    write_error(error_text(error.message, error.remedy))
    return Exit.USAGE if isinstance(error, UsageError) else Exit.ERROR


def _crash(error: Exception, *, verbose: bool) -> int:
    """An error nobody foresaw."""
    from reconciler.redaction import redact

    if verbose:
        import traceback

        _say(redact("".join(traceback.format_exception(error))).rstrip())
    else:
        text = " ".join(redact(str(error)).split())
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        _say(f"error: {what}\n  this is a bug in reconciler; run with -v for the traceback")
    return Exit.ERROR


def _wants_json(arguments: list[str]) -> bool:
    """Whoever asked for a document gets one, also when the command could not begin."""
    return "--output=json" in arguments or any(
        name == "--output" and arguments[index : index + 1] == ["json"]
        for index, name in enumerate(arguments, start=1)
    )


def _wants_traceback(arguments: Sequence[str]) -> bool:
    asked = any(each == "--verbose" or (len(each) > 1 and each.strip("v") == "-") for each in arguments)
    return asked or bool(os.environ.get("RECONCILER_DEBUG"))


def _output_works() -> bool:
    """False when nothing more can be written: the disk is full, say. A blank line after a command that broke does no harm."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _output_lost(error: OSError) -> int:
    _silence_output()
    _say(f"error: cannot write the answer to standard output: {error.strerror or error}")
    return Exit.ERROR


def _reader_gone() -> int:
    """Whoever read our output has read enough."""
    _silence_output()
    return Exit.READER_GONE


def _silence_output() -> None:
    """The interpreter must not complain about standard output once more while it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
