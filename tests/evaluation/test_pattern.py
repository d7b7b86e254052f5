"""Periodic dots: what is found, what is not, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import Tensor

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import bicubic, bicubic_pair, evaluate, luma, summary
from contrastive_sr.evaluation.pattern import (
    MOST_EXCESS,
    excess_warning,
    load_pattern,
    pattern_excess,
    pattern_note,
    pattern_warnings,
    periodic_pattern,
)

PHOTOS = {"astronaut": data.astronaut, "chelsea": data.chelsea, "coffee": data.coffee}


def tiled(tile: UInt8Image, height: int, width: int) -> UInt8Image:
    period = tile.shape[0]
    repeats = (height // period + 1, width // period + 1, 1)
    return np.tile(tile, repeats)[:height, :width]


def oracle(image: UInt8Image, period: int) -> float:
    """From the definition, pixel by pixel."""
    ramp = [*range(1, period + 1), *range(period - 1, 0, -1)]
    tent = np.outer(ramp, ramp) / period**4
    edge = period - 1
    height, width = ((length - 2 * edge) // period * period for length in image.shape[:2])
    sums = np.zeros((3, period, period))
    for row in range(height):
        for column in range(width):
            window = image[row : row + 2 * edge + 1, column : column + 2 * edge + 1].astype(np.float64)
            local_mean = (window * tent[..., None]).sum((0, 1))
            sums[:, row % period, column % period] += image[row + edge, column + edge] - local_mean
    means = sums / (height * width / period**2)
    return float((means**2).mean() ** 0.5)


@settings(max_examples=15, deadline=None)
@given(period=st.integers(2, 5), height=st.integers(13, 25), width=st.integers(13, 25), seed=st.integers(0, 2**31))
def test_equals_the_definition(period: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert periodic_pattern(image, period) == pytest.approx(oracle(image, period), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    period=st.integers(2, 6),
    shift=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    size=st.tuples(st.integers(34, 60), st.integers(34, 60)),
    seed=st.integers(0, 2**31),
)
def test_a_pure_pattern_gives_its_rms_wherever_it_begins(
    period: int, shift: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    tile = np.random.default_rng(seed).integers(0, 256, (period, period, 3)).astype(np.uint8)
    rms = (tile - tile.mean((0, 1))).std()
    image = tiled(tile, size[0] + shift[0], size[1] + shift[1])[shift[0] :, shift[1] :]
    assert periodic_pattern(image, period) == pytest.approx(rms, rel=1e-9)
    assert periodic_pattern(image, 2 * period) == pytest.approx(rms, rel=1e-9)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_what_has_no_pattern(period: int) -> None:
    assert periodic_pattern(np.full((40, 50, 3), 77, dtype=np.uint8), period) == 0
    down, along = np.mgrid[:40, :50]
    ramp = np.stack([3 * down, 2 * along + 5, 200 - down - 2 * along], 2).astype(np.uint8)
    assert periodic_pattern(ramp, period) == pytest.approx(0, abs=1e-9)
    for photo in PHOTOS.values():
        assert periodic_pattern(photo(), period) < 0.3


def test_colours_that_are_grey_together_are_found() -> None:
    photo = data.astronaut()[:200, :200].clip(20, 235)
    colour = np.array([4, -2, 0])  # which luma hardly sees
    dots = (photo + colour * np.tile([[1, -1], [-1, 1]], (100, 100))[..., None]).astype(np.uint8)
    assert pattern_excess(dots, photo, 2) > 2
    grey = [np.repeat(luma(image).round().astype(np.uint8)[..., None], 3, 2) for image in (dots, photo)]
    assert abs(pattern_excess(*grey, 2)) < 0.2


def test_dots_of_a_tenth_count_a_tenth() -> None:
    image = np.full((100, 100, 3), 100, dtype=np.uint8)
    image[:10, ::2] += 20
    assert periodic_pattern(image, 2) == pytest.approx(1, rel=0.15)


def dotted(lr: Tensor) -> Tensor:
    """Bicubic enlargement with a brighter pixel in every 4 x 4."""
    sr = bicubic(4)(lr)
    sr[..., ::4, ::4] += 12 / 255
    return sr


def test_dots_are_warned_about_where_hr_has_none() -> None:
    photo = data.astronaut()[:160, :160].clip(20, 235)
    with_dots = photo.copy()
    with_dots[::4, ::4] += 12
    results = {
        name: {
            method: summary(evaluate(net, [bicubic_pair(name, hr, 4)], 4, metrics=load_pattern(4)))
            for method, net in (("bicubic", bicubic(4)), ("dotted", dotted))
        }
        for name, hr in (("Set", photo), ("Dots", with_dots))
    }
    row = results["Set"]["dotted"]
    assert row["hr_pattern_scale"] == periodic_pattern(photo, 4)
    excess = (row["pattern_scale"] or 0) - periodic_pattern(photo, 4)
    assert excess > 2 * MOST_EXCESS
    (warning,) = pattern_warnings(results, 4)
    assert warning.startswith(f"dotted on Set: periodic dots, {excess:.2f} grey levels above HR's own at a period of 4")
    own = [[results[name]["dotted"][f"hr_pattern_{period}"] for period in (2, "scale")] for name in ("Set", "Dots")]
    shown = ", ".join(f"{name} {a:.2f} and {b:.2f}" for name, (a, b) in zip(("Set", "Dots"), own, strict=True))
    assert pattern_note(results, 4).text.endswith(f"repeats every 2 and every 4 pixels; HR's own: {shown}")


def test_the_largest_excess_is_named() -> None:
    row = {"pattern_2": 3.0, "hr_pattern_2": 0.5, "pattern_scale": 3.25, "hr_pattern_scale": 1.0}
    (warning,) = pattern_warnings({"Set": {"a": row}}, 3)
    assert "2.50 grey levels above HR's own at a period of 2 pixels" in warning
    assert excess_warning("Set", MOST_EXCESS, 2) is None
    one = {"pattern_2": 0.75, "hr_pattern_2": 0.5}
    assert pattern_warnings({"Set": {"a": one}}, 2) == []
    assert pattern_note({"Set": {"a": one}}, 2).text.endswith("repeats every 2 pixels; HR's own: Set 0.50")


def test_of_photos_without_hr_images_the_pattern_itself_is_warned_about() -> None:
    row = {"pattern_2": 0.3, "pattern_scale": 0.75}
    (warning,) = pattern_warnings({"photos": {"a": row, "b": {"pattern_2": 0.3, "pattern_scale": 0.2}}}, 4)
    assert warning.startswith(
        "a on photos: a pattern of 0.75 grey levels at a period of 4 pixels: periodic dots, unless"
    )
    assert pattern_note({"photos": {"a": row}}, 4).text.endswith("repeats every 2 and every 4 pixels")
    assert pattern_warnings({"photos": {"a": {"pattern_2": None, "pattern_scale": None}}}, 4) == []


def test_scales_and_small_images() -> None:
    assert list(load_pattern(1)) == ["pattern_2", "hr_pattern_2"]
    image = data.astronaut()[:43, :60]
    values = {name: metric(image, image) for name, metric in load_pattern(16).items()}
    assert values["pattern_2"] == values["hr_pattern_2"] == periodic_pattern(image, 2)
    assert values["pattern_scale"] is values["hr_pattern_scale"] is None
    assert pattern_warnings({"Set": {"a": values}}, 16) == []


def test_bad_input_is_explained() -> None:
    image = np.zeros((9, 12, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="at least 10 pixels a side for a pattern of period 4, got 12 x 9"):
        periodic_pattern(image, 4)
    with pytest.raises(DataError, match=r"RGB image \(H, W, 3\) of uint8, got .* float64"):
        periodic_pattern(image.astype(float), 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"periodic_pattern\(period\): .*at least 2, got 1"):
        periodic_pattern(image, 1)
    with pytest.raises(DataError, match="two images of one shape"):
        pattern_excess(image, image[:8], 2)
