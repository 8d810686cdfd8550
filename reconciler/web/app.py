"""What is answered to which address. Every answer is computed from one reading of the daemon; none changes anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.model import DaemonStatus, EnvironmentStatus, StatusView
from reconciler.model.encoding import daemon_as_dict, environment_as_dict, status_as_dict
from reconciler.web.page import index_page

RenderMetrics = Callable[[str, DaemonStatus], tuple[bytes, str]]
"""From a request's `Accept` header and a reading of the daemon to a body and its content type."""

_METRICS_LIFETIME = 1.0
"""Seconds for which a rendering of the metrics is handed out again."""

_COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(view: StatusView, render_metrics: RenderMetrics) -> Starlette:
    """The application behind `--listen`.

    Args:
        view: read anew for each request, always in the event loop.
        render_metrics: called in a thread, one call at a time.
    """
    endpoints = _Endpoints(view, _MetricsCache(view, render_metrics))
    app = Starlette(
        routes=[
            Route("/", endpoints.index),
            Route("/metrics", endpoints.metrics),
            Route("/healthz", endpoints.healthz),
            Route("/readyz", endpoints.readyz),
            Route("/api/v1/environments", endpoints.environments),
            Route("/api/v1/environments/{environment}", endpoints.environment),
            Route("/api/v1/environments/{environment}/{database}", endpoints.database),
        ],
        middleware=[Middleware(_CommonHeaders)],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    # a redirect would be built from the request's own Host header
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    def __init__(self, view: StatusView, metrics: _MetricsCache) -> None:
        self._view = view
        self._metrics = metrics

    async def index(self, request: Request) -> Response:
        return HTMLResponse(index_page(self._view.snapshot()))

    async def metrics(self, request: Request) -> Response:
        body, content_type = await self._metrics.get(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        status = self._view.snapshot()
        if status.ready:
            return _json({"ready": True, "not_ready_because": None})
        return _json(
            {"ready": False, "not_ready_because": status.not_ready_because or "starting"}, status_code=503
        )

    async def environments(self, request: Request) -> Response:
        return _json(daemon_as_dict(self._view.snapshot()))

    async def environment(self, request: Request) -> Response:
        return _json(environment_as_dict(self._environment_of(request)))

    async def database(self, request: Request) -> Response:
        environment = self._environment_of(request)
        name = request.path_params["database"]
        for database in environment.databases:
            if database.database == name:
                return _json(status_as_dict(database))
        known = _enumerate(database.database for database in environment.databases)
        raise HTTPException(
            404, f"environment {environment.environment!r} has no database {name!r}; it has {known}"
        )

    def _environment_of(self, request: Request) -> EnvironmentStatus:
        name = request.path_params["environment"]
        environments = self._view.snapshot().environments
        for environment in environments:
            if environment.environment == name:
                return environment
        known = _enumerate(environment.environment for environment in environments)
        raise HTTPException(404, f"there is no environment {name!r}; there is {known}")


class _Rendering(NamedTuple):
    made_at: float
    body: bytes
    content_type: str


class _MetricsCache:
    """Renders one at a time, off the event loop, and at most once a second for the same `Accept` header.

    However many scrapers there are and however often they ask, migrations keep the processor.
    """

    def __init__(self, view: StatusView, render: RenderMetrics) -> None:
        self._view = view
        self._render = render
        self._turn = asyncio.Lock()
        self._renderings: dict[str, _Rendering] = {}

    async def get(self, accept: str) -> tuple[bytes, str]:
        async with self._turn:
            now = time.monotonic()
            self._renderings = {
                header: rendering
                for header, rendering in self._renderings.items()
                if now - rendering.made_at < _METRICS_LIFETIME
            }
            rendering = self._renderings.get(accept)
            if rendering is None:
                body, content_type = await asyncio.to_thread(self._render, accept, self._view.snapshot())
                rendering = self._renderings[accept] = _Rendering(now, body, content_type)
        return rendering.body, rendering.content_type


class _CommonHeaders:
    """Adds the common headers to every response, in ASGI so that nothing is buffered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_common_headers())
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = error.detail
    if error.status_code == 405:
        message = f"{request.method} is not allowed; this address is read with GET"
    elif error.status_code == 404 and "endpoint" not in request.scope:
        message = f"there is nothing at {request.url.path}; GET / names every address"
    return _error(error.status_code, message, headers=error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    # the server logs the exception; it is nothing for a stranger to read. This handler runs outside the middleware.
    return _error(500, "internal error; the log of the daemon has the details", headers=_common_headers())


def _error(status_code: int, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    return _json(
        {"error": {"status": status_code, "message": message}}, status_code=status_code, headers=headers
    )


def _json(content: Any, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Indented, since most who ask by hand use curl."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    # a lone surrogate, from a file name that is not UTF-8, is shown as `?` rather than failing the whole answer
    body = text.encode("utf-8", errors="replace")
    return Response(body, status_code=status_code, headers=headers, media_type="application/json")


def _common_headers() -> dict[str, str]:
    """What every response carries; the date too, since our server does not add it."""
    return {**_COMMON_HEADERS, "Date": formatdate(usegmt=True)}


def _enumerate(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none yet"
