"""random_view: crops, flips and colours of each image."""

from __future__ import annotations

import pytest
import torch

from contrastive_sr.errors import DataError
from contrastive_sr.samples import random_view


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_are_crops_flipped_up_to_brightness_and_contrast() -> None:
    """Of grey images, which saturation leaves alone: each view is an affine function of one of the possible crops."""
    image = torch.rand(16, 18, generator=seeded(5), dtype=torch.float64) * 0.2 + 0.4
    views = random_view(image.expand(40, 3, 16, 18), seeded())
    assert views.shape == (40, 3, 14, 16)
    assert torch.equal(views[:, 0], views[:, 1])
    seen, gains, shifts = set(), [], []
    for view in views[:, 0]:
        matches = []
        for top in range(3):
            for left in range(3):
                crop = image[top : top + 14, left : left + 16]
                for name, turned in (("", crop), ("h", crop.flip(1)), ("v", crop.flip(0)), ("hv", crop.flip(0, 1))):
                    x, y = turned - turned.mean(), view - view.mean()
                    gain = ((x * y).sum() / (x * x).sum()).item()
                    if (y - gain * x).abs().max() < 1e-9:
                        matches.append((top, left, name))
                        gains.append(gain)
                        shifts.append((view.mean() / turned.mean()).item())
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15
    assert {name for *_, name in seen} == {"", "h", "v", "hv"}
    assert all(0.6 <= shift <= 1.4 for shift in shifts)
    assert all(0.36 <= gain <= 1.96 for gain in gains)
    assert max(shifts) - min(shifts) > 0.5


def test_colours_change_and_some_are_grey() -> None:
    image = torch.tensor([0.3, 0.5, 0.6]).view(1, 3, 1, 1).expand(200, 3, 8, 8)
    views = random_view(image, seeded())
    spread = views.amax(1) - views.amin(1)
    grey = (spread < 1e-6).flatten(1).all(1).sum().item()
    assert 20 <= grey <= 60  # a fifth of 200
    assert views.aminmax().min >= 0
    assert views.aminmax().max <= 1
    assert len(views[:, 0, 0, 0].unique()) > 100


def test_draws_are_the_generator_s() -> None:
    image = torch.rand(3, 3, 16, 16)
    assert torch.equal(random_view(image, seeded(1)), random_view(image, seeded(1)))
    assert not torch.equal(random_view(image, seeded(1)), random_view(image, seeded(2)))
    with pytest.raises(DataError, match=r"random_view\(images\)"):
        random_view(image[0])
