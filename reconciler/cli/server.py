"""Asking a running daemon over HTTP."""

from __future__ import annotations

import json
from typing import Any

from reconciler.cli.options import SelectionOptions
from reconciler.errors import UsageError
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.encoding import JsonObject
from reconciler.redaction import mask_urls

_PATH = "/api/v1/environments"
_TIMEOUT = 10.0
"""Seconds, for the connection and for each read."""
_LARGEST = 64 << 20
"""Bytes of an answer that are still read."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def read_server(selection: SelectionOptions) -> JsonObject:
    """What the daemon at `selection.server` says, cut down to the databases that are chosen.

    Raises:
        UsageError: the URL is none, or the daemon has no such environment or database.
        ProblemError: the daemon cannot be reached, or answers something else.
    """
    assert selection.server is not None
    if selection.dsn is not None or selection.migrations is not None:
        raise UsageError(
            "--server and --dsn name two different places to ask", remedy="give only one of them"
        )
    found = _fetch(_address(selection.server))
    if not isinstance(found, dict) or not isinstance(found.get("environments"), list):
        raise _unreachable(selection.server, "what answers there is no reconciler")
    return {**found, "environments": _chosen(found["environments"], selection)}


def _address(text: str) -> str:
    from urllib.parse import urlsplit

    shown = mask_urls(text)
    try:
        split = urlsplit(text)
        port_is_fine = split.port is None or split.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or split.scheme not in ("http", "https") or not split.hostname:
        raise UsageError(
            f"--server {shown!r} is not the URL of a daemon", remedy="write http://127.0.0.1:9840, say"
        )
    if "@" in split.netloc:
        raise UsageError(
            f"--server {shown!r} holds a user name, which the daemon does not ask for", remedy="leave it out"
        )
    return f"{split.scheme}://{split.netloc}{split.path.rstrip('/').removesuffix(_PATH)}{_PATH}"


def _fetch(address: str) -> Any:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import ProxyHandler, Request, build_opener

    # a proxy has no way to this machine's own addresses
    direct = [ProxyHandler({})] if urlsplit(address).hostname in _LOOPBACK else []
    request = Request(address, headers={"Accept": "application/json", "User-Agent": "reconciler"})
    try:
        with build_opener(*direct).open(request, timeout=_TIMEOUT) as answer:
            body = answer.read(_LARGEST + 1)
    except HTTPError as error:
        raise _unreachable(address, f"it answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _unreachable(address, str(reason) or type(error).__name__) from None
    if len(body) > _LARGEST:
        raise _unreachable(address, f"its answer has more than {_LARGEST:,} bytes")
    try:
        return json.loads(body)
    except ValueError:
        raise _unreachable(address, "its answer is not JSON") from None


def _unreachable(address: str, why: str) -> ProblemError:
    return ProblemError(
        Problem(
            reason=Reason.CONNECTION_FAILED,
            message=f"cannot read the status of the daemon at {address}: {why}",
            remedy="check that `reconciler run` listens there; its first lines of log say where",
        )
    )


def _chosen(environments: list[Any], selection: SelectionOptions) -> list[JsonObject]:
    found = [each for each in environments if isinstance(each, dict)]
    if selection.environment is not None:
        names = ", ".join(str(each.get("environment")) for each in found)
        found = [each for each in found if each.get("environment") == selection.environment]
        if not found:
            raise UsageError(
                f"the daemon has no environment {selection.environment!r}",
                remedy=f"name one of: {names}" if names else "it has none yet",
            )
    if selection.database is None:
        return found
    cut = [
        {
            **each,
            "databases": [
                other for other in each.get("databases") or () if other.get("database") == selection.database
            ],
        }
        for each in found
    ]
    cut = [each for each in cut if each["databases"]]
    if not cut:
        raise UsageError(f"the daemon has no database {selection.database!r} there")
    return cut
