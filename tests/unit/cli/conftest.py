"""The command line, run in this process."""

from __future__ import annotations

import pytest

from tests.command_line import CommandLine


@pytest.fixture
def reconciler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs commands."""
    return CommandLine(monkeypatch, capsys)
