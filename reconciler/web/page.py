"""The page at `/`: which addresses there are, and where every database stands."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from reconciler.model import DaemonStatus, DatabaseStatus, EnvironmentStatus, Problem
from reconciler.redaction import redact

_ADDRESSES = (
    ("/api/v1/environments", "status of everything, as JSON"),
    ("/metrics", "metrics for Prometheus"),
    ("/healthz", "200 while the process is alive"),
    ("/readyz", "200 when each database was attempted once"),
)
_UNKNOWN = "-"


def index_page(status: DaemonStatus) -> str:
    """HTML without script, style or image, so that the strictest content security policy holds for it."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: DaemonStatus) -> Iterator[str]:
    source = status.source
    revision = source.revision.short if source.revision else "not read yet"
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>reconciler</title></head><body>'
    yield "<h1>reconciler</h1>"
    yield f"<p>{escape(source.repository)}, branch {escape(source.branch)}, revision {escape(revision)}</p>"
    if not status.ready:
        yield f"<p>Not ready: {escape(status.not_ready_because or 'starting')}</p>"
    problems = [
        *status.problems,
        *(environment.problem for environment in status.environments),
    ]
    for problem in filter(None, problems):
        yield f"<p>{_problem(problem)}</p>"
    yield "<table><thead><tr>"
    yield "".join(f"<th>{title}</th>" for title in ("environment", "database", "target", "current", "state"))
    yield "</tr></thead><tbody>"
    for environment in status.environments:
        yield from _rows(environment)
    yield "</tbody></table>"
    yield "<ul>"
    for path, meaning in _ADDRESSES:
        yield f'<li><a href="{path}">{path}</a>: {meaning}</li>'
    yield "</ul></body></html>"


def _rows(environment: EnvironmentStatus) -> Iterator[str]:
    link = f'<a href="/api/v1/environments/{quote(environment.environment, safe="")}">{escape(environment.environment)}</a>'
    if not environment.databases:
        yield _row(link, _UNKNOWN, _text(environment.target), _UNKNOWN, _UNKNOWN)
    for database in environment.databases:
        yield _row(
            link, escape(database.database), _text(database.target), _text(database.current), _state(database)
        )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _state(database: DatabaseStatus) -> str:
    state = database.state.value if database.state else _UNKNOWN
    return state + (f": {_problem(database.problem)}" if database.problem else "")


def _problem(problem: Problem) -> str:
    return escape(redact(str(problem)))


def _text(version: int | None) -> str:
    return _UNKNOWN if version is None else str(version)
