"""What all passes share: where they write, whom they ask, and what they may have of the work queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reconciler.daemon.board import Board, Key
from reconciler.daemon.identities import Identities

if TYPE_CHECKING:
    from reconciler.metrics import Metrics


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What every pass shares.

    Args:
        board: where statuses are put.
        metrics: what is counted.
        log: a structlog logger.
        now: the current time.
        resync: seconds between two passes over a quiet database.
        identities: which key reaches what.
        mark: have a key looked at again, after some seconds.
        may_keep: asked after a pass: may this key keep its connection open?
        is_ancestor: is the first commit known to be part of the history of the second?
        lend: leave the worker of a key to others.
        take_back: and take it back.
        stopping: the daemon ends: begin no step.
    """

    board: Board
    metrics: Metrics
    log: Any
    now: Callable[[], datetime]
    resync: float
    identities: Identities
    mark: Callable[[Key, float], None]
    may_keep: Callable[[Key], bool]
    is_ancestor: Callable[[str, str], Awaitable[bool]]
    lend: Callable[[Key], None]
    take_back: Callable[[Key], None]
    stopping: Callable[[], bool]
