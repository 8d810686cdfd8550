"""From an error code to a reason, and to what a person should do about it."""

from __future__ import annotations

import pytest

from reconciler.database.failures import reason_of, remedy_of
from reconciler.model import ErrorClass, Reason


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("53100", Reason.RESOURCE_EXHAUSTED),
        ("53200", Reason.RESOURCE_EXHAUSTED),
        ("53300", Reason.RESOURCE_EXHAUSTED),
        ("53400", Reason.RESOURCE_EXHAUSTED),
        ("58030", Reason.RESOURCE_EXHAUSTED),
        ("40001", Reason.SERIALIZATION_FAILURE),
        ("40P01", Reason.DEADLOCK),
        ("57P01", Reason.CONNECTION_FAILED),
        ("08006", Reason.CONNECTION_FAILED),
    ],
)
def test_what_passes_by_itself_is_temporary_and_says_so(sqlstate: str, reason: Reason) -> None:
    assert reason_of(sqlstate, Reason.STATEMENT_FAILED) is reason
    assert reason.error_class is ErrorClass.TEMPORARY
    assert "it is tried again by itself" in remedy_of(reason)


@pytest.mark.parametrize("sqlstate", ["42P01", "23505", "22012", "57014", "P0001", ""])
def test_what_the_sql_itself_is_to_blame_for_is_not(sqlstate: str) -> None:
    assert reason_of(sqlstate, Reason.STATEMENT_FAILED) is Reason.STATEMENT_FAILED
    assert remedy_of(Reason.STATEMENT_FAILED) == ""
