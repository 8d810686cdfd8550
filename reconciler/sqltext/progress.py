"""What has been done of a script that runs statement by statement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from reconciler.model import Statement
from reconciler.sqltext.checksum import statement_checksum


class Chain:
    """The digests of `statements_digest` for every count, each worked out once, from the one before it."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._statements = statements
        self._links = [b""]

    def digest(self, count: int) -> str:
        """`statements_digest(statements, count)`."""
        while len(self._links) <= count:
            self._links.append(_link(self._links[-1], self._statements[len(self._links) - 1]))
        return self._links[count].hex()


def statements_digest(statements: Sequence[Statement], count: int) -> str:
    """Return a SHA-256 chain over the first `count` of `statements`, in hex.

    Equal digests mean that the same statements were done in the same order, whatever their comments and whatever
    follows them. The rows of a COPY are part of it. So a script may be mended after the statement that failed, and not before it.

    Raises:
        ValueError: there are no `count` statements.
    """
    if not 0 <= count <= len(statements):
        raise ValueError(f"a script of {len(statements)} statements has no first {count}")
    chain = b""
    for statement in statements[:count]:
        chain = _link(chain, statement)
    return chain.hex()


def _link(chain: bytes, statement: Statement) -> bytes:
    return hashlib.sha256(chain + statement_checksum(statement).encode()).digest()
