"""What a git command may reach, and with which credentials."""

from __future__ import annotations

import os
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from pathlib import Path

from reconciler.errors import UsageError
from reconciler.model.value import value
from reconciler.redaction import Secret, redact
from reconciler.source.url import RemoteUrl

_TOKEN_VARIABLE = "RECONCILER_GIT_TOKEN"
_DEFAULT_USER = "x-access-token"
"""GitHub's name for it; GitLab, Gitea and Azure take any."""
_FROM_OUR_ENVIRONMENT = (
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSH_AUTH_SOCK",
)


@value(kw_only=True)
class GitCredentials:
    """How to authenticate to a git server, and the server to us. All optional.

    Args:
        token: sent as the password, over https only and only to the host of the repository's URL.
        renew: gives the token of now, before each look at the server: it may have been rotated. None when it never changes.
        ssh_key: a private key file; with one, neither an agent nor the user's own SSH configuration is used.
        known_hosts: the file of accepted host keys; without one, the user's own. Unknown hosts are always refused.
        ca: a PEM file of certificate authorities to trust instead of the system's.
    """

    token: Secret | None = None
    renew: Callable[[], Awaitable[Secret]] | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    ca: Path | None = None


@value
class Access:
    """What a git command may reach.

    Args:
        protocols: the transports it may use; none for reading what is on this machine.
        settings: git configuration, name and value; never a secret, since it is visible in the process list.
        environment: variables on top of the clean environment.
    """

    protocols: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


NO_NETWORK = Access()


def remote_access(url: RemoteUrl, credentials: GitCredentials) -> Access:
    """The access that reaches `url` and nothing else.

    Raises:
        UsageError: a credential that is of no use with this URL, or a file that does not exist.
    """
    if credentials.token is not None:
        redact.add(credentials.token.reveal())
    inherited = {name: os.environ[name] for name in _FROM_OUR_ENVIRONMENT if name in os.environ}
    if url.scheme in ("https", "http"):
        return _http_access(url, credentials, inherited)
    if url.scheme == "ssh":
        return _ssh_access(url, credentials, inherited)
    return Access(protocols=("file",))


def _http_access(url: RemoteUrl, credentials: GitCredentials, inherited: Mapping[str, str]) -> Access:
    settings: list[tuple[str, str]] = []
    environment = dict(inherited)
    if credentials.ca is not None:
        settings.append(("http.sslCAInfo", _existing(credentials.ca, "--git-ca")))
    if credentials.token:
        # Bound to the host: a redirect elsewhere does not take the token along, as a header of our own would.
        # The shell fragment is fixed text; the token is in the environment, which other users cannot read.
        helper = (
            f'!f() {{ test "$1" = get || exit 0; echo username={url.user or _DEFAULT_USER}; '
            f'echo "password=${_TOKEN_VARIABLE}"; }}; f'
        )
        settings.append((f"credential.{url.scheme}://{url.host}.helper", helper))
        environment[_TOKEN_VARIABLE] = _header_safe(credentials.token)
    elif url.user:
        raise UsageError(
            f"the user name in the URL {url.shown!r} is of use only together with a token",
            remedy="give the token with --git-token; a token must not be part of the URL",
        )
    return Access((url.scheme,), tuple(settings), environment)


def _ssh_access(url: RemoteUrl, credentials: GitCredentials, inherited: Mapping[str, str]) -> Access:
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15", "ServerAliveInterval=15"]
    command = ["ssh"]
    if credentials.ssh_key is not None:
        command += ["-F", "none", "-i", _existing(credentials.ssh_key, "--git-ssh-key")]
        options += ["IdentitiesOnly=yes", "IdentityAgent=none"]
    if credentials.known_hosts is not None:
        known_hosts = _existing(credentials.known_hosts, "--git-known-hosts")
        if '"' in known_hosts:
            raise UsageError(f"the path {known_hosts!r} of --git-known-hosts has a quotation mark")
        # ssh splits this option's value at blanks
        options += [f'UserKnownHostsFile="{known_hosts}"', "GlobalKnownHostsFile=/dev/null"]
    command += [part for option in options for part in ("-o", option)]
    return Access(
        ("ssh",), (), {**inherited, "GIT_SSH_COMMAND": shlex.join(command), "GIT_SSH_VARIANT": "ssh"}
    )


def _existing(path: Path, option: str) -> str:
    absolute = Path(os.path.abspath(path))
    if not absolute.is_file():
        raise UsageError(f"{option}: there is no file {str(path)!r}")
    return str(absolute)


def _header_safe(token: Secret) -> str:
    value = token.reveal().strip()
    if not value.isprintable():
        raise UsageError("the git token has a line break or another character that no token has")
    return value
