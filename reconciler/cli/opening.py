"""From options to a workspace: which repository, with which credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.assembly import Workspace, credentials, user_state_folder
from reconciler.cli.options import RepositoryOptions
from reconciler.credentials import SecretRules
from reconciler.errors import UsageError
from reconciler.manifest import FileReference, SecretReference
from reconciler.manifest.references import secret_reference as parse_reference

if TYPE_CHECKING:
    from reconciler.redaction import Secret
    from reconciler.source import GitCredentials

_NEVER = 3600.0
"""Seconds between looks at a remote repository: a one-off command looks once."""


@asynccontextmanager
async def open_workspace(options: RepositoryOptions) -> AsyncIterator[Workspace]:
    """The workspace on a repository, closed at the end.

    Raises:
        UsageError: the options make no sense.
        ProblemError: there is no such repository.
    """
    from reconciler.source import open_source

    source = open_source(
        options.repo,
        branch=options.branch,
        working_tree=options.working_tree,
        state_folder=user_state_folder(),
        interval=_NEVER,
        credentials=await git_credentials(options),
    )
    workspace = Workspace(source, Path.cwd(), secret_rules(options))
    try:
        yield workspace
    finally:
        await workspace.close()


@asynccontextmanager
async def open_without_repository() -> AsyncIterator[Workspace]:
    """The workspace of a command that has only a DSN, closed at the end."""
    workspace = Workspace(None, Path.cwd())
    try:
        yield workspace
    finally:
        await workspace.close()


async def git_credentials(options: RepositoryOptions) -> GitCredentials:
    """The credentials that `options` name, the token resolved.

    Raises:
        UsageError: the token is no reference.
        ProblemError: what it refers to cannot be read.
    """
    from reconciler.source import GitCredentials

    if options.git_token is None:
        token = renew = None
    else:
        reference = secret_reference(options.git_token)
        if reference is None:
            raise UsageError(
                "--git-token takes a reference, not a token: the command line is for everybody to read",
                remedy="write env:NAME for an environment variable, file:PATH for a file, gcp_secret:NAME or command:PROGRAM ...",
            )
        secrets = credentials(Path.cwd())

        async def renew() -> Secret:
            try:
                return await secrets.resolve(reference, "")
            finally:
                await secrets.close()

        token = await renew()
    return GitCredentials(
        token=token,
        renew=renew,
        ssh_key=options.git_ssh_key,
        known_hosts=options.git_known_hosts,
        ca=options.git_ca,
    )


def secret_rules(options: RepositoryOptions) -> SecretRules:
    """Which references a manifest may use, as `--allow-secret` and `--allow-secret-commands` say.

    Raises:
        UsageError: an allowance is none.
    """
    from reconciler.credentials.rules import Allowance

    allowances = tuple(Allowance.parse(each) for each in options.allow_secret)
    return SecretRules(allowances=allowances or None, commands=options.allow_secret_commands)


def secret_reference(text: str) -> SecretReference | None:
    """The reference that `text` is; None when it is none. A path may begin with `~`."""
    reference = parse_reference(text)
    if isinstance(reference, FileReference):
        import os

        return FileReference(os.path.expanduser(reference.path))
    return reference
