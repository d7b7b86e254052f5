"""Sharpen against torchvision's adjust_sharpness and against its own formula at the border."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import assert_close
from torch import Tensor
from torchvision.transforms import functional as tv

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples import Sharpen

SEVERAL = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2, size: int = 9) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=seeded(5), dtype=torch.float64)


def excess(hr: Tensor) -> Tensor:
    """x - b of eq. 5 for each pixel of (3, H, W), edges mirrored, by loops."""
    channels, height, width = hr.shape
    out = torch.zeros_like(hr)

    def inside(index: int, size: int) -> int:
        return -index if index < 0 else 2 * size - 2 - index if index >= size else index

    for c in range(channels):
        for i in range(height):
            for j in range(width):
                smooth = 4 * hr[c, i, j].item()  # the middle counts 5 times
                for u in (-1, 0, 1):
                    for v in (-1, 0, 1):
                        smooth += hr[c, inside(i + u, height), inside(j + v, width)].item()
                out[c, i, j] = hr[c, i, j] - smooth / 13
    return out


def test_equals_the_formula_everywhere() -> None:
    hr = images(2, 6)
    for factor in (1.2, 1.7, 3.0):
        samples = Sharpen(count=2, factor=(factor, factor))({"hr": hr}, seeded())
        for b in range(2):
            detail = excess(hr[b])
            expected = (hr[b] - detail + factor * detail).clamp(0, 1)
            assert_close(samples[b], torch.stack([expected] * 2), "exact", scale=1)


def test_equals_torchvision_away_from_the_border() -> None:
    hr = images().float()
    for factor in (1.2, 1.6, 2.0):
        sample = Sharpen(count=1, factor=(factor, factor))({"hr": hr}, seeded())[:, 0]
        expected = tv.adjust_sharpness(hr, factor)
        assert_close(sample[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], "exact", scale=1)
        assert (expected - hr).abs().max() > 0.05


def test_factors_are_drawn_from_the_range() -> None:
    hr = (0.5 + 0.1 * (images(40, 3) - 0.5)).expand(-1, -1, -1, -1)  # low contrast: nothing is clamped
    samples = Sharpen(count=10, factor=(1.2, 2.0))({"hr": hr}, seeded())
    detail = torch.stack([excess(image) for image in hr])
    factors = ((samples - (hr - detail)[:, None]) / detail[:, None]).flatten(2)
    assert_close(factors, factors.median(2, keepdim=True).values.expand_as(factors), "loose")
    drawn = factors.median(2).values.flatten()
    assert 1.2 <= drawn.min() < 1.22
    assert 1.98 < drawn.max() < 2.0
    assert abs(drawn.mean() - 1.6) < 0.04  # standard error 0.012
    assert len(drawn.unique()) == 400  # each sample of each image has its own


def test_the_generator_decides() -> None:
    batch = {"hr": images()}
    sharpen = Sharpen()
    first, state = sharpen(batch, seeded(3)), torch.get_rng_state()
    assert torch.equal(sharpen(batch, seeded(3)), first)
    assert not torch.equal(sharpen(batch, seeded(4)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch["hr"], images())


@SEVERAL
@given(
    batch=st.integers(1, 3),
    count=st.integers(1, 3),
    size=st.integers(2, 12),
    low=st.floats(1, 20),
    spread=st.floats(0.01, 20),
    seed=st.integers(0, 2**31),
)
def test_values_stay_in_range(batch: int, count: int, size: int, low: float, spread: float, seed: int) -> None:
    hr = torch.rand(batch, 3, size, size, generator=seeded(seed)).round(decimals=1)
    samples = Sharpen(count=count, factor=(low, low + spread))({"hr": hr}, seeded(seed))
    assert samples.shape == (batch, count, 3, size, size)
    assert samples.dtype == hr.dtype
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_flat_images_stay_as_they_are() -> None:
    flat = torch.full((1, 3, 8, 8), 0.4)
    torch.testing.assert_close(Sharpen(count=1)({"hr": flat}, seeded())[:, 0], flat)


def test_a_single_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"Sharpen: expected HR images of at least 2 px a side, got \(1, 3, 1, 8\)"):
        Sharpen()({"hr": torch.rand(1, 3, 1, 8)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"Sharpen\(count\): expected a whole number of at least 1, got 0"),
        ({"factor": (0.5, 2.0)}, r"Sharpen\(factor\)\[0\]: expected a number of at least 1.0, got 0.5"),
        (
            {"factor": (2.0, 1.5)},
            r"Sharpen\(factor\): expected a pair \(low, high\), the smaller number first, got \(2, 1\.5\)",
        ),
        ({"factor": (1.0, 1.0)}, r"Sharpen\(factor\): expected an upper bound above 1"),
        ({"factor": 1.5}, r"Sharpen\(factor\): expected a pair \(low, high\), got 1.5"),
        ({"factor": (1.2, "2e0")}, r"Sharpen\(factor\)\[1\].*In YAML"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sharpen(**arguments)  # type: ignore[arg-type]
