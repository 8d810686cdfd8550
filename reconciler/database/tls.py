"""TLS: a server that is not local must prove who it is, unless somebody said otherwise."""

from __future__ import annotations

import os
from ipaddress import ip_address

from reconciler.database.parameters import Parameters, hosts
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.value import value

SYSTEM = "system"
"""libpq's word, as a value of `sslrootcert`, for the authorities that the operating system trusts."""
_VERIFY = "verify-full"
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # macOS, BSD
)
_KEY_HEAD = 4096
"""Characters of a private key's file that are looked at: its first lines say whether it is encrypted."""


@value(kw_only=True)
class Certificates:
    """Paths of PEM files, each None for what the DSN says.

    Args:
        authority: whom to trust, or `system`.
        client: our own certificate.
        client_key: its private key; open to its owner only.
    """

    authority: str | None = None
    client: str | None = None
    client_key: str | None = None


def secured(parameters: Parameters, certificates: Certificates) -> Parameters:
    """What TLS adds to the parameters of a connection.

    `verify-full` is the default when an authority was given or a host is not local. Without an authority, that is the file
    where libpq looks for it, or else whom the operating system trusts.

    Args:
        parameters: all that was said, in the DSN and elsewhere.
        certificates: those of the manifest.
    """
    added: Parameters = {}
    for key, path in (
        ("sslrootcert", certificates.authority),
        ("sslcert", certificates.client),
        ("sslkey", certificates.client_key),
    ):
        if path is not None:
            added[key] = path
    authority = added.get("sslrootcert") or parameters.get("sslrootcert")
    mode = parameters.get("sslmode")
    if not mode and (certificates.authority or not is_local(parameters)):
        mode = added["sslmode"] = _VERIFY
    if mode == _VERIFY and not authority and not os.path.exists(_own_root_file()):
        authority = SYSTEM
    if authority == SYSTEM and mode in (None, "", _VERIFY):
        added["sslrootcert"] = _system_bundle()
        added["sslmode"] = _VERIFY
    return added


def is_local(parameters: Parameters) -> bool:
    """True when nothing leaves this machine: every host is a Unix socket, `localhost` or a loopback address."""
    return all(_is_loopback(address) if address else _is_here(name) for name, address in hosts(parameters))


def refuse_encrypted_key(parameters: Parameters) -> None:
    """Refuse a private key that takes a password nobody gave: OpenSSL would ask the terminal for it and wait.

    Args:
        parameters: all of the connection.

    Raises:
        ProblemError: `TlsFailed`.
    """
    path = parameters.get("sslkey") or _own_file("postgresql.key")
    if parameters.get("sslpassword") or parameters.get("sslmode") == "disable" or ":" in path:
        return
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            encrypted = "ENCRYPTED" in file.read(_KEY_HEAD)
    except OSError:
        return  # libpq says what is wrong with it, if it needs it
    if encrypted:
        raise ProblemError(
            Problem(
                reason=Reason.TLS_FAILED,
                message="the client certificate's private key is encrypted, and no password for it was given",
                remedy="give the key without a password, or say `sslpassword=...` in the DSN",
            )
        )


def _is_here(name: str) -> bool:
    return name == "" or name.startswith(("/", "@")) or name.lower() == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _own_file(name: str) -> str:
    return os.path.expanduser(f"~/.postgresql/{name}")


def _own_root_file() -> str:
    return _own_file("root.crt")


def _system_bundle() -> str:
    """The file of the authorities that the operating system trusts.

    The OpenSSL within psycopg's binary packages does not know where they are; `system` works only with SSL_CERT_FILE or
    SSL_CERT_DIR set, or with a libpq of the operating system.
    """
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return SYSTEM
    return next((path for path in _SYSTEM_BUNDLES if os.path.exists(path)), SYSTEM)
