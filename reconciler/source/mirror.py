"""A bare copy of a remote repository: history and trees at once, contents of files when they are needed.

Everything about the remote is given with each command, so the copy's own configuration decides nothing. One process at
a time changes it, under a file lock that the git commands inherit: even if we are killed, nobody else starts before they
are gone. A copy that is damaged is made anew beside the old one and then put in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from reconciler.model import Reason
from reconciler.model.value import value
from reconciler.source.access import Access
from reconciler.source.base import tip
from reconciler.source.failures import excerpt, fetch_failed, remote_failed
from reconciler.source.git import Git, Processes, Result
from reconciler.source.objects import Commit, ObjectsUnreadable
from reconciler.source.url import RemoteUrl

_UNFILTERED = "reconciler-unfiltered"
"""A file of this name in the mirror says: the server does not give out single objects, so take all of them."""
_NO_SINGLE_OBJECTS = ("does not allow request for unadvertised object", "not our ref")
_LOCK_POLL = 0.05
_UPLOAD_PACK = "git -c 'safe.directory=*' upload-pack"
"""For a repository on this machine that belongs to another user: a person named it."""


@value(kw_only=True)
class Deadlines:
    """Seconds that each kind of work may take.

    Args:
        list: asking for the branches.
        fetch: fetching commits or files.
        lock: waiting for another process that works on the same mirror.
    """

    list: float = 30.0
    fetch: float = 300.0
    lock: float = 60.0


class Mirror:
    """The mirror of one URL. Blocking; several instances, in any process, may share its folder.

    Args:
        state_folder: where mirrors are kept.
        url: of the repository.
        access: how to reach it.
        processes: keeps track of the git commands.
        deadlines: see `Deadlines`.
    """

    def __init__(
        self, state_folder: Path, url: RemoteUrl, access: Access, processes: Processes, deadlines: Deadlines
    ) -> None:
        key = hashlib.sha256(url.text.encode()).hexdigest()[:32]
        self._folder = Path(os.path.abspath(state_folder)) / "mirrors" / f"{key}.git"
        self._url = url
        self.access = access
        """How the server is reached, from the next command on."""
        self._processes = processes
        self._deadlines = deadlines

    @property
    def folder(self) -> Path:
        """Where the mirror is, or will be."""
        return self._folder

    @property
    def git(self) -> Git:
        """For reading the mirror."""
        return Git(self._processes, git_dir=str(self._folder), access=self.access)

    def default_branch(self) -> str | None:
        """The branch the server's HEAD names, None when it names none."""
        lines = self._list("--symref", self._url.text, "HEAD")
        for line in lines:
            target, _, name = line.partition("\t")
            if name == "HEAD" and target.startswith("ref: refs/heads/"):
                return target.removeprefix("ref: refs/heads/")
        return None

    def branches(self) -> dict[str, str]:
        """Short name -> commit, as the server has them now."""
        found = {}
        for line in self._list("--heads", self._url.text):
            commit, _, name = line.partition("\t")
            found[name.removeprefix("refs/heads/")] = commit
        return found

    def update(self, branch: str, expected: str) -> Commit:
        """Bring `branch` here and return its newest commit.

        Args:
            branch: its short name; it exists on the server.
            expected: the commit the server said it is at. Nothing is fetched when it is here already.

        Raises:
            ProblemError: the server or this machine's disk fails.
        """
        commit = self._tip(branch)
        if commit is not None and commit.id == expected:
            return commit
        with self._locked() as lock:
            commit = self._tip(branch)
            if commit is not None and commit.id == expected:
                return commit
            if self._is_usable(expected):
                self._clean()
                result = self._fetch(self._folder, branch, lock)
                commit = self._tip(branch) if result.status == 0 else None
                if commit is not None:
                    return commit
            # the server answered a moment ago, so the fault may be ours
            self._rebuild(branch, len(expected), lock, unfiltered=self._is_unfiltered())
            commit = self._tip(branch)
        if commit is None:
            raise fetch_failed(
                f"the branch {branch} of {self._url.shown} cannot be read after it was fetched"
            )
        return commit

    def is_readable(self, branch: str) -> bool:
        """True when the mirror has `branch`, and its newest commit."""
        return self._tip(branch) is not None

    def rebuild(self, branch: str) -> None:
        """Make the mirror anew, because something in it is damaged."""
        expected = self.branches().get(branch)
        if expected is None:
            raise fetch_failed(f"the branch {branch} of {self._url.shown} is gone")
        with self._locked() as lock:
            self._rebuild(branch, len(expected), lock, unfiltered=self._is_unfiltered())

    def obtain(self, branch: str, trees: Sequence[str], blobs: Sequence[str]) -> None:
        """Fetch in one go those of `blobs` that are not here.

        Args:
            branch: to be fetched whole if the server gives out no single objects.
            trees: the trees that hold the blobs; empty when there are too few blobs to be worth asking first.
            blobs: object ids.
        """
        missing = self._missing(trees, blobs)
        if not missing:
            return
        with self._locked() as lock:
            missing = self._missing(trees, missing)
            if not missing:
                return
            self._clean()
            result = self._remote(
                self._folder,
                lock,
                "fetch",
                "--no-tags",
                "--no-write-fetch-head",
                "--recurse-submodules=no",
                "--filter=blob:none",
                "--stdin",
                "origin",
                input="".join(f"{blob}\n" for blob in missing).encode(),
                # nothing to negotiate: these objects are wanted, whatever else is here
                settings=(("fetch.negotiationAlgorithm", "noop"),),
            )
            if result.status == 0:
                return
            if any(sign in result.errors for sign in _NO_SINGLE_OBJECTS):
                self._rebuild(branch, len(missing[0]), lock, unfiltered=True)
                return
        raise remote_failed("fetch files from", self._url.shown, result.errors)

    def _list(self, *arguments: str) -> list[str]:
        self._make_parent()
        # The folder above the mirrors is where git stops looking for a repository, whose configuration it would read.
        ceiling = {"GIT_CEILING_DIRECTORIES": str(self._folder.parent.parent)}
        access = Access(self.access.protocols, self.access.settings, {**self.access.environment, **ceiling})
        git = Git(self._processes, directory=str(self._folder.parent), access=access)
        result = git.run_remote("ls-remote", *self._upload_pack(), *arguments, deadline=self._deadlines.list)
        if result.status != 0:
            raise remote_failed("list the branches of", self._url.shown, result.errors)
        return result.output.decode("utf-8", "replace").splitlines()

    def _fetch(self, folder: Path, branch: str, lock: int) -> Result:
        reference = f"refs/heads/{branch}"
        filters = [] if (folder / _UNFILTERED).exists() else ["--filter=blob:none"]
        result = self._remote(
            folder,
            lock,
            "fetch",
            "--no-tags",
            "--no-write-fetch-head",
            "--recurse-submodules=no",
            *filters,
            "origin",
            f"+{reference}:{reference}",
        )
        if result.status != 0:
            problem = remote_failed("fetch from", self._url.shown, result.errors)
            if problem.problem.reason is Reason.AUTHENTICATION_FAILED:
                raise problem
        return result

    def _remote(
        self,
        folder: Path,
        lock: int,
        *arguments: str,
        input: bytes = b"",
        settings: tuple[tuple[str, str], ...] = (),
    ) -> Result:
        command, *rest = arguments
        access = Access(
            self.access.protocols,
            (*self.access.settings, *settings, ("remote.origin.url", self._url.text)),
            self.access.environment,
        )
        git = Git(self._processes, git_dir=str(folder), access=access)
        return git.run_remote(
            command, *self._upload_pack(), *rest, input=input, deadline=self._deadlines.fetch, locks=(lock,)
        )

    def _upload_pack(self) -> list[str]:
        return [f"--upload-pack={_UPLOAD_PACK}"] if self._url.scheme == "file" else []

    def _tip(self, branch: str) -> Commit | None:
        if not self._folder.is_dir():
            return None
        try:
            return tip(self.git, branch)
        except ObjectsUnreadable:
            # damaged: as good as not there, and fetched again
            return None

    def _missing(self, trees: Sequence[str], blobs: Sequence[str]) -> list[str]:
        if not trees:
            return [blob for blob in blobs if self.git.run("cat-file", "-e", blob).status != 0]
        request = "".join(f"{tree}\n" for tree in trees).encode()
        result = self.git.run(
            "rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin", input=request
        )
        if result.status != 0:
            raise ObjectsUnreadable(excerpt(result.errors))
        absent = {line[1:].decode() for line in result.output.split(b"\n") if line.startswith(b"?")}
        return [blob for blob in blobs if blob in absent]

    def _is_usable(self, expected: str) -> bool:
        """True when there is a mirror, of the kind of object ids the server uses."""
        result = self.git.run("rev-parse", "--show-object-format") if self._folder.is_dir() else None
        return result is not None and result.output.strip() == _object_format(len(expected)).encode()

    def _is_unfiltered(self) -> bool:
        return (self._folder / _UNFILTERED).exists()

    def _rebuild(self, branch: str, id_length: int, lock: int, *, unfiltered: bool) -> None:
        """Make the mirror anew beside the old one, which stays in use until the new one is complete."""
        fresh = self._folder.with_suffix(".new")
        old = self._folder.with_suffix(".old")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        made = Git(self._processes).run(
            "init",
            "--quiet",
            "--bare",
            "--template=",
            f"--object-format={_object_format(id_length)}",
            "--initial-branch=reconciler-mirror",
            str(fresh),
        )
        if made.status != 0:
            raise fetch_failed(f"could not make the mirror {fresh}: {excerpt(made.errors)}")
        if unfiltered:
            (fresh / _UNFILTERED).touch()
        result = self._fetch(fresh, branch, lock)
        if result.status != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise remote_failed("fetch from", self._url.shown, result.errors)
        with contextlib.suppress(FileNotFoundError):
            self._folder.rename(old)
        fresh.rename(self._folder)
        shutil.rmtree(old, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what an interrupted command left. We hold the lock, so no living command owns any of it."""
        for pattern in ("*.lock", "refs/**/*.lock", "objects/**/tmp_*", "objects/**/*.lock"):
            for leftover in self._folder.glob(pattern):
                leftover.unlink(missing_ok=True)

    def _make_parent(self) -> None:
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise fetch_failed(
                f"could not make the folder {self._folder.parent} for mirrors: {error.strerror}",
                remedy="make it writable for this user",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the mirror's lock and give out its file descriptor."""
        self._make_parent()
        path = self._folder.with_suffix(".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise fetch_failed(f"could not open the lock {path}: {error.strerror}") from error
        try:
            give_up = time.monotonic() + self._deadlines.lock
            while not _try_lock(descriptor):
                self._processes.check()
                if time.monotonic() > give_up:
                    raise fetch_failed(
                        f"another process has been working on the mirror {self._folder} for over "
                        f"{self._deadlines.lock:g} s",
                        remedy="it is tried again by itself",
                    )
                self._processes.stopping.wait(_LOCK_POLL)
            yield descriptor
        except OSError as error:
            raise fetch_failed(f"could not work on the mirror {self._folder}: {error.strerror}") from error
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _object_format(id_length: int) -> str:
    return "sha256" if id_length == 64 else "sha1"
