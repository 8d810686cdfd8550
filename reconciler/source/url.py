"""Repository URLs: which are accepted, and what identifies a repository whatever way it is reached."""

from __future__ import annotations

import os.path
import re
from urllib.parse import unquote, urlsplit

from reconciler.errors import UsageError
from reconciler.model.value import value
from reconciler.redaction import mask_urls

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[^\]/\s]+\]|[^:/\s@\[\]]+):(?P<path>(?!//).+)")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f$\\`]|::|%0[0ad]", re.IGNORECASE)
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
_DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22}
_REMEDY = "use https://host/path, ssh://git@host/path, git@host:path or file:///path"


@value
class RemoteUrl:
    """A checked URL.

    Args:
        scheme: `https`, `ssh`, `file`, or `http` (to this machine only).
        user: the user part, or empty.
        host: with the port when one is written; empty for files.
        path: from the root of the server or this machine, as written.
        text: what is given to git.
    """

    scheme: str
    user: str
    host: str
    path: str
    text: str

    @property
    def shown(self) -> str:
        """The URL without its user part."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def identity(self) -> str:
        """See `identity`."""
        return identity(self.text)


def is_remote(text: str) -> bool:
    """True when `text` is written as a URL or as `host:path`, and so is not a folder of this machine."""
    return "://" in text or "::" in text or _SCP_LIKE.fullmatch(text) is not None


def parse_url(text: str) -> RemoteUrl:
    """Check a repository URL.

    Raises:
        UsageError: an unknown scheme, a password in it, or characters that have no business in a URL.
    """
    shown = mask_urls(text)
    # IPv6 addresses hold `::` of their own
    if (
        _UNSAFE.search(re.sub(r"\[[0-9A-Fa-f:.]+\]", "[]", text))
        or text.startswith("-")
        or not text.isprintable()
    ):
        raise UsageError(f"the repository URL {shown!r} has characters that are not allowed", remedy=_REMEDY)
    if text.startswith("/"):
        return RemoteUrl("file", "", "", text, f"file://{text}")
    if "://" not in text:
        return _parse_scp_like(text, shown)
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        if not rest.startswith("/") or rest.startswith("//"):
            raise UsageError(f"the repository URL {shown!r} is not file:///absolute/path", remedy=_REMEDY)
        return RemoteUrl("file", "", "", rest, text)
    if scheme not in _DEFAULT_PORTS:
        raise UsageError(f"the repository URL {shown!r} has the unknown scheme {scheme!r}", remedy=_REMEDY)
    return _parse_network_url(text, shown, scheme)


def _parse_network_url(text: str, shown: str, scheme: str) -> RemoteUrl:
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        raise UsageError(f"the repository URL {shown!r} has no valid host and port", remedy=_REMEDY) from None
    userinfo, _, host = split.netloc.rpartition("@")
    name = host.rpartition(":")[0] if port is not None else host.removesuffix(":")
    if ":" in userinfo:
        raise UsageError(
            f"the repository URL {shown!r} holds a password", remedy="give it with --git-token, by reference"
        )
    if userinfo and not _USER.fullmatch(userinfo):
        raise UsageError(f"the repository URL {shown!r} has an invalid user name", remedy=_REMEDY)
    if not _HOST.fullmatch(name):
        raise UsageError(f"the repository URL {shown!r} has no valid host", remedy=_REMEDY)
    if split.query or split.fragment or " " in text or "?" in text or "#" in text:
        raise UsageError(f"the repository URL {shown!r} has characters that are not allowed", remedy=_REMEDY)
    if not split.path.strip("/"):
        raise UsageError(f"the repository URL {shown!r} names no repository on the host", remedy=_REMEDY)
    if scheme == "http" and name.lower() not in _LOOPBACK:
        raise UsageError(
            f"the repository URL {shown!r} would send everything unencrypted", remedy="use https:// or ssh://"
        )
    return RemoteUrl(scheme, userinfo, name + (f":{port}" if port is not None else ""), split.path, text)


def _parse_scp_like(text: str, shown: str) -> RemoteUrl:
    match = _SCP_LIKE.fullmatch(text)
    if match is None or " " in text:
        raise UsageError(f"{shown!r} is not a repository URL", remedy=_REMEDY)
    user, host, path = match["user"] or "", match["host"], match["path"]
    if host.lower() in ("file", *_DEFAULT_PORTS):
        raise UsageError(f"the repository URL {shown!r} lacks the // after {host}:", remedy=_REMEDY)
    if (user and not _USER.fullmatch(user)) or not _HOST.fullmatch(host) or path.startswith("-"):
        raise UsageError(f"the repository URL {shown!r} has no valid user, host and path", remedy=_REMEDY)
    if not path.strip("/"):
        raise UsageError(f"the repository URL {shown!r} names no repository on the host", remedy=_REMEDY)
    return RemoteUrl("ssh", user, host, "/" + path.lstrip("/"), text)


def identity(text: str, *, base: str = "/") -> str:
    """Host, port unless it is the scheme's own, and path: the same for the ssh and the https URL of one repository.

    Args:
        text: a URL or a path, also one that `parse_url` would refuse; user and password are dropped.
        base: what a relative path is relative to.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() == "file":
        return _without_ending(os.path.normpath("/" + unquote(rest).lstrip("/")))
    if separator:
        authority, _, path = rest.partition("/")
        host, port = _host_and_port(authority.rpartition("@")[2])
        if port == str(_DEFAULT_PORTS.get(scheme.lower(), "")):
            port = ""
        return _without_ending(f"{host}{':' + port if port else ''}/{path.strip('/')}")
    match = _SCP_LIKE.fullmatch(text)
    if match is not None:
        return _without_ending(f"{match['host'].lower()}/{match['path'].strip('/')}")
    return _without_ending(os.path.normpath(os.path.join(base, text)))


def _host_and_port(authority: str) -> tuple[str, str]:
    host, separator, port = authority.rpartition(":")
    if separator and port.isdigit():
        return host.lower(), port
    return authority.lower().removesuffix(":"), ""


def _without_ending(path: str) -> str:
    return path.removesuffix("/").removesuffix(".git").removesuffix("/") or "/"
