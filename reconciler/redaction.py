"""Keeping secrets out of everything that is written.

A `Secret` shows its value only to who asks for it by name. `Redactor` replaces every secret it was told of, in the forms
it may take inside URLs, headers and driver messages, in any text that leaves the process.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, quote_plus

MASK = "***"

_URL_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<userinfo>[^/\s@'\"]*)@")
_PASSWORD_PAIR = re.compile(
    r"(?P<key>\b(?:password|passwd|pwd|sslpassword|passfile|token|secret)\s*=\s*)(?P<value>'(?:[^'\\]|\\.)*'|[^\s&'\"]+)",
    re.IGNORECASE,
)
_SHORTEST = 4
"""Shorter secrets are masked only where their place gives them away: replacing each `a` in a log helps nobody."""


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
    """Mask the user part of URLs and the values of `password=`-like pairs in `text`, whatever they are."""
    text = _URL_USERINFO.sub(lambda match: f"{match['scheme']}{MASK}@", text)
    return _PASSWORD_PAIR.sub(lambda match: f"{match['key']}{MASK}", text)


class Redactor:
    """Replaces every secret it was told of: raw, percent-encoded and base64."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        """Remember a secret. Values of under four characters are not searched for."""
        if len(value) < _SHORTEST:
            return
        forms = {value, quote(value, safe=""), quote(value), quote_plus(value)}
        forms |= {form.replace("%2F", "%2f") for form in set(forms)}
        forms |= _base64_forms(value)
        if forms <= self._forms:
            return
        self._forms |= forms
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced by stars."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return mask_urls(text)


def _base64_forms(value: str) -> set[str]:
    """The base64 of `value` at each of the three alignments it may have inside a longer text."""
    raw = value.encode()
    forms: set[str] = set()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        # characters that also depend on neighbours are cut off at both ends
        start = (0, 2, 3)[shift]
        end = len(encoded) - (0, 4, 4)[-(shift + len(raw)) % 3]
        middle = encoded[start:end].rstrip("=")
        if len(middle) >= 6:
            forms |= {middle, middle.replace("+", "-").replace("/", "_")}
    return forms


redact = Redactor()
"""The process's redactor: credentials tell it each secret they resolve; logs, errors, status and journal pass through it."""
