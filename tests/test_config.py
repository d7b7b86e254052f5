"""Building objects from mappings, and the checks of single values."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from contrastive_sr._checks import check_count, check_number, check_range, check_shape
from contrastive_sr.cli.imports import import_files
from contrastive_sr.config import Registry, build
from contrastive_sr.criteria import CRITERIA, CriteriaByName, Criterion
from contrastive_sr.embeddings import EMBEDDINGS, Embedding
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, HostError, NonFiniteError
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES, SampleGenerator, build_samples, draw


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


SHAPES = Registry(Shape, "shape")
for cls in (Circle, Point):
    SHAPES.register(cls)


def test_builds_from_any_mapping() -> None:
    config = OrderedDict(type="Circle", radius=2.0)
    circle = build(SHAPES, config, "drawing")
    assert isinstance(circle, Circle)
    assert (circle.radius, circle.colour) == (2.0, "red")
    assert dict(config) == {"type": "Circle", "radius": 2.0}  # the caller's mapping is left alone


def test_takes_what_is_built_already() -> None:
    for shape in (Circle(1.0), Own()):
        assert build(SHAPES, shape, "drawing") is shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "Circel"}, r"drawing: does not know the type 'Circel'\. Did you mean 'Circle'\? Accepted: Circle"),
        ({"type": "CIRCLE"}, r"drawing: does not know the type 'CIRCLE'\. Did you mean 'Circle'\?"),
        (
            {"type": "Zebra"},
            r"drawing: does not know the type 'Zebra'\. Accepted: Circle, Point\. To add your own, put @regis",
        ),
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
        build(SHAPES, config, "drawing")


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
    registry = Registry(Shape, "shape", own=False)
    registry.update(SHAPES)
    with pytest.raises(ConfigError, match=r"does not know the type 'Square'\. Accepted: Circle, Point\.$"):
        build(registry, {"type": "Square"}, "drawing")
    classes: dict[str, type[Shape]] = {"Circle": Square}
    registry.add_host("Euclid", lambda: classes)
    classes["Square"] = Square  # registered later, as a user's own network is
    assert isinstance(build(registry, {"type": "Circle", "radius": 1.0}, "drawing"), Circle)
    square = build(registry, {"type": "Square", "side": 2.0, "colour": 3.0}, "drawing")
    assert isinstance(square, Square)
    assert (square.side, square.more) == (2.0, {"colour": 3.0})
    with pytest.raises(ConfigError, match=r"Did you mean 'Square'\? Accepted: Circle, Point, and the reg.*Euclid"):
        build(registry, {"type": "Squares"}, "drawing")
    with pytest.raises(ConfigError, match="Square needs the key 'side'"):
        build(registry, {"type": "Square"}, "drawing")


def test_a_registry_takes_subclasses_under_their_own_names() -> None:
    registry = Registry(Shape, "shape")

    @registry.register
    class Ring(Circle):
        pass

    assert registry["Ring"] is Ring
    assert registry.register(Ring) is Ring  # a file that is run twice
    ring = build(registry, {"type": "Ring", "radius": 1.0}, "drawing")
    assert isinstance(ring, Ring)
    for other in (dict, Shape(), "Ring"):
        with pytest.raises(ConfigError, match=r"register_shape: expected a subclass of \S*\.?Shape, got "):
            registry.register(other)  # type: ignore[type-var]
    taken = type("Ring", (Shape,), {"__module__": "another.file"})
    with pytest.raises(ConfigError, match=r"register_shape: the name Ring is taken by \S*test_config\. Rename yours\."):
        registry.register(taken)
    assert registry == {"Ring": Ring}


def test_an_unknown_name_says_how_to_add_one() -> None:
    message = r"put @register_shape above its class, in a file that you name in `contrastive-sr train --import FILE`\.$"
    with pytest.raises(ConfigError, match=message):
        build(SHAPES, {"type": "Square"}, "drawing")


OWN = """
import torch
from contrastive_sr.criteria import Criterion, register_criterion
from contrastive_sr.embeddings import Embedding, register_embedding
from contrastive_sr.networks import register_network
from contrastive_sr.samples import SampleGenerator, register_samples


@register_embedding
class Mine(Embedding):
    def __init__(self, *, gain=1.0):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return [self.gain * images]


@register_samples
class Yours(SampleGenerator):
    def __call__(self, batch, generator=None):
        return batch["hr"].flip(-1)[:, None]


@register_criterion
class Apart(Criterion):
    def forward(self, sr, hr):
        return (sr - hr).abs().mean(1, keepdim=True)


@register_network
class Larger(torch.nn.Upsample):
    def __init__(self, scale=4):
        super().__init__(scale_factor=scale)
"""
REGISTRIES: dict[str, Registry[Any]] = {
    "embedding": EMBEDDINGS,
    "samples": SAMPLES,
    "criterion": CRITERIA,
    "network": NETWORKS,
}


@pytest.fixture
def own_classes() -> Iterator[None]:
    """Lets a test register classes, which are forgotten afterwards."""
    before = [(registry, dict(registry)) for registry in REGISTRIES.values()]
    yield
    for registry, classes in before:
        registry.clear()
        registry.update(classes)


@pytest.mark.usefixtures("own_classes")
def test_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `contrastive-sr train --import FILE` reads it: each class can be named in a config."""
    (tmp_path / "my_parts.py").write_text(OWN)
    monkeypatch.setattr("sys.modules", dict(sys.modules))
    import_files([tmp_path / "my_parts.py"])
    hr = torch.rand(2, 3, 8, 8)
    embedding = build(EMBEDDINGS, {"type": "Mine", "gain": 2.0}, "pcl: embedding")
    assert torch.equal(embedding(hr)[0], 2 * hr)
    assert torch.equal(draw(build_samples([{"type": "Yours"}], "pcl: positives"), {"hr": hr})[:, 0], hr.flip(-1))
    criteria = CriteriaByName()
    assert criteria.add("Apart", "anchor") == "apart"
    teacher = build(SAMPLES, {"type": "TeacherOutput", "network": build(NETWORKS, {"type": "Larger"}, "")}, "teacher")
    assert teacher({"lr": hr, "hr": torch.rand(2, 3, 32, 32)}).shape == (2, 1, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"pcl: embedding: Mine does not know the key 'gian'\. Did you mean 'gain'"):
        build(EMBEDDINGS, {"type": "Mine", "gian": 2.0}, "pcl: embedding")
    with pytest.raises(ConfigError, match=r"positives\[0\]: does not know the type 'Your'\. Did you mean 'Yours'"):
        build_samples([{"type": "Your"}], "positives")


@pytest.mark.usefixtures("own_classes")
@pytest.mark.parametrize(
    ("word", "base", "name", "package"),
    [
        ("embedding", Embedding, "VGGFeatures", "embeddings"),
        ("samples", SampleGenerator, "Sharpen", "samples"),
        ("criterion", Criterion, "Pixel", "criteria"),
        ("network", torch.nn.Module, "DASR", "networks"),
    ],
)
def test_ones_own_class_of_another_kind_or_name(word: str, base: type, name: str, package: str) -> None:
    module = importlib.import_module(f"contrastive_sr.{package}")
    register, registry = getattr(module, f"register_{word}"), REGISTRIES[word]
    with pytest.raises(ConfigError, match=rf"register_{word}: expected a subclass of \S+, got <class 'dict'>"):
        register(dict)
    with pytest.raises(
        ConfigError, match=rf"the name {name} is taken by contrastive_sr\.{package}\.\w+\. Rename yours"
    ):
        register(type(name, (base,), {"__module__": "my_parts"}))
    with pytest.raises(ConfigError, match=rf"does not know the type 'Mine'.*put @register_{word} above its class"):
        build(registry, {"type": "Mine"}, "here")
    mine = type("Mine", (base,), {"__module__": "my_parts"})
    assert register(mine) is registry["Mine"] is mine
