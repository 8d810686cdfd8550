"""Finds the repository that a folder belongs to, and the branch that is checked out there."""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.model.value import value
from reconciler.source.failures import branch_not_found, fetch_failed, local_failed
from reconciler.source.git import Git, Processes
from reconciler.source.url import identity

_BRANCH_IN_HEAD = "ref: refs/heads/"


@value
class Repository:
    """Where a repository of this machine keeps what.

    Args:
        git_dir: its own folder; of a linked worktree, that worktree's.
        common_dir: the folder with references and objects, shared by linked worktrees.
        top: the top level of the working tree; None for a bare repository.
    """

    git_dir: Path
    common_dir: Path
    top: Path | None

    def __str__(self) -> str:
        return str(self.top or self.git_dir)


def discover(directory: Path, processes: Processes, *, trusted: bool) -> Repository:
    """Find the repository that contains `directory`.

    Args:
        directory: where to look, and from there upwards.
        processes: keeps track of the git commands.
        trusted: accept one that belongs to another user, because a person named it.

    Raises:
        ProblemError: there is none, or it is not to be trusted.
    """
    start = os.path.abspath(directory)
    if not os.path.isdir(start):
        raise fetch_failed(f"there is no folder {start}", remedy="name the repository with --repo")
    git = Git(processes, directory=start, trusted=trusted)
    # the working tree comes last: a bare repository has none, and git stops there
    result = git.run(
        "rev-parse", "--path-format=absolute", "--absolute-git-dir", "--git-common-dir", "--show-toplevel"
    )
    lines = os.fsdecode(result.output).split("\n")[:-1]
    if result.status == 0 and len(lines) == 3:
        return Repository(Path(lines[0]), Path(lines[1]), Path(lines[2]))
    if len(lines) == 2:
        return Repository(Path(lines[0]), Path(lines[1]), None)
    if "not a git repository" in result.errors:
        raise fetch_failed(
            f"{start} is not in a git repository", remedy="run git init there, or name one with --repo"
        )
    raise local_failed(start, result.errors)


def checked_out_branch(repository: Repository, git: Git) -> str:
    """The short name of the branch that is checked out; it need not have a commit yet.

    Raises:
        ProblemError: none is (a detached HEAD).
    """
    # The layout of HEAD is documented; it is read here to save a process. What reads differently, git explains.
    try:
        head = (repository.git_dir / "HEAD").read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        head = ""
    name = head.removeprefix(_BRANCH_IN_HEAD)
    if name != head and not name.startswith("."):
        return name
    result = git.run("symbolic-ref", "--quiet", "HEAD")
    reference = result.output.decode("utf-8", "surrogateescape").rstrip("\n")
    if result.status == 0 and reference.startswith("refs/heads/"):
        return reference.removeprefix("refs/heads/")
    if result.status not in (0, 1):
        raise local_failed(str(repository), result.errors)
    raise branch_not_found(
        f"the repository {repository} has no branch checked out (detached HEAD)",
        remedy="check out a branch, or name one with --branch",
    )


def claim_identity(repository: Repository, git: Git) -> str:
    """What identifies the repository in a claim: its origin, else its place on this machine."""
    result = git.run("config", "--get", "remote.origin.url")
    url = result.output.decode("utf-8", "replace").rstrip("\n")
    place = str(repository.top or repository.common_dir)
    return identity(url, base=place) if result.status == 0 and url else identity(place)


def existing_branches(git: Git) -> list[str] | None:
    """The short names of all branches; None when the repository cannot be read at all."""
    result = git.run("for-each-ref", "--format=%(refname)", "refs/heads/")
    if result.status != 0:
        return None
    names = result.output.decode("utf-8", "replace").splitlines()
    return [name.removeprefix("refs/heads/") for name in names]
