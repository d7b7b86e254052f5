"""Random mistakes in what a config can say: the methods are built, or an error of ours names the key; never a crash."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import pytest
from fuzzing import collected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refused import refusal

from contrastive_sr.degradations import build_degradation
from contrastive_sr.errors import ContrastiveSRError
from contrastive_sr.methods import METHODS, build_methods

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

NUMBERS = (0, 1, -1, 2, 3, 0.5, -0.5, 1e-320, 1e308, math.nan, math.inf, -math.inf, -(10**30), 10**30, 10**400)
PLAIN = (None, True, False, *NUMBERS, "", "1e-4", "nan", "HighResolution", "torchvision", "../nowhere.pth", "ü\n\0")
junk = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "count", "weights", "", "tau"]), inner, max_size=3)
        | st.fixed_dictionaries({"type": st.sampled_from(["HaarDiscriminator", "Sharpen", "GaussianBlur", "Pixel"])})
    ),
    max_leaves=4,
)

# Small ones of each kind, so that what is right is built in milliseconds.
SMALL: Mapping[str, Mapping[str, Any]] = collected("methods", "SMALL")


def misspelt(key: str, how: int) -> str:
    return (key[1:], key + "s", key.upper(), key.replace("_", "-") + "_")[how]


@st.composite
def mistakes(draw: st.DrawFn, kind: str) -> tuple[dict[str, Any], str]:
    """The mapping of a method with one of its keys wrong, missing or misspelt; and that key."""
    config = {"type": kind, **SMALL[kind]}
    key = draw(st.sampled_from([*inspect.signature(METHODS[kind]).parameters, "type"]))
    if draw(st.integers(0, 4)) == 0:
        key = misspelt(key, draw(st.integers(0, 3)))
    config[key] = draw(junk)
    return config, key


def test_every_method_is_here() -> None:
    assert set(SMALL) == {name for name, kind in METHODS.items() if kind.__module__.startswith("contrastive_sr.")}
    build_methods([{"type": kind, "name": kind.lower(), **config} for kind, config in SMALL.items()])


@pytest.mark.parametrize("kind", SMALL)
def test_a_wrong_key_of_a_method_is_named(kind: str) -> None:
    @settings(FUZZ, max_examples=60)
    @given(mistakes(kind))
    def check(made: tuple[dict[str, Any], str]) -> None:
        config, key = made
        message = refusal(build_methods, [config])
        assert message is None or key.rpartition("_")[2] in message, message  # vgg_weights are the weights of another's

    check()


@settings(FUZZ, max_examples=200)
@given(junk)
def test_a_list_of_methods_that_is_none(value: object) -> None:
    with pytest.raises(ContrastiveSRError, match="methods"):
        build_methods(value)  # type: ignore[arg-type]


PARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "embedding": ("PCL", {"type": "HaarDiscriminator", "out_indices": [0], "weights": None}),
    "positives": ("PCL", {"type": "Sharpen", "count": 2, "factor": [1.2, 2.0]}),
    "negatives": ("PCL", {"type": "GaussianBlur", "count": 2, "sizes": [3, 5], "sigma": [0.3, 1.5], "noise": [0, 0.1]}),
    "sr_criteria": ("CriaCL", {"type": "Pixel", "weight": 0.1}),
    "anchor": ("CriaCL", {"type": "Pixel"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_wrong_key_of_a_part_is_named(part: str) -> None:
    kind, good = PARTS[part]

    @settings(FUZZ, max_examples=60)
    @given(st.sampled_from([*good, "typ"]), junk)
    def check(key: str, value: object) -> None:
        entry = {**good, key: value}
        config = {
            "type": kind,
            **SMALL[kind],
            part: [entry] if part in ("positives", "negatives", "sr_criteria") else entry,
        }
        message = refusal(build_methods, [config])
        assert message is None or key in message, message

    check()


DEGRADATION = ("type", "scale", "kernel", "noise", "noise_layout", "downsample", "kernel_size", "rounding", "typ")


@settings(FUZZ, max_examples=200)
@given(st.sampled_from(DEGRADATION), junk)
def test_a_wrong_key_of_a_degradation_is_named(key: str, value: object) -> None:
    message = refusal(build_degradation, {"type": "Degradation", "scale": 4, key: value})
    assert message is None or key in message or (key == "type" and "degradation" in message), message
