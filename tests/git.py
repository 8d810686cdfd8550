"""Real git repositories for tests, without the developer's own configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Carl Committer",
    "GIT_COMMITTER_EMAIL": "carl@example.org",
    "LC_ALL": "C",
}


def git_environment() -> dict[str, str]:
    """The environment for git in tests: a fixed author, no configuration but the repository's, no `GIT_*` of the caller."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**inherited, **_ENVIRONMENT}


class Repository:
    """A git repository with a work tree.

    Args:
        path: its folder; made, with an empty repository, if there is none.
        branch: the branch that is checked out in a new repository.
    """

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        self._environment = git_environment()
        if not (path / ".git").exists():
            path.mkdir(parents=True, exist_ok=True)
            # no template: copying sample hooks takes longer than making the repository
            self.run("init", "--quiet", "--template=", f"--initial-branch={branch}")

    def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run one git command and return what it printed, without the last line end."""
        result = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            check=False,
        )
        if result.returncode != 0:
            raise AssertionError(f"git {' '.join(arguments)}: {result.stderr.decode(errors='replace')}")
        return result.stdout.decode(errors="surrogateescape").rstrip("\n")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files, making folders as needed; None removes a file."""
        for name, content in files.items():
            path = self.path / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str = "Change", files: Mapping[str, str | bytes | None] | None = None) -> str:
        """Commit everything in the work tree, after writing `files`, and return the commit's id. An empty commit is fine."""
        self.write(files or {})
        self.run("add", "--all", "--force")
        self.run("commit", "--quiet", "--allow-empty", "--no-verify", f"--message={message}")
        return self.head

    def revert(self, commit: str = "HEAD") -> str:
        """Commit the opposite of a commit and return the new commit's id."""
        self.run("revert", "--no-edit", commit)
        return self.head

    def branch(self, name: str, start: str = "HEAD") -> None:
        """Make a branch, without checking it out."""
        self.run("branch", name, start)

    def checkout(self, name: str) -> None:
        """Check a branch or commit out."""
        self.run("checkout", "--quiet", name)

    def reset(self, commit: str) -> None:
        """Move the branch and the work tree to a commit, as a force-push would."""
        self.run("reset", "--quiet", "--hard", commit)

    @property
    def head(self) -> str:
        """The id of the commit that is checked out."""
        return self.run("rev-parse", "HEAD")

    @property
    def url(self) -> str:
        """Its `file://` URL."""
        return self.path.as_uri()
