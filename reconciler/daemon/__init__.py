"""The long-running daemon."""

from reconciler.daemon.options import DaemonOptions
from reconciler.daemon.run import run_daemon

__all__ = ["DaemonOptions", "run_daemon"]
