"""Where to listen: `HOST:PORT`, read and written."""

from __future__ import annotations

import re
from typing import NamedTuple

from reconciler.errors import UsageError

_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_HIGHEST_PORT = 65535
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Address(NamedTuple):
    """A host, without the brackets of IPv6, and a port. Port 0 lets the system choose a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it; "all interfaces" is no address to go to."""
        return f"http://{Address(_EVERYWHERE.get(self.host, self.host), self.port)}"


def parse_listen(text: str) -> Address:
    """Read the value of `--listen`.

    Args:
        text: `HOST:PORT` with a name, an IPv4 address or an IPv6 address in brackets.

    Raises:
        UsageError: it is not of that form. A port alone is refused too: it would quietly mean "all interfaces".
    """
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        raise UsageError(
            f"--listen {text!r} is not HOST:PORT",
            remedy="write for example 127.0.0.1:9840, [::1]:9840, or 0.0.0.0:9840 for all interfaces; "
            f"ports go from 0 (any free one) to {_HIGHEST_PORT}",
        )
    return Address(match["ipv6"] or match["host"], int(match["port"]))
