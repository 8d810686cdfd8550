"""`-- reconciler:` lines: what a migration file asks for."""

from __future__ import annotations

from typing import Any

from reconciler.model import Directives
from reconciler.model.duration import parse_duration

_FLAGS = {"no-transaction": "no_transaction", "irreversible": "irreversible"}
_DURATIONS = {"lock-timeout": "lock_timeout", "statement-timeout": "statement_timeout"}
_IGNORE = "ignore"
_ALLOW_DESTRUCTIVE = "allow-destructive"
_NAMES = (*_FLAGS, *_DURATIONS, _IGNORE, _ALLOW_DESTRUCTIVE)


class DirectiveError(Exception):
    """A directive that makes no sense: what is wrong, and what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class DirectiveReader:
    """Collects the directives of one file, line by line."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._ignore: dict[str, str] = {}

    def add(self, text: str) -> None:
        """Read one directive: what follows `-- reconciler:`.

        Raises:
            DirectiveError: it is unknown, given twice, or its argument is missing or wrong.
        """
        name, _, argument = text.strip().partition(" ")
        name, argument = name.lower(), argument.strip()
        if name in _FLAGS:
            if argument:
                raise DirectiveError(
                    f"the directive {name} takes no argument, and has {argument!r}", "remove the argument"
                )
            self._set(name, _FLAGS[name], True)
        elif name in _DURATIONS:
            try:
                self._set(name, _DURATIONS[name], parse_duration(argument))
            except ValueError as error:
                raise DirectiveError(
                    f"the directive {name} has {argument!r}, which {error}",
                    f"write for example `-- reconciler: {name} 10s`",
                ) from error
        elif name == _ALLOW_DESTRUCTIVE:
            if not argument:
                raise DirectiveError(
                    f"the directive {name} has no reason", "say in a few words why the data may go"
                )
            self._set(name, "allow_destructive", argument)
        elif name == _IGNORE:
            self._add_ignored(argument)
        else:
            raise _unknown(name)

    def result(self) -> Directives:
        """What was read."""
        return Directives(**self._values, ignore=self._ignore) if self._values or self._ignore else NONE

    def _set(self, name: str, field: str, value: object) -> None:
        if field in self._values:
            raise DirectiveError(f"the directive {name} is given twice", "keep one of them")
        self._values[field] = value

    def _add_ignored(self, argument: str) -> None:
        rule, _, reason = argument.partition(" ")
        if not rule or not reason.strip():
            raise DirectiveError(
                "the directive ignore needs a rule and a reason",
                "write for example `-- reconciler: ignore missing-down the log is append-only`",
            )
        if rule in self._ignore:
            raise DirectiveError(f"the rule {rule} is ignored twice", "keep one of the two lines")
        self._ignore[rule] = reason.strip()


NONE = Directives()
"""What most files ask for: nothing. One value for all of them."""


def _unknown(name: str) -> DirectiveError:
    from difflib import get_close_matches

    known = ", ".join(_NAMES)
    if not name:
        return DirectiveError("this directive is empty", f"write one of: {known}")
    near = get_close_matches(name, _NAMES, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return DirectiveError(
        f"the directive {name!r} is unknown", f"{meant}Known are: {known}" if meant else f"known are: {known}"
    )
