"""Samples that are images at hand."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_close
from torchvision.transforms import functional as tv

from contrastive_sr.errors import DataError
from contrastive_sr.samples import SAMPLES, HighResolution, OtherInstances, SampleGenerator, UpsampledLowResolution


def test_high_resolution_is_the_image_itself(device: str) -> None:
    hr = torch.rand(2, 3, 8, 8, device=device)
    sample = HighResolution()({"hr": hr})
    assert sample.shape == (2, 1, 3, 8, 8)
    assert torch.equal(sample[:, 0], hr)
    assert sample.data_ptr() == hr.data_ptr()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsampled_low_resolution_is_bicubic(scale: int, device: str) -> None:
    lr = torch.rand(2, 3, 6, 5, device=device)
    batch = {"lr": lr, "hr": torch.rand(2, 3, 6 * scale, 5 * scale, device=device)}
    sample = UpsampledLowResolution()(batch)
    assert sample.shape == (2, 1, 3, 6 * scale, 5 * scale)
    resized = tv.resize(lr, [6 * scale, 5 * scale], interpolation=tv.InterpolationMode.BICUBIC, antialias=False).clamp(
        0, 1
    )
    assert_close(sample[:, 0], resized, "exact", scale=1)
    assert torch.equal(lr, batch["lr"])


def test_bicubic_overshoot_is_clamped() -> None:
    edge = torch.zeros(1, 3, 6, 6)
    edge[..., 3:] = 1
    sample = UpsampledLowResolution()({"lr": edge, "hr": torch.zeros(1, 3, 24, 24)})
    assert sample.min() == 0
    assert sample.max() == 1


def test_low_resolution_is_needed() -> None:
    with pytest.raises(DataError, match=r"UpsampledLowResolution: expected a batch with 'lr', got \['hr'\]"):
        UpsampledLowResolution()({"hr": torch.rand(1, 3, 8, 8)})


def test_counts_and_names() -> None:
    assert HighResolution().count == UpsampledLowResolution().count == 1
    fixed = {"HighResolution", "UpsampledLowResolution", "TeacherOutput"}
    assert {"Sharpen", "GaussianBlur", "OtherInstances", *fixed} <= set(SAMPLES)
    assert all(issubclass(cls, SampleGenerator) and cls.__name__ == name for name, cls in SAMPLES.items())


def test_other_instances_are_never_one_s_own_and_may_be_any_other() -> None:
    hr = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    generator = torch.Generator().manual_seed(0)
    sample = OtherInstances(count=50)({"hr": hr}, generator)
    assert sample.shape == (4, 50, 3, 2, 2)
    for own in range(4):
        assert {*sample[own, :, 0, 0, 0].tolist()} == {0.0, 1.0, 2.0, 3.0} - {float(own)}
    again = OtherInstances(count=50)({"hr": hr}, torch.Generator().manual_seed(0))
    assert torch.equal(sample, again)
    assert not torch.equal(sample, OtherInstances(count=50)({"hr": hr}, generator))
    with pytest.raises(
        DataError,
        match=r"OtherInstances: expected a batch of 2 or more .* got 1. Take larger batches, and leave out a last",
    ):
        OtherInstances()({"hr": hr[:1]})
