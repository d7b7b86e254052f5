"""Lists of sample generators, from config to images."""

from __future__ import annotations

import pytest
import torch
from small_models import images_batch

from contrastive_sr.errors import ConfigError
from contrastive_sr.samples import GaussianBlur, HighResolution, Sharpen, UpsampledLowResolution, build_samples, draw


def test_builds_mappings_and_keeps_what_is_built() -> None:
    sharpen = Sharpen(count=2)
    first, second = build_samples([sharpen, {"type": "GaussianBlur", "count": 3}], "negatives")
    assert first is sharpen
    assert isinstance(second, GaussianBlur)
    assert second.count == 3


@pytest.mark.parametrize("configs", [[], {"type": "Sharpen"}, "Sharpen", None])
def test_refuses_what_is_no_list(configs: object) -> None:
    with pytest.raises(
        ConfigError, match=r"positives: expected a list with at least one of GaussianBlur, HighResolution"
    ):
        build_samples(configs, "positives")  # type: ignore[arg-type]


def test_names_the_entry_that_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match=r"positives\[1\]: .*'Sharp'\. Did you mean 'Sharpen'"):
        build_samples([{"type": "HighResolution"}, {"type": "Sharp"}], "positives")


def test_draws_in_order_from_one_generator() -> None:
    samples = [HighResolution(), Sharpen(count=2), UpsampledLowResolution(), GaussianBlur(count=1)]
    batch = images_batch(size=16)
    images = draw(samples, batch, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    expected = torch.cat([sample(batch, generator) for sample in samples], dim=1)
    assert images.shape == (2, 5, 3, 16, 16)
    assert torch.equal(images, expected)


def test_draws_in_full_precision_and_without_gradient() -> None:
    batch = images_batch(size=16)
    expected = draw([GaussianBlur(count=2)], batch, torch.Generator().manual_seed(0))
    batch["hr"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        images = draw([GaussianBlur(count=2)], batch, torch.Generator().manual_seed(0))
    assert torch.equal(images, expected)
    assert not images.requires_grad
