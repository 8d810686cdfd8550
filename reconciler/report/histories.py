"""The history of a database: what is applied, every attempt, and the whole story of one migration."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from reconciler.model.encoding import JsonObject, blocker_from_dict
from reconciler.model.history import AppliedMigration, JournalEvent
from reconciler.model.migration import ScriptSource
from reconciler.report.attempts import Attempt, attempts_of
from reconciler.report.table import Table
from reconciler.report.text import UNKNOWN, elapsed, indented, instant, one_line, printable

_STYLES = {
    "success": "green",
    "running": "cyan",
    "failed": "bold red",
    "interrupted": "bold red",
    "unfinished": "yellow",
    "refused": "yellow",
    "not run": "dim",
}
_SHORT_REVISION = 8
_LONG_REVISION = 12
_WIDTH = 100
"""Columns that the story of a migration keeps to."""
_INDENT = "    "
_BY_WORD = frozenset({"repair", "baseline", "unlock"})
"""Events whose message is what a person said."""
_SOURCES = {
    ScriptSource.CHECKOUT.value: "the checkout",
    ScriptSource.STORED.value: "the database, as stored when it was applied",
}


def applied_table(rows: Sequence[AppliedMigration]) -> Table:
    """The rows of `schema_migrations`."""
    headers = ("VERSION", "NAME", "STATUS", "APPLIED AT", "TOOK", "REVISION")
    cells = [
        (
            str(row.version),
            one_line(row.name),
            _state(row),
            instant(row.applied_at),
            UNKNOWN if row.execution_time_ms is None else elapsed(row.execution_time_ms / 1000),
            (row.git_revision or UNKNOWN)[:_SHORT_REVISION],
        )
        for row in rows
    ]
    return Table(headers, cells, frozenset({"VERSION", "TOOK"}), _STYLES, frozenset({"NAME"}))


def attempts_table(attempts: Sequence[Attempt]) -> Table:
    """Every attempt: what, what came of it, how long it took, by whom, and at which revision of whom."""
    headers = ("BEGAN", "WHAT", "OUTCOME", "TOOK", "BY", "REVISION", "AUTHOR")
    cells = [
        (
            instant(attempt.began),
            _what(attempt),
            _outcome(attempt),
            UNKNOWN if attempt.took is None else elapsed(attempt.took),
            _person(attempt.newest.details),
            str(attempt.newest.details.get("git_revision") or UNKNOWN)[:_SHORT_REVISION],
            _author(attempt.newest.details),
        )
        for attempt in attempts
    ]
    return Table(headers, cells, frozenset({"TOOK"}), _STYLES, frozenset({"BY", "AUTHOR"}))


def attempt_notes(attempts: Sequence[Attempt]) -> Iterator[str]:
    """What the table has no room for: errors, reasons of refusals, and what people said."""
    for _, alike in groupby(attempts, _said):
        attempt, *others = alike
        text = "; ".join(each for each in (one_line(attempt.went_on), _message(attempt.newest)) if each)
        if artefact := attempt.newest.details.get("artefact"):
            text = f"{text}; made {one_line(str(artefact))}"
        if text:
            what = _what(attempt) + (f" to {others[-1].newest.version}" if others else "")
            yield _wrapped(f"{instant(attempt.began)} {what}: {text}", first="")


def _said(attempt: Attempt) -> tuple[object, ...]:
    """Equal for what a person has said once, of many migrations."""
    event = attempt.newest
    if event.event in _BY_WORD and event.version is not None:
        return event.attempt, event.event, event.message
    return (id(attempt),)


def story(
    version: int, row: AppliedMigration | None, events: Sequence[JournalEvent], *, more: bool = False
) -> Iterator[str]:
    """All that one migration has been through, in order.

    Args:
        version: of the migration.
        row: of the history; None when it is not there.
        events: of the journal, oldest first.
        more: also what only a search for the cause needs: process, database user, version of this program.
    """
    attempts = attempts_of(events)
    yield f"migration {version}{_name(row, attempts)}: {_standing(row)}"
    if not attempts:
        yield f"{_INDENT}the journal has nothing about it"
    # there is one writer: what began before another attempt has ended
    newest = next((attempt for attempt in reversed(attempts) if attempt.is_step), None)
    known = "its end is not recorded"
    end = f"and may be running still: {known}"
    if newest is not None and any(_ends_session(each) for each in attempts[attempts.index(newest) :]):
        # whoever takes the lock next writes down the rest
        end = "and its session was ended by `unlock`"
    for attempt in attempts:
        yield ""
        yield from _chapter(attempt, more=more, end=end if attempt is newest else f"and {known}")


def _ends_session(attempt: Attempt) -> bool:
    return attempt.newest.event == "unlock" and attempt.outcome == "terminated"


def _chapter(attempt: Attempt, *, more: bool, end: str) -> Iterator[str]:
    details = attempt.newest.details
    yield _wrapped(f"{instant(attempt.began)}  {_headline(attempt, end)}", first="")
    yield _wrapped(f"by {_person(details)}{_means(details)}")
    revision = details.get("git_revision")
    written = f" by {one_line(str(details['git_author']))}" if details.get("git_author") else ""
    if revision:
        yield _wrapped(f"at revision {str(revision)[:_LONG_REVISION]}{written}")
    if source := details.get("script_source"):
        yield _wrapped(f"script from {_SOURCES.get(str(source), one_line(str(source)))}")
    if artefact := details.get("artefact"):
        yield _wrapped(f"made {one_line(str(artefact))}")
    if attempt.went_on:
        yield _wrapped(one_line(attempt.went_on))
    if text := _message(attempt.newest):
        yield _wrapped(f"reason: {text}" if attempt.newest.event in _BY_WORD else text)
    if excerpt := details.get("excerpt"):
        yield indented(printable(str(excerpt).rstrip("\n")), _INDENT * 2)
    for blocker in _blockers(details):
        yield _wrapped(f"in its way: {blocker}")
    if more:
        known = (("pid", "pid"), ("database_user", "database user"), ("tool_version", "reconciler"))
        told = [f"{words} {details[key]}" for key, words in known if details.get(key)]
        if told:
            yield _wrapped(one_line(", ".join(told)))
        if remedy := details.get("remedy"):
            yield _wrapped(f"remedy: {one_line(str(remedy))}")


def _headline(attempt: Attempt, end: str) -> str:
    """What came of it; `end` is what is known of the end of one that has none on record."""
    event = attempt.newest
    if not attempt.is_step:
        outcome = attempt.outcome.replace("_", " ")
        hook = f"the hook {one_line(str(event.details.get('name') or UNKNOWN))}"
        return {
            "retry": "another attempt was asked for",
            "refused": "a plan was refused",
            "repair": f"repair: {outcome}",
            "baseline": "taken over without being run",
            "hook": f"{hook} {'ran' if attempt.outcome == 'success' else 'failed'}{_length(attempt)}",
            "unlock": "the session that held the lock was ended"
            if _ends_session(attempt)
            else "the lock was cleared",
        }.get(event.event, one_line(f"{event.event} {outcome}".strip()))
    words = {
        "success": "done",
        "failed": "failed",
        "interrupted": "was interrupted",
        "not_run": "was not run: something newer was declared first",
        "unfinished": f"began, {end}",
    }.get(attempt.outcome, one_line(attempt.outcome))
    return f"{event.direction or ''} {words}{_length(attempt)}".strip()


def _length(attempt: Attempt) -> str:
    if attempt.took is None:
        return ""
    return f" {'in' if attempt.outcome == 'success' else 'after'} {elapsed(attempt.took)}"


def _standing(row: AppliedMigration | None) -> str:
    if row is None:
        return "not applied"
    when = instant(row.applied_at)
    if row.status.value == "success":
        return f"applied at {when}"
    return f"{_state(row)}, as of {when}"


def _name(row: AppliedMigration | None, attempts: Sequence[Attempt]) -> str:
    names = [row.name] if row is not None else []
    # a hook has a name of its own
    events = [attempt.newest for attempt in reversed(attempts) if attempt.newest.version is not None]
    names += [str(event.details.get("name") or "") for event in events]
    name = next((each for each in names if each), "")
    return f" ({one_line(name)})" if name else ""


def _state(row: AppliedMigration) -> str:
    return row.status.value if row.direction.value == "up" else f"{row.status} (down)"


def _what(attempt: Attempt) -> str:
    event = attempt.newest
    word = (event.direction or UNKNOWN) if attempt.is_step else event.event
    if event.event == "hook":
        word = f"hook {event.details.get('name') or UNKNOWN}"
    source = event.details.get("script_source")
    # the file at the revision is what everybody expects
    from_where = f" ({source})" if source and source != ScriptSource.CHECKOUT else ""
    return one_line(f"{word} {event.version}{from_where}" if event.version is not None else word)


def _outcome(attempt: Attempt) -> str:
    return one_line(attempt.outcome.replace("_", " ")) or (
        "asked for" if attempt.newest.event == "retry" else UNKNOWN
    )


def _person(details: JsonObject) -> str:
    user, host = (one_line(str(details.get(key) or "")) for key in ("os_user", "host"))
    return "@".join(each for each in (user, host) if each) or UNKNOWN


def _author(details: JsonObject) -> str:
    author = one_line(str(details.get("git_author") or ""))
    return author.partition(" <")[0] or UNKNOWN


def _means(details: JsonObject) -> str:
    verb = details.get("verb")
    if not verb:
        return ""
    return ", the daemon" if verb == "run" else f" with `reconciler {one_line(str(verb))}`"


def _message(event: JournalEvent) -> str:
    details = event.details
    marks = [event.reason or "", f"SQLSTATE {details['sqlstate']}" if details.get("sqlstate") else ""]
    shown = ", ".join(each for each in marks if each)
    if not event.message:
        return one_line(shown)
    place = ""
    if details.get("path") and details.get("line"):
        place = f"{details['path']}:{details['line']}:{details.get('column_number') or 1}: "
    return one_line(f"{place}{event.message}{f' [{shown}]' if shown else ''}")


def _blockers(details: JsonObject) -> Iterator[str]:
    found: Any = details.get("blockers")
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            yield one_line(str(blocker_from_dict(each)))


def _wrapped(text: str, *, first: str = _INDENT) -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=first,
        subsequent_indent=first + _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
