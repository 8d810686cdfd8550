"""Which servers must prove who they are, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.database import tls
from reconciler.database.tls import Certificates, is_local, secured


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without certificates, and a system that keeps its own where OpenSSL finds them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/authorities.pem")
    (tmp_path / ".postgresql").mkdir()
    return tmp_path / ".postgresql"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", ""),
        ("/run/postgresql", ""),
        ("@abstract", ""),
        ("localhost", ""),
        ("LocalHost", ""),
        ("127.0.0.1", ""),
        ("127.8.9.10", ""),
        ("::1", ""),
        ("db.example.com", "127.0.0.1"),
        ("", "::1"),
        ("localhost,/run/postgresql,127.0.0.1", ""),
        ("a.example.com,b.example.com", "127.0.0.1,127.0.0.2"),
    ],
)
def test_what_stays_on_this_machine_is_local(host: str, address: str) -> None:
    assert is_local({"host": host, "hostaddr": address})
    assert secured({"host": host, "hostaddr": address}, Certificates()) == {}


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("db.example.com", ""),
        ("localhost.example.com", ""),
        ("10.0.0.5", ""),
        ("0.0.0.0", ""),
        ("fe80::1", ""),
        ("127.1", ""),
        ("localhost", "10.0.0.5"),
        ("", "10.0.0.5"),
        ("localhost,db.example.com", ""),
        ("/run/postgresql,db.example.com", ""),
        ("a.example.com,b.example.com", "127.0.0.1,"),
    ],
)
def test_one_host_somewhere_else_is_enough_to_be_asked_who_it_is(host: str, address: str) -> None:
    assert not is_local({"host": host, "hostaddr": address})
    assert secured({"host": host, "hostaddr": address}, Certificates()) == {
        "sslmode": "verify-full",
        "sslrootcert": "system",
    }


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_a_mode_that_was_said_holds(mode: str) -> None:
    assert secured({"host": "db.example.com", "sslmode": mode}, Certificates()) == {}
    certificates = Certificates(authority="/ca.pem")
    assert secured({"host": "db.example.com", "sslmode": mode}, certificates) == {"sslrootcert": "/ca.pem"}


def test_an_authority_is_there_to_be_used_wherever_the_server_is() -> None:
    expected = {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert secured({"host": "localhost"}, Certificates(authority="/ca.pem")) == expected
    # git says more surely what is meant than a secret does
    parameters = {"host": "db.example.com", "sslrootcert": "/other.pem"}
    assert secured(parameters, Certificates(authority="/ca.pem")) == expected


def test_the_authority_of_the_dsn_holds_and_then_the_file_that_libpq_knows(home: Path) -> None:
    parameters = {"host": "db.example.com", "sslrootcert": "/other.pem"}
    assert secured(parameters, Certificates()) == {"sslmode": "verify-full"}
    (home / "root.crt").touch()
    assert secured({"host": "db.example.com"}, Certificates()) == {"sslmode": "verify-full"}


def test_the_systems_authorities_are_a_file_where_openssl_does_not_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    bundle = tmp_path / "bundle.pem"
    monkeypatch.setattr(tls, "_SYSTEM_BUNDLES", ("/nowhere/bundle.pem", str(bundle)))
    expected = {"sslmode": "verify-full", "sslrootcert": "system"}
    assert secured({"host": "db.example.com"}, Certificates()) == expected
    bundle.touch()
    expected = {"sslmode": "verify-full", "sslrootcert": str(bundle)}
    assert secured({"host": "db.example.com"}, Certificates()) == expected
    assert secured({"host": "localhost", "sslrootcert": "system"}, Certificates()) == expected
    # libpq refuses that itself, and rightly
    assert secured({"host": "localhost", "sslrootcert": "system", "sslmode": "require"}, Certificates()) == {}
