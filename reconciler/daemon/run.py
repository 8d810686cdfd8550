"""Running the daemon as a process: from its options to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reconciler import __version__
from reconciler.assembly import Connector, credentials, state_folder, user_state_folder
from reconciler.credentials import max_connections
from reconciler.daemon.daemon import Daemon
from reconciler.daemon.options import DaemonOptions
from reconciler.logs import configure
from reconciler.metrics import Metrics
from reconciler.model import Source
from reconciler.source import open_source
from reconciler.web import parse_listen


async def run_daemon(options: DaemonOptions) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        ReconcilerError: it could not start: no repository, a port already taken, an impossible option.
    """
    from reconciler.web.app import create_app
    from reconciler.web.server import serve

    address = parse_listen(options.listen)
    source = open_source(
        options.repository,
        branch=options.branch,
        working_tree=options.working_tree,
        state_folder=options.state_folder or user_state_folder(),
        interval=options.interval,
        credentials=options.credentials,
    )
    metrics = Metrics()
    log = configure(options.verbosity, json=options.log_json, on_message=metrics.log)
    folder = options.state_folder or state_folder(source)
    connector = Connector(
        credentials(source.root, options.secret_rules),
        folder,
        on_embedded=lambda environment, database, command: log.info(
            "embedded PostgreSQL is up", environment=environment, database=database, psql=command
        ),
        root=source.root,
        max_connections=max_connections(os.environ),
    )
    daemon = Daemon(options, source, connector, metrics, log)
    async with serve(create_app(daemon.board, metrics.render), address.host, address.port) as listening:
        _greet(log, source, listening.url)
        async with _signals(daemon.stop):
            try:
                await daemon.run()
            finally:
                await connector.close()
                await source.close()
    log.info("stopped")
    return 0


def _greet(log: Any, source: Source, url: str) -> None:
    log.info(
        f"reconciler {__version__} follows {source.branch} of {source.place}",
        status=f"{url}/",
        metrics=f"{url}/metrics",
    )


@asynccontextmanager
async def _signals(stop: Any) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
