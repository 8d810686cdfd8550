"""Keeping secrets out of everything that is written.

A `Secret` shows its value only to who asks for it by name. `Redactor` replaces every secret it was told of, in the forms
it may take inside URLs, headers and driver messages, in any text that leaves the process.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

MASK = "***"

# Each pattern begins with a literal and stops at the next place where it could begin again, so that a long line costs no
# more than its length. Userinfo runs to the last '@', since passwords hold bare '@' by mistake; a second form lets a
# password hold bare '/', unless what stands there is a port.
_URL_USERINFO = re.compile(r"://(?:[^/\s'\"<>]*|[^/\s'\":@]*:(?![0-9]+/)[^\s'\":@]{0,200})@")
_PASSWORD_PAIR = re.compile(
    r"""(?P<key>(?:password|passwd|pwd|passfile|token|secret)
        (?:[ \t]*=[ \t]*|["'][ \t]*:[ \t]*(?=["'])|[ \t]+(?=')))
        (?:'(?:[^'\\\n]|\\.)*+'? | "(?:[^"\\\n]|\\.)*+"? | [^\s&'"]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_AUTHORIZATION = re.compile(
    r"(?P<key>authorization['\"]?[ \t]*[:=][ \t]*['\"]?(?:(?:basic|bearer|token)[ \t]+)?)[^\s'\"]+",
    re.IGNORECASE,
)
_SHORTEST = 4
"""Shorter secrets are masked only where their place gives them away: replacing each `a` in a log helps nobody."""
_MOST_SECRETS = 10_000
"""More are forgotten, the oldest first: tokens that change every few minutes must not fill the memory."""


class Secret:
    """A value that prints as stars. `reveal()` makes each use visible in the code."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def mask_urls(text: str) -> str:
    """Mask the user part of URLs, and what follows `password=`, `"password":` or `Authorization:`, whatever it is."""
    text = _URL_USERINFO.sub(f"://{MASK}@", text)
    text = _PASSWORD_PAIR.sub(lambda match: f"{match['key']}{MASK}", text)
    return _AUTHORIZATION.sub(lambda match: f"{match['key']}{MASK}", text)


class Redactor:
    """Replaces every secret it was told of: raw, escaped, percent-encoded and base64."""

    def __init__(self, most: int = _MOST_SECRETS) -> None:
        self._most = most
        self._secrets: dict[str, None] = {}
        # first characters -> length, the longest first -> the forms of that length: looking up a position of a text
        # costs the same for one secret and for thousands, also when all begin with `postgresql://`
        self._forms: dict[str, dict[int, set[str]]] = {}

    def add(self, value: str) -> None:
        """Remember a secret. Values of under four characters are not searched for."""
        if len(value) < _SHORTEST:
            return
        known = value in self._secrets
        self._secrets.pop(value, None)
        self._secrets[value] = None  # the newest again
        if len(self._secrets) > self._most:
            self._secrets = dict.fromkeys(list(self._secrets)[-self._most // 2 :])
            remaining: dict[str, dict[int, set[str]]] = {}
            for secret in self._secrets:
                _index(secret, remaining)
            self._forms = remaining  # at once: other threads go on masking meanwhile
        elif not known:
            _index(value, self._forms)

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced by stars."""
        return mask_urls(self._replace(text) if self._forms else text)

    def _replace(self, text: str) -> str:
        forms = self._forms
        nothing: dict[int, set[str]] = {}
        parts: list[str] = []
        copied = position = 0
        last = len(text) - _SHORTEST
        while position <= last:
            by_length = forms.get(text[position : position + _SHORTEST], nothing)
            for length, same_length in by_length.items():
                if text[position : position + length] in same_length:
                    parts += (text[copied:position], MASK)
                    copied = position = position + length
                    break
            else:
                position += 1
        return "".join((*parts, text[copied:])) if parts else text


def _index(value: str, forms: dict[str, dict[int, set[str]]]) -> None:
    """Add every form of `value` to `forms`."""
    for form in _forms(value):
        start, length = form[:_SHORTEST], len(form)
        by_length = forms.get(start, {})
        if length in by_length:
            by_length[length].add(form)
        else:
            # a new mapping, for another thread may be going through the old one
            forms[start] = dict(sorted({**by_length, length: {form}}.items(), reverse=True))


def _forms(value: str) -> set[str]:
    """How `value` may look in a URL, a header, a quoted text or a dump."""
    raw = value.encode("utf-8", "surrogatepass")
    # for a path, a query, and as JavaScript's encodeURI and encodeURIComponent do it
    encoded = {quote(raw, safe=safe) for safe in ("", "/", "!~*'()", ";,/?:@&=+$-_.!~*'()#")} | {
        quote_plus(raw)
    }
    encoded |= {re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in encoded}
    escaped = {value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    escaped |= {value.replace("\\", "\\\\").replace("'", "\\'"), value.replace("'", "''")}
    # what was put into a connection string or a document is escaped before that is encoded
    in_base64 = {each for form in escaped for each in _base64_forms(form.encode("utf-8", "surrogatepass"))}
    return encoded | escaped | in_base64


def _base64_forms(raw: bytes) -> set[str]:
    """The base64 of `raw` at each of the three alignments it may have inside a longer text."""
    # on its own, with the padding
    forms = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        # characters that also hold bits of a neighbour are cut off at both ends, and so is the padding
        start = (0, 2, 3)[shift]
        end = len(encoded) - (0, 3, 2)[(shift + len(raw)) % 3]
        middle = encoded[start:end]
        if len(middle) >= _SHORTEST:
            forms |= {middle, middle.replace("+", "-").replace("/", "_")}
    return forms


redact = Redactor()
"""The process's redactor: credentials tell it each secret they resolve; logs, errors, status and journal pass through it."""
