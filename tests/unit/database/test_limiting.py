"""How many connections there may be, and for what."""

from __future__ import annotations

import pytest

from reconciler.database import ConnectionLimit
from reconciler.model import ProblemError


def test_what_matters_less_takes_no_connection_that_what_matters_more_may_need() -> None:
    limit = ConnectionLimit(2)
    # a third kind of connection, while the second is not open at this moment
    with (
        pytest.raises(ProblemError, match="allows 2 connections to a database at once, and this takes 3"),
        limit.one_more(3),
    ):
        pass
    with limit.one_more(1), limit.one_more(2), pytest.raises(ProblemError), limit.one_more(1):
        pass
    with limit.one_more(2):
        pass
