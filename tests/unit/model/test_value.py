"""Values are frozen dataclasses with slots, whatever they cost to define."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field

import pytest

from reconciler.model.value import value


@value
class Point:
    """A point."""

    x: int
    y: int = 0

    @property
    def sum(self) -> int:
        return self.x + self.y


@value(kw_only=True)
class Named:
    name: str = "origin"
    tags: Mapping[str, str] = field(default_factory=dict)


@value
class Shown:
    x: int

    def __str__(self) -> str:
        return f"<{self.x}>"


def test_it_is_made_by_position_and_name_with_defaults() -> None:
    assert (Point(1).x, Point(1).y, Point(1, y=2).sum) == (1, 0, 3)
    assert Named().name == "origin"
    assert Named(tags={"a": "b"}).tags == {"a": "b"}


def test_each_object_has_its_own_default_from_a_factory() -> None:
    assert Named().tags is not Named().tags


def test_wrong_arguments_are_refused_by_the_first_and_every_later_object() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match=r"Point.*missing 1 required positional argument: 'x'"):
            Point()  # type: ignore[call-arg]  # that is the mistake
        with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
            Point(1, z=2)  # type: ignore[call-arg]  # that is the mistake
        with pytest.raises(TypeError, match="positional"):
            Named("by position")  # type: ignore[call-arg]  # that is the mistake


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 1)
    anything: object = (1, 0)
    assert Point(1) != anything


def test_nothing_can_be_changed_or_added() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"Point\.x cannot be changed"):
        point.x = 2  # type: ignore[misc]  # that is the mistake
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.z = 2  # type: ignore[attr-defined]  # that is the mistake
    assert not hasattr(point, "__dict__")


def test_the_standard_helpers_work() -> None:
    assert dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
    assert dataclasses.asdict(Named(tags={"a": "b"})) == {"name": "origin", "tags": {"a": "b"}}
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y"]


def test_it_shows_what_it_holds() -> None:
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert str(Shown(1)) == "<1>"


def test_patterns_match_by_position() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
