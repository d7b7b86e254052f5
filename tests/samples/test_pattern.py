"""PeriodicPattern: what it adds repeats, has mean 0, and is as strong as asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples import PeriodicPattern


def added(count: int = 64, **arguments: Any) -> Tensor:
    """What is added to a grey SR image, (count, 3, 24, 20)."""
    generator = torch.Generator().manual_seed(0)
    sr = torch.full((1, 3, 24, 20), 0.5, dtype=torch.float64)
    return (PeriodicPattern(count=count, **arguments)({"lr": sr[..., ::4, ::4], "sr": sr}, generator) - sr[:, None])[0]


@pytest.mark.parametrize("period", [2, 3, 4])
def test_it_repeats_and_has_mean_0(period: int) -> None:
    pattern = added(periods=(period,))
    assert torch.equal(pattern[..., period:, :], pattern[..., :-period, :])
    assert torch.equal(pattern[..., period:], pattern[..., :-period])
    cell = pattern[..., :period, :period]
    assert cell.mean((2, 3)).abs().max() < 1e-9
    assert len({tuple(x.flatten().tolist()) for x in cell}) == len(cell)  # each sample has its own


def test_strengths_fill_the_range_evenly_in_their_logarithm() -> None:
    levels = added(256, periods=(2,), strength=(1 / 255, 16 / 255)).square().mean((1, 2, 3)).sqrt() * 255
    assert 1 - 1e-4 < levels.min() < 1.2
    assert 13 < levels.max() < 16 + 1e-4
    assert 3.2 < levels.log().mean().exp() < 5


def test_some_are_grey_and_some_coloured_and_periods_differ() -> None:
    pattern = added()
    grey = (pattern == pattern[:, :1]).all((1, 2, 3))
    assert 0.3 < grey.double().mean() < 0.7
    short = (pattern[..., 2:] == pattern[..., :-2]).flatten(1).all(1)
    assert 0.3 < short.double().mean() < 0.7


def test_the_scale_is_one_of_the_periods() -> None:
    sr = torch.full((1, 3, 24, 24), 0.5)
    samples = PeriodicPattern(count=64)({"lr": sr[..., ::3, ::3], "sr": sr}, torch.Generator().manual_seed(0))[0]
    repeats = [{p for p in (2, 3, 4) if torch.equal(x[..., p:], x[..., :-p])} for x in samples]
    assert {frozenset(found) for found in repeats} == {frozenset({2, 4}), frozenset({3}), frozenset({4})}


def test_values_stay_in_range_and_the_seed_decides() -> None:
    hr = torch.rand(2, 3, 16, 16).round()
    samples = [
        PeriodicPattern(count=2, of="hr", periods=(3,))({"hr": hr}, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert samples[0].min() >= 0
    assert samples[0].max() <= 1
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_the_sample_has_no_gradient_and_asks_for_its_images() -> None:
    sr = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert not PeriodicPattern(periods=[2])({"sr": sr}).requires_grad
    with pytest.raises(DataError, match=r"expected a batch with 'lr', got \['sr'\]"):
        PeriodicPattern()({"sr": sr})
    with pytest.raises(DataError, match=r"expected a batch with 'sr', got \['hr'\]"):
        PeriodicPattern()({"hr": sr})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "lr"}, r"of\): expected"),
        ({"periods": (1, 2)}, r"expected periods from 2 on"),
        ({"periods": "24"}, r"expected periods from 2 on"),
        ({"periods": ()}, r"expected periods from 2 on"),
        ({"strength": (0, 0.1)}, r"strength\)\[0\]: expected"),
        ({"strength": (1, 16)}, r"Divide grey levels by 255"),
        ({"count": 0}, r"count\): expected"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PeriodicPattern(**arguments)


def test_patterns_of_grey_images_are_grey() -> None:
    hr = torch.rand(2, 3, 16, 16)
    hr[0] = hr[0, :1]
    batch = {"lr": hr[..., ::4, ::4], "hr": hr, "sr": 0.5 * hr + 0.25}
    with_pattern = PeriodicPattern(count=16)(batch, torch.Generator().manual_seed(0))
    added = (with_pattern - batch["sr"][:, None]).transpose(1, 2)
    grey = torch.isclose(added, added[:, :1], atol=1e-6).all(1).flatten(2).all(2)
    assert grey[0].all()
    assert 0 < grey[1].sum() < 16
