"""What the reasons say of themselves."""

from __future__ import annotations

from reconciler.model import ErrorClass, Reason


def test_what_passes_by_itself_is_a_failure_unless_it_is_only_not_its_turn() -> None:
    passing = {each for each in Reason if each.error_class is ErrorClass.TEMPORARY and each.is_refusal}
    assert passing == {Reason.LOCK_HELD}


def test_what_broke_is_no_refusal() -> None:
    broke = {Reason.STATEMENT_FAILED, Reason.STATEMENT_TIMEOUT, Reason.DOWN_FAILED, Reason.OUTCOME_UNKNOWN}
    assert not any(each.is_refusal for each in broke)
