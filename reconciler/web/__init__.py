"""The daemon's HTTP side: metrics, health, status as JSON, and a page that names them. It reads and never changes anything.

This module is light. `reconciler.web.app` and `reconciler.web.server` import Starlette and uvicorn, and are imported by
whoever serves, when it serves.
"""

from reconciler.web.address import Address, parse_listen

__all__ = ["Address", "parse_listen"]
