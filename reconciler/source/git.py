"""The one place that runs git: fixed arguments, a clean environment, and nothing that a repository could execute.

A repository is not trusted, wherever it stands: its configuration can name programs to run for hooks, for file system
monitoring, for ssh, for credentials, for signatures. Every such setting is overridden here, on the command line, where it
wins. Commands that read run without any transport, so that not even a promised object is fetched behind our back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from reconciler.model import ProblemError
from reconciler.model.value import value
from reconciler.source.access import NO_NETWORK, Access
from reconciler.source.failures import fetch_failed

READ_DEADLINE = 60.0
"""Seconds that reading from this machine may take."""

_MOST_ERRORS = 64 << 10
"""Bytes of a command's error output that are looked at; a damaged repository brings forth megabytes."""

_SETTINGS = (
    # nothing of the repository's choosing is executed
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.sshCommand", "false"),
    ("core.gitProxy", ""),
    ("core.askPass", ""),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.alternateRefsCommand", "true"),
    ("credential.helper", ""),
    ("gpg.program", "false"),
    ("log.showSignature", "false"),
    # no file outside it is read, no other repository fetched
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    ("http.cookieFile", ""),
    # what arrives is checked, and what is never leaves us waiting
    ("transfer.fsckObjects", "true"),
    ("http.sslVerify", "true"),
    ("http.followRedirects", "initial"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("protocol.version", "2"),
    # housekeeping in the foreground, under our lock
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
)
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    # An empty HOME makes curl look the home folder up by itself and read its .netrc; this one it cannot read.
    "HOME": "/dev/null",
    "LC_ALL": "C",
    "LANGUAGE": "C",
}


@value
class Result:
    """How a command ended: its exit status, standard output and standard error output."""

    status: int
    output: bytes
    errors: str


class Processes:
    """The git processes of one piece of work, so that all of it can be stopped from another thread."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = threading.Event()

    @property
    def stopping(self) -> threading.Event:
        """Set while the work is being stopped: nothing new is to begin."""
        return self._stopping

    def stop(self) -> None:
        """Kill what runs and refuse what would follow, until `resume`."""
        self._stopping.set()
        for process in tuple(self._running):
            kill(process)

    def resume(self) -> None:
        """Allow work again."""
        self._stopping.clear()

    def check(self) -> None:
        """Raise a problem when the work is being stopped."""
        if self._stopping.is_set():
            raise fetch_failed("reading the repository was interrupted")

    @contextlib.contextmanager
    def registered(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Know of `process` inside the block; leaving it ends the process and frees its pipes."""
        self._running.add(process)
        try:
            if self._stopping.is_set():
                kill(process)
            yield
        finally:
            self._running.discard(process)
            if process.returncode is None:
                kill(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            process.wait()


class Git:
    """Runs git commands on one repository.

    Args:
        processes: keeps track of what runs.
        git_dir: the repository itself; None lets git look for it from `directory` upwards.
        directory: where git looks from.
        access: what network commands may reach.
        trusted: accept a repository that belongs to another user, because a person named it.
    """

    def __init__(
        self,
        processes: Processes,
        *,
        git_dir: str | None = None,
        directory: str | None = None,
        access: Access = NO_NETWORK,
        trusted: bool = False,
    ) -> None:
        place = [f"--git-dir={git_dir}"] if git_dir is not None else []
        place += ["-C", directory] if directory is not None else []
        self._access = access
        self._place = [*place, *(["-c", "safe.directory=*"] if trusted else [])]
        self._processes = processes

    def run(self, *arguments: str, input: bytes = b"", deadline: float = READ_DEADLINE) -> Result:
        """Run a command that stays on this machine.

        Raises:
            ProblemError: git is not installed, or the command did not end within `deadline` seconds.
        """
        with self._started(arguments, subprocess.PIPE) as process:
            return self._finish(process, arguments[0], input, deadline)

    def conversation(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Start a command that stays on this machine, to talk to through its pipes; it is over when the block is left.

        Its error output is dropped: nobody would read it while talking, and a damaged repository can fill any pipe.
        """
        return self._started(arguments, subprocess.DEVNULL)

    @contextlib.contextmanager
    def _started(self, arguments: Sequence[str], errors: int) -> Iterator[subprocess.Popen[bytes]]:
        command = command_line(self._place, arguments, NO_NETWORK)
        try:
            process = subprocess.Popen(
                command,
                bufsize=1 << 16,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env=environment(NO_NETWORK),
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(error) from error
        with self._processes.registered(process):
            yield process

    def run_remote(
        self, *arguments: str, input: bytes = b"", deadline: float, locks: Sequence[int] = ()
    ) -> Result:
        """Run a command that talks to the server.

        Args:
            arguments: the command.
            input: its standard input.
            deadline: seconds.
            locks: file descriptors it inherits, so that a lock on them is held for as long as it lives, even when we die.

        Raises:
            ProblemError: git is not installed, or the command did not end within `deadline` seconds.
        """
        import tempfile

        try:
            from git.cmd import Git as GitCommand
            from git.exc import GitCommandNotFound
        except ImportError as error:
            raise _not_started(error) from error
        wanted = environment(self._access)
        # GitPython adds to our own environment what it is given, and cannot take away
        surplus = [part for name in os.environ if name not in wanted for part in ("-u", name)]
        command = ["env", *surplus, *command_line(self._place, arguments, self._access)]
        options: dict[str, Any] = {"pass_fds": tuple(locks), "start_new_session": True}
        with tempfile.TemporaryFile() as feed:
            feed.write(input)
            feed.seek(0)
            try:
                handle = GitCommand("/").execute(
                    command, istream=feed, as_process=True, env=wanted, shell=False, **options
                )
            except (GitCommandNotFound, OSError) as error:
                raise _not_started(error) from error
            process = handle.proc
            assert process is not None, "a command that was just started has a process"
            with self._processes.registered(process):
                return self._finish(process, arguments[0], None, deadline)

    def _finish(
        self, process: subprocess.Popen[bytes], name: str, input: bytes | None, deadline: float
    ) -> Result:
        try:
            output, errors = process.communicate(input, timeout=deadline)
        except subprocess.TimeoutExpired:
            raise fetch_failed(f"git {name} was not done within {deadline:g} s, and was ended") from None
        self._processes.check()
        return Result(
            process.returncode, output or b"", (errors or b"")[-_MOST_ERRORS:].decode("utf-8", "replace")
        )


def command_line(place: Sequence[str], arguments: Sequence[str], access: Access) -> list[str]:
    """The whole argument list of a git command."""
    settings = [*_SETTINGS, ("protocol.allow", "never")]
    settings += [(f"protocol.{protocol}.allow", "always") for protocol in access.protocols]
    settings += access.settings
    return [
        "git",
        "--no-pager",
        *place,
        *(part for name, value in settings for part in ("-c", f"{name}={value}")),
        *arguments,
    ]


def environment(access: Access) -> dict[str, str]:
    """The whole environment of a git command: nothing is inherited but what is named here."""
    inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    # git takes an empty list for "no list", so one protocol that does not exist stands for none
    protocols = ":".join(access.protocols) or "none"
    return {
        "PATH": os.defpath,
        **inherited,
        **_ENVIRONMENT,
        "GIT_ALLOW_PROTOCOL": protocols,
        **access.environment,
    }


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with everything it started: git's transports are processes of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _not_started(error: Exception) -> ProblemError:
    return fetch_failed(f"git could not be started: {error}", remedy="install git and put it on the PATH")
