"""The options that several verbs share, gathered in values so that a verb receives three arguments and not twenty."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reconciler.model.value import value

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
    _IntType = click.ParamType[int]
else:
    # generic only since click 8.4
    _FloatType = _IntType = click.ParamType

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


@value(kw_only=True)
class RepositoryOptions:
    """Which repository, and how to reach it. Paths are as written; a token is a reference, never a token."""

    repo: str | None = None
    branch: str | None = None
    git_token: str | None = None
    git_ssh_key: Path | None = None
    git_known_hosts: Path | None = None
    git_ca: Path | None = None
    working_tree: bool = False
    allow_secret: tuple[str, ...] = ()
    allow_secret_commands: bool = False


@value(kw_only=True)
class SelectionOptions:
    """Which databases."""

    environment: str | None = None
    database: str | None = None
    dsn: str | None = None
    migrations: str | None = None
    server: str | None = None


@value(kw_only=True)
class OutputOptions:
    """How to answer."""

    output: str = "text"
    verbose: int = 0

    @property
    def json(self) -> bool:
        """True for one JSON document on standard output."""
        return self.output == "json"


class DurationType(_FloatType):
    """`30s`, `5m`: seconds, with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        from reconciler.model.duration import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{str(value)!r} {error}.", param, ctx)


class VersionType(_IntType):
    """A migration's number, 0 for none. Not `click.IntRange`, which would print 2^63-1 in every help text."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) <= _HIGHEST):
            self.fail(f"{text[:60]!r} is no version: write a whole number from 0 to {_HIGHEST}.", param, ctx)
        return int(text)


_HIGHEST = 2**63 - 1
_MOST_DIGITS = 100
"""Leading zeros are fine, as in the names of files; a number without end is not."""

DURATION = DurationType()
VERSION = VersionType()

_REPOSITORY: tuple[Decorator[Any], ...] = (
    click.option(
        "--repo",
        metavar="PATH|URL",
        help="The git repository; by default the one that contains the working directory.",
    ),
    click.option("--branch", metavar="NAME", help="The branch; by default the one that is checked out."),
    click.option(
        "--git-token",
        metavar="SECRETREF",
        help="Token for https, by reference: env:NAME, file:PATH, gcp_secret:NAME or command:PROGRAM.",
    ),
    click.option(
        "--git-ssh-key", type=click.Path(path_type=Path), metavar="PATH", help="Private key for ssh."
    ),
    click.option(
        "--git-known-hosts",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Accepted ssh host keys; by default your own.",
    ),
    click.option(
        "--git-ca",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Certificate authorities (PEM) for https, instead of the system's.",
    ),
)
_WORKING_TREE = click.option(
    "--working-tree", is_flag=True, help="Read the files as they are on disk, uncommitted changes included."
)
_ENVIRONMENT = click.option(
    "-e", "--environment", metavar="NAME", help="The environment: the name of a manifest."
)
_DATABASE = click.option("-d", "--database", metavar="NAME", help="Only this database of the environment.")
_DSN = click.option(
    "--dsn",
    metavar="DSN",
    help="Act on this database instead of a declared one: a connection string, env:NAME or file:PATH.",
)
_MIGRATIONS = click.option(
    "--migrations",
    metavar="FOLDER",
    help="With a DSN: the folder of the migration files [default: migrations].",
)
_SERVER = click.option(
    "--server",
    metavar="URL",
    help="Ask a running daemon, http://127.0.0.1:9840 say, instead of the databases.",
)
_SECRETS: tuple[Decorator[Any], ...] = (
    click.option(
        "--allow-secret",
        multiple=True,
        metavar="ENV=PATTERN",
        help="What the manifest of an environment may refer to: env:NAME, file:PATH, ... with * and **; several times.  "
        "[default: anything]",
    ),
    click.option(
        "--allow-secret-commands",
        is_flag=True,
        help="Run the programs that manifests name as the source of a secret: whoever can commit there then runs them here.",
    ),
)
ALLOW_HOOKS = click.option(
    "--allow-hooks",
    is_flag=True,
    help="Run the commands under `hooks:` of manifests: whoever can commit there then runs commands here.",
)
SHOW_QUERIES = click.option(
    "--show-queries",
    is_flag=True,
    help="Of whoever blocks a migration, show the text of the query too: it may hold secrets and personal data.",
)


def database_options(*, working_tree: bool, migrations: bool = False, server: bool = False) -> Decorator[Any]:
    """What every verb about databases takes, as the arguments `repository`, `selection` and `output_as`.

    Args:
        working_tree: the verb can read what is not committed.
        migrations: with a DSN, the verb can be told where the migration files are.
        server: the verb can ask a daemon.
    """
    stack = (
        repository_options(working_tree=working_tree, secrets=True),
        selection_options(migrations=migrations, server=server),
        output_options(),
    )

    def decorate(function: Function) -> Any:
        decorated: Any = function
        for each in reversed(stack):
            decorated = each(decorated)
        return decorated

    return decorate


def repository_options(*, working_tree: bool, secrets: bool = False) -> Decorator[Any]:
    """`--repo`, `--branch` and git access, as the argument `repository`.

    Args:
        working_tree: the verb can read what is not committed.
        secrets: the verb resolves the references of manifests.
    """
    options = (*_REPOSITORY, *([_WORKING_TREE] if working_tree else []), *(_SECRETS if secrets else ()))
    return _gather("repository", RepositoryOptions, options)


def selection_options(*, migrations: bool = False, server: bool = False) -> Decorator[Any]:
    """`--environment`, `--database` and `--dsn`, as the argument `selection`."""
    options = [_ENVIRONMENT, _DATABASE, _DSN]
    options += [_MIGRATIONS] if migrations else []
    options += [_SERVER] if server else []
    return _gather("selection", SelectionOptions, tuple(options))


def output_options() -> Decorator[Any]:
    """`--output` and `-v`, as the argument `output_as`."""
    options = (
        click.option(
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="What to answer with.",
        ),
        click.option(
            "-v", "--verbose", count=True, help="Say more; with an unexpected error, the traceback."
        ),
    )
    return _gather("output_as", OutputOptions, options)


def _gather(argument: str, kind: type, options: tuple[Decorator[Any], ...]) -> Decorator[Any]:
    """Add `options` to a verb, which receives their values as one argument of the type `kind`."""
    names = [field.name for field in fields(kind)]

    def decorate(function: Function) -> Any:
        @functools.wraps(function)
        def gathered(**values: Any) -> Any:
            found = {name: values.pop(name) for name in names if name in values}
            return function(**{argument: kind(**found)}, **values)

        decorated: Any = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def example(*lines: str) -> str:
    """The examples of a verb, for its `epilog`."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
