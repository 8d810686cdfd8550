"""What the connector leaves on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from reconciler.assembly import Connector, credentials
from reconciler.manifest import read_manifest
from reconciler.model import ProblemError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
MANIFEST = b"""
target_version: 1
database:
  dsn: postgresql://127.0.0.1:1/orders
  ca: {env: ORDERS_CA}
"""


def written(folder: Path) -> list[Path]:
    """The certificates in a folder."""
    return list(folder.rglob("*.pem"))


async def test_a_certificate_given_as_text_is_one_file_for_all_connections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("ORDERS_CA", CERTIFICATE)
    manifest = read_manifest("manifests/production.yaml", MANIFEST)
    connector = Connector(credentials(None), tmp_path / "state")
    for _ in range(3):
        with pytest.raises(ProblemError):
            await connector.open("production", manifest.databases[0], manifest.timeouts).observe()
    (file,) = written(tmp_path)
    assert file.read_text().strip() == CERTIFICATE.strip()
    assert file.stat().st_mode & 0o077 == 0
    await connector.close()
    assert written(tmp_path) == []
