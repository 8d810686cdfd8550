"""Certificate authorities and certificates for tests, made on the spot."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Certificate:
    """A certificate with its private key, both as PEM text."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.text = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.key = _key_text(key, serialization.NoEncryption())
        self._private = key

    def encrypted_key(self, password: str) -> str:
        """The private key, to be opened by a password."""
        return _key_text(self._private, serialization.BestAvailableEncryption(password.encode()))

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Put both into files `NAME.crt` and `NAME.key`, the key open to its owner only."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        for path, text in zip(paths, (self.text, self.key), strict=True):
            path.touch(mode=0o600)
            path.write_text(text)
        return paths


class Authority:
    """A certificate authority.

    Args:
        name: its common name.
    """

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = datetime.now(UTC)
        certificate = (
            _builder(self._name, self._name, self._key, now - _DAY, now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.text = certificate.public_bytes(serialization.Encoding.PEM).decode()
        """The authority's own certificate as PEM text."""

    def issue(self, name: str, *alternatives: str, expired: bool = False) -> Certificate:
        """A certificate.

        Args:
            name: its common name.
            alternatives: the host names and addresses that it is for.
            expired: it was good until yesterday.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        until = now - _DAY if expired else now + 10 * _DAY
        builder = _builder(_name(name), self._name, key, until - 10 * _DAY, until)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(alternatives)), critical=False)
        return Certificate(builder.sign(self._key, hashes.SHA256()), key)


def _key_text(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _names(texts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for text in texts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return names
