"""CRC-32C (Castagnoli), by which Google Secret Manager lets its readers verify what they received."""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0x82F63B78
"""With its bits reversed."""


def crc32c(data: bytes) -> int:
    """The checksum of `data`."""
    table = _table()
    register = 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> tuple[int, ...]:
    def entry(index: int) -> int:
        for _ in range(8):
            index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
        return index

    return tuple(map(entry, range(256)))
