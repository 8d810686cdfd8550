"""As whom PostgreSQL's programs run. They refuse to run as root, and nothing here makes an account or opens a permission.

- An ordinary user runs them as himself.
- Root runs them in a user namespace of their own: inside they are `nobody`, outside their files belong to root and they
  reach what root's own modes allow, so a `/root` of mode 700 is no obstacle.
- Where user namespaces are off (many containers), root runs them under the real `nobody`; and where existing data
  belongs to an ordinary user, under that user.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.model.value import value

_NOBODY = 65534
_KEPT_VARIABLES = ("TZ", "TMPDIR", "LD_LIBRARY_PATH")


@value
class Account:
    """How to start one of PostgreSQL's programs.

    Args:
        prefix: a command that becomes the program.
        uid: the user to become, None to stay.
        gid: the group to become, None to stay.
    """

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def is_other(self) -> bool:
        """True when files have to be given to this account before it can use them."""
        return self.uid is not None

    def start(
        self,
        arguments: Sequence[str],
        *,
        output: int,
        folder: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program, away from the terminal: in a session of its own, so that Ctrl-C does not reach it.

        Args:
            arguments: the program's path and arguments.
            output: descriptor that takes what the program writes.
            folder: the working directory; entered before the account is changed.
            keep_open: descriptors to hand on.
        """
        return subprocess.Popen(
            [*self.prefix, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=_clean_environment(),
            pass_fds=keep_open,
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=[] if self.uid is not None else None,
        )

    def can(self, test: str, *paths: Path | str) -> bool:
        """Tell whether a shell test on `$1`, `$2`, ... holds for a program started this way."""
        process = self.start(
            ["/bin/sh", "-c", test, "sh", *map(str, paths)], output=subprocess.DEVNULL, folder=Path("/")
        )
        return process.wait(timeout=30) == 0


def choose_account(data: Path, *, user_namespaces: bool = True) -> Account:
    """Return how the server of the data folder `data` is to be run by this process.

    Args:
        data: the data folder, existing or not.
        user_namespaces: False does without them even where they work.
    """
    uid = os.geteuid()
    if uid != 0:
        if _has_login(uid) or not user_namespaces:
            return Account()
        # initdb insists on a name for its user, which a container started with a bare number lacks
        return _namespace() or Account()
    owner = _owner(data)
    if owner is not None and owner[0] != 0:
        return Account(uid=owner[0], gid=owner[1])
    return (_namespace() if user_namespaces else None) or _nobody()


def _namespace() -> Account | None:
    """A user namespace in which we are `nobody`, None where the system allows none."""
    from shutil import which

    unshare = which("unshare")
    if unshare is None:
        return None
    nobody = _nobody()
    account = Account(
        prefix=(unshare, "--user", f"--map-user={nobody.uid}", f"--map-group={nobody.gid}", "--")
    )
    try:
        return account if account.can("true") else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(uid=_NOBODY, gid=_NOBODY)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _has_login(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _owner(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_uid, status.st_gid


def _clean_environment() -> Mapping[str, str]:
    """No `PG*` variable of the caller may steer the server, and messages stay in the language they are recognised in."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **kept}
