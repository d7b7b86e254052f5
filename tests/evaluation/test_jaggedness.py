"""Jagged edges: what is found, what is not, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import bicubic, bicubic_pair, evaluate, luma, summary
from contrastive_sr.evaluation.jaggedness import (
    MOST_MORE_JAGGED,
    jaggedness,
    jaggedness_excess,
    jaggedness_note,
    jaggedness_warning,
    jaggedness_warnings,
    load_jaggedness,
)


def edge(angle: float, side: int = 80, shift: NDArray[np.float64] | float = 0.0, softness: float = 0.8) -> UInt8Image:
    """A grey edge through the middle, at an angle in radians, moved by ``shift`` pixels across."""
    down, across = np.mgrid[:side, :side] - (side - 1) / 2
    distance = across * math.cos(angle) + down * math.sin(angle) + shift
    grey = 30 + 190 / (1 + np.exp(-distance / softness))
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, 2)


def teeth(period: int, side: int = 80) -> NDArray[np.float64]:
    """Half of the rows of a period moved by a pixel."""
    return np.repeat((np.arange(side) % period < period / 2).astype(float)[:, None], side, 1)


def of(sr: UInt8Image, hr: UInt8Image, scale: int = 4) -> float:
    value = jaggedness(sr, hr, scale)
    assert value is not None
    return value


def oracle(sr: UInt8Image, hr: UInt8Image, scale: int) -> float:
    """From the definition, pixel by pixel."""
    box = max(2 * scale, 8)
    ramp = np.array([*range(1, box + 1), *range(box - 1, 0, -1)])
    tent = np.outer(ramp, ramp) / box**4

    def gradients(image: UInt8Image) -> NDArray[np.float64]:
        y = luma(image)[scale:-scale, scale:-scale]
        rows, columns = y.shape[0] - 1, y.shape[1] - 1
        found = np.zeros((rows, columns, 2))
        for i in range(rows):
            for j in range(columns):
                (a, b), (c, d) = y[i : i + 2, j : j + 2]
                found[i, j] = (b - a + d - c) / 2, (c - a + d - b) / 2
        return found

    of_sr, of_hr = gradients(sr), gradients(hr)
    along = over = 0.0
    for i in range(of_hr.shape[0] - 2 * box + 2):
        for j in range(of_hr.shape[1] - 2 * box + 2):
            window = of_hr[i : i + 2 * box - 1, j : j + 2 * box - 1]
            tensor = np.einsum("ij,ija,ijb->ab", tent, window, window)
            (small, large), vectors = np.linalg.eigh(tensor)
            if large - small >= 0.95 * (large + small) and large >= 36:
                t, n = vectors.T @ of_sr[i + box - 1, j + box - 1]
                along, over = along + t**2, over + n**2
    return math.sqrt(along / over)


@settings(max_examples=6, deadline=None)
@given(angle=st.floats(0, math.pi), scale=st.sampled_from([1, 4, 5]), seed=st.integers(0, 2**31))
def test_equals_the_definition(angle: float, scale: int, seed: int) -> None:
    hr = edge(angle, 60)
    noise = np.random.default_rng(seed).integers(-20, 21, hr.shape)
    sr = (hr + noise).clip(0, 255).astype(np.uint8)
    assert of(sr, hr, scale) == pytest.approx(oracle(sr, hr, scale), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(0, math.pi), softness=st.floats(0.6, 2))
def test_smooth_edges_have_next_to_none_at_any_angle(angle: float, softness: float) -> None:
    hr = edge(angle, softness=softness)
    assert of(hr, hr) < 0.06
    assert of(edge(angle, softness=2 * softness), hr) < 0.06


@pytest.mark.parametrize("period", [2, 3, 4])
def test_teeth_are_found_on_upright_and_on_slanted_edges(period: int) -> None:
    for angle in (0.0, 0.3, 2.9):
        hr = edge(angle)
        small, large = (of(edge(angle, shift=size * teeth(period)), hr) for size in (0.25, 1.0))
        assert of(hr, hr) + MOST_MORE_JAGGED < small < large / 2
        assert jaggedness_excess(edge(angle, shift=teeth(period)), hr, 1) == of(
            edge(angle, shift=teeth(period)), hr, 1
        ) - of(hr, hr, 1)


def test_a_turned_image_has_the_same() -> None:
    hr, sr = edge(0.3), edge(0.3, shift=teeth(4))
    expected = of(sr, hr)
    assert of(np.rot90(sr), np.rot90(hr)) == pytest.approx(expected, rel=1e-9)
    assert of(sr.swapaxes(0, 1), hr.swapaxes(0, 1)) == pytest.approx(expected, rel=1e-9)
    assert of(255 - sr, 255 - hr) == pytest.approx(expected, rel=1e-9)


def test_only_edges_count() -> None:
    hr = edge(0.0)
    sr = hr.copy()
    sr[:, :8] = np.random.default_rng(0).integers(0, 256, (80, 8, 3))
    assert jaggedness(sr, hr, 4) == jaggedness(hr, hr, 4)


def nearest(lr: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(lr, scale_factor=4)


def test_enlarged_pixels_are_warned_about_and_bicubic_is_not() -> None:
    photo = data.coffee()
    results = {
        "Set": {
            method: summary(evaluate(net, [bicubic_pair("coffee", photo, 4)], 4, metrics=load_jaggedness(4)))
            for method, net in (("bicubic", bicubic(4)), ("nearest", nearest))
        }
    }
    smooth, jagged = results["Set"]["bicubic"], results["Set"]["nearest"]
    assert jagged["jaggedness"] > 0.3 > 0.15 > smooth["jaggedness"]
    assert smooth["bicubic_jaggedness"] == jagged["bicubic_jaggedness"] == smooth["jaggedness"]
    assert smooth["hr_jaggedness"] == jagged["hr_jaggedness"] == jaggedness(photo, photo, 4)
    (warning,) = jaggedness_warnings(results)
    assert warning == (
        f"nearest on Set: jagged edges, {jagged['jaggedness'] - smooth['jaggedness']:.3f} above bicubic enlargement's. "
        "Look at edges; LPIPS rewards teeth."
    )
    note = jaggedness_note(results)
    own = f"Set {smooth['hr_jaggedness']:.3f} and {smooth['jaggedness']:.3f}"
    assert note.text.endswith(f"relative to that across them; HR's own and that of bicubic enlargement: {own}")
    assert note.absent == "images with fewer than 64 pixels on straight edges"


def test_noise_in_lr_is_not_blamed_on_a_network() -> None:
    """It makes bicubic enlargement of that LR as jagged; the metric's own is of a clean one."""

    def rows(**values: float) -> dict[str, dict[str, dict[str, float | None]]]:
        return {"Set": {name: {"jaggedness": value, "bicubic_jaggedness": 0.12} for name, value in values.items()}}

    noisy = rows(bicubic=0.22, smooth=0.21, teeth=0.3)
    assert len(jaggedness_warnings(noisy)) == 3
    (warning,) = jaggedness_warnings(noisy, "bicubic")
    assert warning.startswith("teeth on Set: jagged edges, 0.080 above bicubic's.")
    clean = rows(l1=0.09, pcl=0.15)
    assert jaggedness_warnings(clean, "l1") == jaggedness_warnings(clean, "absent") == []


def test_where_there_is_nothing_to_warn_about() -> None:
    assert jaggedness_warning("a", MOST_MORE_JAGGED + 1e-6) is not None
    assert jaggedness_warning("a", MOST_MORE_JAGGED) is None
    rows: list[dict[str, float | None]] = [{}, {"jaggedness": None, "bicubic_jaggedness": None}, {"jaggedness": 0.5}]
    for row in rows:
        assert jaggedness_warnings({"Set": {"a": row}}) == []


def test_images_without_straight_edges_have_no_value() -> None:
    flat, noise = np.full((90, 90, 3), 100, np.uint8), np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    for image in (flat, noise, edge(0.0, 23), np.zeros((1, 1, 3), np.uint8)):
        assert jaggedness(image, image, 4) is None
        assert jaggedness_excess(image, image, 4) == 0
    assert jaggedness(flat, edge(0.0, 90), 4) == 0
    assert [metric(flat, flat) for metric in load_jaggedness(3).values()] == [None, None, None]


def test_bad_input_is_explained() -> None:
    image = edge(0.0)
    with pytest.raises(DataError, match="two images of one shape"):
        jaggedness(image[:40], image, 4)
    with pytest.raises(DataError, match=r"RGB image \(H, W, 3\) of uint8, got .* float64"):
        jaggedness(image / 255, image / 255, 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"jaggedness\(scale\): .*at least 1, got 0"):
        jaggedness(image, image, 0)
