"""Building objects from mappings, and the checks of single values."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

from contrastive_sr._checks import check_count, check_number, check_range, check_shape
from contrastive_sr.config import HostRegistry, build
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, HostError, NonFiniteError


class Shape:
    """What the registry's objects are."""


class Circle(Shape):
    def __init__(self, radius: float, colour: str = "red") -> None:
        self.radius, self.colour = radius, colour


class Point(Shape):
    def __init__(self) -> None:
        pass


class Own(Shape):
    """Not in the registry."""


SHAPES: dict[str, type[Shape]] = {"Circle": Circle, "Point": Point}


def test_builds_from_any_mapping() -> None:
    config = OrderedDict(type="Circle", radius=2.0)
    circle = build(Shape, SHAPES, config, "drawing")
    assert isinstance(circle, Circle)
    assert (circle.radius, circle.colour) == (2.0, "red")
    assert dict(config) == {"type": "Circle", "radius": 2.0}  # the caller's mapping is left alone


def test_takes_what_is_built_already() -> None:
    for shape in (Circle(1.0), Own()):
        assert build(Shape, SHAPES, shape, "drawing") is shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "Circel"}, r"drawing: does not know the type 'Circel'\. Did you mean 'Circle'\? Accepted: Circle"),
        ({"type": "Zebra"}, r"drawing: does not know the type 'Zebra'\. Accepted: Circle, Point"),
        (
            {"type": "Circle", "radius": 1, "color": "red"},
            r"drawing: Circle does not know the key 'color'\. Did you mean 'colour'\? Accepted: radius, colour\.",
        ),
        ({"type": "Point", "radius": 1}, r"drawing: Point does not know the key 'radius'\. Accepted: none\."),
        ({"type": "Circle"}, r"drawing: Circle needs the key 'radius'; its keys are radius, colour\."),
        ({"radius": 1}, r"drawing: expected a mapping with `type`, one of Circle, Point; got \{'radius': 1\} \(dict\)"),
        ("Circle", r"drawing: expected a mapping with `type`, one of Circle, Point; got 'Circle' \(str\)"),
        (None, r"drawing: expected a mapping with `type`"),
        ({"type": None}, r"drawing: does not know the type None"),
    ],
)
def test_what_does_not_fit_is_refused(config: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Shape, SHAPES, config, "drawing")


def test_numbers() -> None:
    assert check_number(3, "n") == 3.0
    assert isinstance(check_number(3, "n"), float)
    assert check_number(0, "n", at_least=0) == 0.0
    for bad in (float("nan"), float("inf"), -1e-9, True, None, [1]):
        with pytest.raises(ConfigError, match="n: expected a number of at least 0, got"):
            check_number(bad, "n", at_least=0)
    with pytest.raises(ConfigError, match=r"got '4e-4' \(str\)\. In YAML write `!!float 4e-4` or `0\.0004`"):
        check_number("4e-4", "n")


def test_counts() -> None:
    assert check_count(1, "c") == 1
    assert check_count(8, "c", at_most=8) == 8
    for bad in (0, 9, 1.0, True, "1", None):
        with pytest.raises(ConfigError, match="c: expected a whole number from 1 to 8, got"):
            check_count(bad, "c", at_most=8)
    with pytest.raises(ConfigError, match="c: expected a whole number of at least 0, got -1"):
        check_count(-1, "c", at_least=0)


def test_ranges() -> None:
    assert check_range([1, 2.5], "r", at_least=1) == (1.0, 2.5)
    assert check_range((1, 1), "r", at_least=0) == (1.0, 1.0)
    for bad in (1, (1,), (1, 2, 3), "12", None):
        with pytest.raises(ConfigError, match=r"r: expected a pair \(low, high\)"):
            check_range(bad, "r", at_least=0)


def test_shapes() -> None:
    check_shape(torch.rand(2, 3, 4), ("B", 3, "W"), "x")
    for bad in (torch.rand(2, 4, 4), torch.rand(2, 3), torch.rand(2, 3, 0), torch.rand(1, 2, 3, 4)):
        with pytest.raises(DataError, match=r"x: expected a non-empty tensor \(B, 3, W\), got a float32 tensor"):
            check_shape(bad, ("B", 3, "W"), "x")


def test_errors_are_of_one_family_and_of_python_s_kinds() -> None:
    for error, kind in (
        (ConfigError, ValueError),
        (DataError, ValueError),
        (HostError, RuntimeError),
        (NonFiniteError, RuntimeError),
    ):
        assert issubclass(error, ContrastiveSRError)
        assert issubclass(error, kind)


class Square(Shape):
    """A host's: takes any key."""

    def __init__(self, side: float, **more: float) -> None:
        self.side, self.more = side, more


def test_a_host_s_classes_stand_behind_our_own() -> None:
    registry = HostRegistry(SHAPES)
    with pytest.raises(ConfigError, match=r"does not know the type 'Square'\. Accepted: Circle, Point\.$"):
        build(Shape, registry, {"type": "Square"}, "drawing")
    classes: dict[str, type[Shape]] = {"Circle": Square}
    registry.add_host("Euclid", lambda: classes)
    classes["Square"] = Square  # registered later, as a user's own network is
    assert isinstance(build(Shape, registry, {"type": "Circle", "radius": 1.0}, "drawing"), Circle)
    square = build(Shape, registry, {"type": "Square", "side": 2.0, "colour": 3.0}, "drawing")
    assert isinstance(square, Square)
    assert (square.side, square.more) == (2.0, {"colour": 3.0})
    with pytest.raises(ConfigError, match=r"Did you mean 'Square'\? Accepted: Circle, Point, and the reg.*Euclid"):
        build(Shape, registry, {"type": "Squares"}, "drawing")
    with pytest.raises(ConfigError, match="Square needs the key 'side'"):
        build(Shape, registry, {"type": "Square"}, "drawing")
