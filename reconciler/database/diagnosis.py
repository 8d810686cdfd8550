"""Finding out what is wrong with a server's certificate: libpq says only that it could not be verified."""

from __future__ import annotations

import asyncio
import struct

_TLS_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a PostgreSQL client sends first to ask for TLS."""
_PATIENCE = 5.0
"""Seconds for all of it."""


async def certificate_fault(host: str, port: int, authority: str) -> str:
    """What OpenSSL says of the server's certificate, `certificate has expired` say; empty when it says nothing.

    Args:
        host: a name or address.
        port: its TCP port.
        authority: path of the PEM file of whom to trust, or `system`.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # libpq has already said so when only the name is wrong
    context.check_hostname = False
    try:
        if authority == "system":
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=authority)
        async with asyncio.timeout(_PATIENCE):
            await _shake_hands(host, port, context)
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except (OSError, EOFError, TimeoutError):
        # includes every other error of TLS: the connection's own message has to do
        return ""
    return ""


async def _shake_hands(host: str, port: int, context: object) -> None:
    import ssl

    assert isinstance(context, ssl.SSLContext)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_TLS_REQUEST)
        await writer.drain()
        if await reader.readexactly(1) == b"S":
            await writer.start_tls(context, server_hostname=host)
    finally:
        writer.transport.abort()
