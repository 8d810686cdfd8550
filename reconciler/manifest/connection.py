"""What can be told of a libpq connection string without a driver: its form, and the passwords in it.

Only enough is read to keep secrets out of git and out of the log. What the string means is libpq's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

_SECRET_KEYWORDS = frozenset(
    {"password", "sslpassword", "passwd", "pwd", "oauth_client_secret", "token", "secret"}
)
_FILE_KEYWORDS = frozenset({"passfile", "sslkey", "servicefile", "service"})
_SCHEMES = ("postgresql://", "postgres://")
_HOST_AND_PORT = re.compile(r"[^:/]*(?::[0-9]*)?(?:[/,]|\Z)|\[")
_PAIR = re.compile(
    r"\s*(?P<key>[^\s=']+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<plain>(?:[^\s'\\]|\\.)*))(?=\s|\Z)",
    re.DOTALL,
)


def is_connection_string(text: str) -> bool:
    """True for a `postgresql://` or `postgres://` URI and for `key=value` pairs; libpq may still refuse it."""
    if text.startswith(_SCHEMES):
        return True
    return "://" not in text and bool(text.strip()) and _pairs(text) is not None


def passwords(text: str) -> list[str]:
    """Every password in a connection string, as written and percent-decoded, the longest reading first.

    Meant to find too much rather than too little: text that libpq would refuse is searched as well, since its error
    message may quote it.
    """
    found = list(_in_uri(text)) if "://" in text else list(_in_pairs(text))
    forms = [form for value in found for form in (value, unquote(value), unquote_plus(value)) if form]
    return sorted(dict.fromkeys(forms), key=len, reverse=True)


def named_files(text: str) -> list[tuple[str, str]]:
    """What a connection string names that keeps passwords or keys outside of it: keyword and path, or the name of a service."""
    if "://" in text:
        query = (parameter.partition("=") for parameter in text.partition("?")[2].split("&"))
        pairs = [(unquote(key).strip(), unquote(value)) for key, _, value in query]
    else:
        pairs = _pairs(text) or []
    return [(key, value) for key, value in pairs if key.casefold() in _FILE_KEYWORDS and value]


def _in_uri(text: str) -> Iterator[str]:
    rest = text.split("://", 1)[1]
    location, _, query = rest.partition("?")
    if "@" not in location and not _HOST_AND_PORT.match(location):
        location = rest  # perhaps a password with a bare '?' in it
    if "@" in location:
        # libpq ends the user part at the first '@'; a password with a bare '@' or '/' in it is a common mistake
        for userinfo in (location.partition("@")[0], location.rpartition("@")[0]):
            if ":" in userinfo:
                yield userinfo.partition(":")[2]
    for parameter in query.split("&"):
        key, _, value = parameter.partition("=")
        if unquote(key).strip().casefold() in _SECRET_KEYWORDS:
            yield value


def _in_pairs(text: str) -> Iterator[str]:
    for key, value in _pairs(text) or ():
        if key.casefold() in _SECRET_KEYWORDS:
            yield value
    # what follows 'password=' in a text that is no proper list of pairs
    for match in re.finditer(r"(?i)(?:" + "|".join(_SECRET_KEYWORDS) + r")\s*=\s*'?(?P<value>[^\s']+)", text):
        yield match["value"]


def _pairs(text: str) -> list[tuple[str, str]] | None:
    """The pairs of a `key=value` string; None when it is not one."""
    pairs: list[tuple[str, str]] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _PAIR.match(text, position)
        if match is None:
            return None
        value = match["quoted"] if match["quoted"] is not None else match["plain"]
        pairs.append((match["key"], re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)))
        position = match.end()
    return pairs
