"""Turns what git said into problems that tell a person what happened and what to do."""

from __future__ import annotations

from reconciler.model import Problem, ProblemError, Reason
from reconciler.redaction import redact

_AUTHENTICATION = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "permission denied (publickey",
    "permission denied, please try again",
    "invalid username or token",
    "invalid credentials",
    "returned error: 401",
    "returned error: 403",
    "load key",
    "unprotected private key file",
)
_HOST_KEY = (
    "host key verification failed",
    "remote host identification has changed",
    "host key is known for",
)
_NOT_FOUND = (
    "returned error: 404",
    "repository not found",
    "does not appear to be a git repository",
    "' not found",
)
_CERTIFICATE = ("certificate", "ssl ca", "tls")
_OWNERSHIP = ("detected dubious ownership",)
_MOST_OUTPUT = 600


def fetch_failed(message: str, *, remedy: str = "", detail: str = "") -> ProblemError:
    """The repository cannot be read right now."""
    return _error(Reason.FETCH_FAILED, message, remedy, detail)


def authentication_failed(message: str, *, remedy: str, detail: str = "") -> ProblemError:
    """The server refused us, or we refused the server."""
    return _error(Reason.AUTHENTICATION_FAILED, message, remedy, detail)


def branch_not_found(message: str, *, remedy: str) -> ProblemError:
    """The followed branch does not exist, or is not what is checked out."""
    return _error(Reason.BRANCH_NOT_FOUND, message, remedy, "")


def repository_empty(repository: str) -> ProblemError:
    """No branch has a commit."""
    return _error(
        Reason.REPOSITORY_EMPTY,
        f"the repository {repository} has no commit yet",
        "commit the manifests and push",
        "",
    )


def no_such_commit(repository: str, commit: str) -> ProblemError:
    """The repository has no such commit, or no longer."""
    return fetch_failed(
        f"the repository {repository} has no commit {commit[:12]}",
        remedy="its branch may have been rewritten; the next look finds the new commit",
    )


def no_such_branch(repository: str, branch: str, existing: list[str]) -> ProblemError:
    """The repository has commits, but not on `branch`."""
    shown = ", ".join(printable(name) for name in existing[:10]) + (", ..." if len(existing) > 10 else "")
    return branch_not_found(
        f"the repository {repository} has no branch {branch!r}; it has {shown}",
        remedy="push the branch, or name another one with --branch",
    )


def remote_failed(action: str, url: str, errors: str) -> ProblemError:
    """Judge a failed network command by what git, curl or ssh wrote.

    Args:
        action: what was tried, as a verb: `fetch from`.
        url: the repository as it may be shown.
        errors: the standard error output.
    """
    said = excerpt(errors)
    lowered = errors.lower()
    message = f"could not {action} {url}: {said}"
    if any(sign in lowered for sign in _HOST_KEY):
        return authentication_failed(
            f"could not {action} {url}: the server's host key is not the one in known_hosts",
            remedy="compare the server's host key and put it into the file named by --git-known-hosts",
            detail=said,
        )
    if any(sign in lowered for sign in _AUTHENTICATION):
        return authentication_failed(
            message,
            remedy="check the token (--git-token) or key (--git-ssh-key) and that it may read this repository; "
            "a server that wants a certain user name gets it from the URL: https://user@host/path",
        )
    if any(sign in lowered for sign in _NOT_FOUND):
        return fetch_failed(
            message,
            remedy="check the URL; many servers also say 'not found' when the credentials may not read it",
        )
    if any(sign in lowered for sign in _CERTIFICATE):
        return fetch_failed(message, remedy="name the certificate authority of the server with --git-ca")
    return fetch_failed(message, remedy="check that the server can be reached; it is tried again by itself")


def local_failed(path: str, errors: str) -> ProblemError:
    """Judge a failed command on a repository of this machine."""
    if any(sign in errors for sign in _OWNERSHIP):
        return fetch_failed(
            f"the repository that contains {path} belongs to another user",
            remedy="say that you trust it by naming it: --repo PATH",
        )
    return fetch_failed(f"could not read the repository {path}: {excerpt(errors)}")


def excerpt(errors: str) -> str:
    """The lines of git's error output that matter, on one line, without secrets and control characters."""
    lines = [line.strip() for line in redact(errors).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))] or lines
    short = "; ".join(line.removeprefix("fatal:").strip() for line in telling)
    return printable(short[:_MOST_OUTPUT]) or "git gave no reason"


def printable(text: str) -> str:
    """`text` with everything replaced that could move a terminal's cursor or fake a line of a log."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _error(reason: Reason, message: str, remedy: str, detail: str) -> ProblemError:
    return ProblemError(Problem(reason=reason, message=message, remedy=remedy, detail=detail))
