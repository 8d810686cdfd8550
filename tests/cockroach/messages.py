"""Messages of PostgreSQL's protocol 3 as a server sends them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

NOTICE, WARNING, ERROR, FATAL = "NOTICE", "WARNING", "ERROR", "FATAL"
IDLE, OPEN, FAILED = "I", "T", "E"
"""Transaction states, as ReadyForQuery tells them."""


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message of that type."""
    return kind + struct.pack("!i", len(body) + 4) + body


def texts(*words: str) -> bytes:
    """Strings that each end with a zero byte."""
    return b"".join(word.encode() + b"\0" for word in words)


def query(text: str) -> bytes:
    """What a client sends to have `text` run by the simple protocol."""
    return message(b"Q", texts(text))


def parameter(name: str, value: str) -> bytes:
    """The server's word of one of its parameters."""
    return message(b"S", texts(name, value))


def complete(tag: str) -> bytes:
    """A statement is done."""
    return message(b"C", texts(tag))


def ready(state: str) -> bytes:
    """The server waits for the next message."""
    return message(b"Z", state.encode())


def report(severity: str, sqlstate: str, text: str, **more: str) -> bytes:
    """An error or a notice. `more` holds further fields by their one-letter names."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text, **more}
    return _report(b"E" if severity in (ERROR, FATAL) else b"N", fields)


def fields_of(data: bytes) -> dict[str, str]:
    """The fields of an error or notice, by their one-letter names."""
    parts = data[5:].split(b"\0")
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}


def as_cockroach_says(data: bytes) -> bytes:
    """An error or notice of PostgreSQL as CockroachDB words it: no position, and everything worth a retry is a 40001."""
    fields = fields_of(data)
    for name in "Ppq":
        fields.pop(name, None)
    if fields.get("C") in ("40001", "40P01"):
        fields |= {"C": "40001", "M": f"restart transaction: {fields['M']}"}
    return _report(data[:1], fields)


def _report(kind: bytes, fields: Mapping[str, str]) -> bytes:
    return message(kind, b"".join(texts(name + text) for name, text in fields.items()) + b"\0")


def startup(parameters: Mapping[str, str], version: int = 196608) -> bytes:
    """A client's first message."""
    body = struct.pack("!i", version) + b"".join(texts(*pair) for pair in parameters.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def startup_parameters(data: bytes) -> dict[str, str]:
    """What a client says of itself in its first message, by name."""
    words = [word.decode() for word in data[8:].rstrip(b"\0").split(b"\0")]
    return dict(zip(words[::2], words[1::2], strict=False))
