"""What is decided before, and about, a connection."""

from __future__ import annotations

import pytest

from reconciler.database import ConnectionSettings
from reconciler.database.session import Session, _representable
from reconciler.model import ProblemError, Reason
from reconciler.redaction import Secret


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://postgres:abc@TopSecret99@127.0.0.1:5/orders",
        "postgresql://postgres:TopSecret99/x@127.0.0.1:5/orders",
        "postgresql://postgres:hunter@TopSecret99/x@127.0.0.1/orders",
        "postgresql://127.0.0.1:TopSecret99:x/orders",
        "host='127.0.0.1 password=TopSecret99",
        "TopSecret99",
    ],
)
async def test_a_dsn_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await Session.open(ConnectionSettings(dsn=Secret(dsn), connect_timeout=1))
    assert caught.value.problem.reason is Reason.CONNECTION_FAILED
    assert "TopSecret99" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("UTF8", "Łukasz", "Łukasz"),
        ("LATIN1", "Łuk ä", "\\u0141uk ä"),
        ("WIN1252", "Ł €", "\\u0141 €"),
        ("MULE_INTERNAL", "Łukasz", "Łukasz"),
        ("UTF8", "a\0b", "a\\0b"),
    ],
)
def test_a_text_becomes_one_that_the_server_can_hold(encoding: str, text: str, expected: str) -> None:
    assert _representable(encoding)(text) == expected
