"""Questions about the history of a branch, answered by `git rev-list` and `git merge-base`."""

from __future__ import annotations

from reconciler.model import Change
from reconciler.source.failures import fetch_failed, printable
from reconciler.source.git import Git
from reconciler.source.names import is_commit, path_parts
from reconciler.source.objects import moment

_MOST_REMEMBERED = 1024
_FORMAT = "--format=%an <%ae>%n%ct"


class History:
    """Remembers its answers: they never change for a given commit."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], Change | None] = {}
        self._newest: dict[str, str] = {}

    def last_change(self, git: Git, commit: str, path: str) -> Change | None:
        """The newest commit at or before `commit` that changed `path`, None when there is none.

        In a shallow repository the oldest commit counts as the change of everything that is older.
        """
        parts = path_parts(path)
        if not parts or not is_commit(commit):
            return None
        key = (commit, "/".join(parts))
        if key not in self._changes:
            if len(self._changes) >= _MOST_REMEMBERED:
                self._changes.clear()
                self._newest.clear()
            self._changes[key] = self._search(git, *key)
            self._newest[key[1]] = commit
        return self._changes[key]

    def _search(self, git: Git, commit: str, path: str) -> Change | None:
        before = self._newest.get(path)
        if before is not None and self._unchanged(git, before, commit, path):
            return self._changes[before, path]
        result = git.run("rev-list", "--max-count=1", _FORMAT, "--encoding=UTF-8", commit, "--", path)
        if result.status != 0:
            raise fetch_failed(
                f"could not read the history of {path} at {commit[:12]}: {printable(result.errors.strip())}"
            )
        if not result.output:
            return None
        header, author, seconds = result.output.decode("utf-8", "replace").rstrip("\n").rsplit("\n", 2)
        return Change(header.removeprefix("commit "), printable(author), moment(seconds))

    @staticmethod
    def _unchanged(git: Git, before: str, now: str, path: str) -> bool:
        """True when `now` descends from `before`, has the same content at `path`, and no commit between touched it.

        Saves walking a long history again for each commit that changed something else.
        """
        if git.run("diff-tree", "--quiet", "--no-ext-diff", before, now, "--", path).status != 0:
            return False
        if is_ancestor(git, before, now) is not True:
            return False
        between = git.run("rev-list", "--max-count=1", "--full-history", now, f"^{before}", "--", path)
        return between.status == 0 and not between.output


def is_ancestor(git: Git, older: str, newer: str) -> bool | None:
    """True when commit `older` is part of the history of `newer`; None when this repository cannot tell."""
    if not is_commit(older) or not is_commit(newer):
        return None
    if older == newer:
        return True
    status = git.run("merge-base", "--is-ancestor", older, newer).status
    if status == 0:
        return True
    if status != 1:
        return None
    # in a shallow repository the way between them may have been cut off
    shallow = git.run("rev-parse", "--is-shallow-repository").output.strip() == b"true"
    return None if shallow else False
