"""PSNR and SSIM on Y and on RGB against BasicSR's, which the papers' figures come from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import luma, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from contrastive_sr.evaluation.plots import Frontier, Panel, save_crops, save_curves, save_frontier

Image = npt.NDArray[np.uint8]


def _pair(seed: int, height: int, width: int, noise: int) -> tuple[Image, Image]:
    random = np.random.default_rng(seed)
    smooth = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    hr = smooth[:height, :width].astype(np.int64)
    sr = np.clip(hr + random.integers(-noise, noise + 1, hr.shape), 0, 255)
    return sr.astype(np.uint8), hr.astype(np.uint8)


@pytest.mark.basicsr
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    noise=st.integers(1, 120),
    border=st.integers(0, 4),
)
def test_equals_basicsr(seed: int, height: int, width: int, noise: int, border: int) -> None:
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    metrics = import_basicsr("basicsr.metrics")
    sr, hr = _pair(seed, height, width, noise)
    bgr = {"img": sr[..., ::-1], "img2": hr[..., ::-1], "crop_border": border, "test_y_channel": True}
    # BasicSR computes Y in float32
    assert psnr_y(sr, hr, border) == pytest.approx(metrics.calculate_psnr(**bgr), abs=1e-4)
    assert ssim_y(sr, hr, border) == pytest.approx(metrics.calculate_ssim(**bgr), abs=1e-5)
    bgr["test_y_channel"] = False
    assert psnr_rgb(sr, hr, border) == pytest.approx(metrics.calculate_psnr(**bgr), abs=1e-9)
    assert ssim_rgb(sr, hr, border) == pytest.approx(metrics.calculate_ssim(**bgr), abs=1e-9)


def test_psnr_of_a_known_error() -> None:
    hr = np.full((24, 24, 3), 100, dtype=np.uint8)
    y_step = 10 * (65.481 + 128.553 + 24.966) / 255
    assert psnr_y(hr + 10, hr) == pytest.approx(20 * math.log10(255 / y_step))
    assert psnr_y(hr, hr) == math.inf
    # of grey images that on RGB is lower by what Y spans less than 255
    assert psnr_y(hr + 10, hr) - psnr_rgb(hr + 10, hr) == pytest.approx(20 * math.log10(255 / 219))
    assert psnr_rgb(hr, hr) == math.inf


def test_the_border_does_not_count() -> None:
    sr, hr = _pair(0, 32, 32, 20)
    spoilt = hr.copy()
    spoilt[:4], spoilt[-4:], spoilt[:, :4], spoilt[:, -4:] = 0, 0, 255, 255
    assert psnr_y(spoilt, hr, border=4) == math.inf
    assert ssim_y(spoilt, hr, border=4) == pytest.approx(1)
    assert ssim_y(spoilt, hr, border=0) < 0.9
    assert ssim_y(sr, hr) < 1


def test_luma_of_the_primaries() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], dtype=np.uint8)
    assert luma(primaries)[0] == pytest.approx([81.481, 144.553, 40.966, 16.0])


@pytest.mark.parametrize(
    ("sr", "hr", "border", "message"),
    [
        (np.zeros((24, 24, 3), np.uint8), np.zeros((24, 25, 3), np.uint8), 4, r"one shape, got \(24, 24, 3\)"),
        (np.zeros((24, 24, 3)), np.zeros((24, 24, 3)), 4, r"uint8, got .* float64"),
        (np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8), 4, r"RGB image \(H, W, 3\)"),
        (np.zeros((18, 24, 3), np.uint8), np.zeros((18, 24, 3), np.uint8), 4, r"at least 11 px a side"),
        (np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24, 3), np.uint8), 8, r"at least 11 px a side"),
    ],
)
def test_bad_input_is_explained(sr: Image, hr: Image, border: int, message: str) -> None:
    for ssim in (ssim_y, ssim_rgb):
        with pytest.raises(DataError, match=message):
            ssim(sr, hr, border)


@pytest.mark.parametrize("border", [-1, 1.5])
def test_a_border_is_a_number_of_pixels(border: int) -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    for metric in (psnr_y, psnr_rgb, ssim_y, ssim_rgb):
        with pytest.raises(ConfigError, match="border: expected a whole number of at least 0, got"):
            metric(image, image, border)


def test_pictures_have_content(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image as Pillow

    sr, hr = _pair(0, 64, 64, 60)
    measured = []

    def share(sr: Image, hr: Image) -> float:
        measured.append((sr.shape, hr.shape))
        return 0.5

    rows = [("a", (0, 0, 32, 32), {"SR": sr, "HR": hr})] * 2
    save_crops(tmp_path / "crops.png", rows, "HR", {"share": share})
    assert measured == [((32, 32, 3), (32, 32, 3))] * 2  # the crops, and not HR itself
    with Pillow.open(tmp_path / "crops.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 600
    # enlarged without smoothing: the colour of an HR block appears exactly, in many pixels
    assert (pixels == hr[4, 4]).all(axis=2).sum() > 1000

    panels = [Panel("loss", {"a": [(1, 1.0), (2, 0.5)], "b": [(1, 0.9), (2, 0.4)]}, levels={"goal": 0.3})] * 3
    save_curves(tmp_path / "curves.png", panels, "title")
    with Pillow.open(tmp_path / "curves.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77)} <= colours


def test_a_dollar_in_a_name_begins_no_formula(tmp_path: Path) -> None:
    """What would be one is a stack trace where it has no end, and other letters where it has one."""
    name = "a$b_{$"
    line = {name: [(1, 1.0), (2, 0.5)]}
    points = {name: [(30.0, 0.2)], "b": [(29.0, 0.1)]}
    save_curves(tmp_path / "curves.svg", [Panel(name, line, {f"level of {name}": 0.3}, y=name)], name)
    save_frontier(tmp_path / "frontier.svg", [Frontier(name, name, name, points, name)], name)
    assert (tmp_path / "curves.svg").read_text().count(f"<!-- {name} -->") == 4  # a title each, the unit, the legend
    assert (tmp_path / "frontier.svg").read_text().count(f"<!-- {name} -->") == 5
