"""From options to a workspace: which repository, with which credentials."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.assembly import Workspace, credentials, user_state_folder
from reconciler.cli.options import RepositoryOptions
from reconciler.errors import UsageError
from reconciler.manifest import EnvironmentReference, FileReference

if TYPE_CHECKING:
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
    workspace = Workspace(source, Path.cwd())
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

    token = None
    if options.git_token is not None:
        reference = secret_reference(options.git_token)
        if reference is None:
            raise UsageError(
                "--git-token takes a reference, not a token: the command line is for everybody to read",
                remedy="write env:NAME for an environment variable, or file:PATH for a file",
            )
        token = await credentials(Path.cwd()).resolve(reference)
    return GitCredentials(
        token=token, ssh_key=options.git_ssh_key, known_hosts=options.git_known_hosts, ca=options.git_ca
    )


def secret_reference(text: str) -> EnvironmentReference | FileReference | None:
    """The reference written as `env:NAME` or `file:PATH`; None when `text` is neither."""
    kind, colon, rest = text.partition(":")
    if not colon or not rest or rest.startswith("//"):
        return None
    if kind == "env":
        return EnvironmentReference(rest)
    if kind == "file":
        return FileReference(os.path.expanduser(rest))
    return None
