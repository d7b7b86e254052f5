"""The blur effect: what it measures, where it has no value, and what is said of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from skimage import data
from skimage.filters import gaussian
from skimage.measure import blur_effect

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import HostError
from contrastive_sr.evaluation import bicubic, bicubic_pair, blur_note, evaluate, load_blur, luma, summary

PHOTOS = {"astronaut": data.astronaut, "chelsea": data.chelsea, "coffee": data.coffee}


def blurred(image: UInt8Image, sigma: float) -> UInt8Image:
    wide: UInt8Image = gaussian(image, sigma, channel_axis=2, preserve_range=True).round().astype(np.uint8)
    return wide


@pytest.mark.parametrize("photo", PHOTOS)
def test_the_more_blurred_the_higher(photo: str) -> None:
    hr: UInt8Image = PHOTOS[photo]()
    measure = load_blur(4)
    values = [measure["blur"](blurred(hr, sigma), hr) for sigma in (0.5, 1, 2, 4)]
    own = measure["hr_blur"](blurred(hr, 4), hr)
    assert own == pytest.approx(blur_effect(luma(hr)[4:-4, 4:-4]))
    numbers = [value for value in (own, *values) if value is not None]
    assert len(numbers) == 5
    assert numbers == sorted(numbers)
    assert 0 < numbers[0] < numbers[-1] < 1


def test_dots_count_as_sharpness_so_that_the_pattern_has_to_be_read_beside() -> None:
    hr = blurred(data.astronaut(), 2)
    dotted = hr.copy()
    dotted[::2, ::2] = np.minimum(dotted[::2, ::2].astype(int) + 8, 255).astype(np.uint8)
    measure = load_blur(4)["blur"]
    sharp, own = measure(dotted, hr), measure(hr, hr)
    assert sharp is not None
    assert own is not None
    assert sharp < own


def test_no_value_for_small_images_and_the_highest_for_flat_ones() -> None:
    measure = load_blur(4)["blur"]
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    assert measure(noise, noise) is not None
    assert measure(noise[:39], noise) is None
    flat = np.full((48, 48, 3), 7, dtype=np.uint8)
    assert measure(flat, noise) == load_blur(4)["hr_blur"](noise, flat) == 1


def test_as_a_metric_with_what_is_said_of_it() -> None:
    pair = bicubic_pair("cat", data.chelsea()[:120, :120], 4)
    (score,) = evaluate(bicubic(4), [pair], 4, metrics=load_blur(4))
    sr, hr = score.values["blur"], score.values["hr_blur"]
    assert sr is not None
    assert hr is not None
    assert sr > hr
    text = blur_note({"cats": {"bicubic": summary([score])}, "none": {"bicubic": {"hr_blur": None}}}).text
    assert text.endswith(f"HR's own: cats {hr:.3f}, none -")


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(HostError, match=r"blur is scikit-image's. Try: pip install"):
        load_blur(4)
