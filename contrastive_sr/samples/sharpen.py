"""Informative positives: sharpened HR images."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import check_range
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator, depthwise, mirror, uniform


@SAMPLES.register
class Sharpen(SampleGenerator):
    r"""HR images with a random excess of detail (PCL-SR eq. 5).

    .. math:: f(x) = \mathrm{clamp}(b + a (x - b), 0, 1)

    b is x smoothed by the kernel [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, with mirrored edges; every sample of every
    image draws its own a. The paper does not give a; below 1 it would blur, so ours starts above 1. Except at the
    outermost pixels, the values are those of torchvision's ``adjust_sharpness``.

    Args:
        count: images to make from each HR image.
        factor: (low, high) of a, both at least 1.

    Raises:
        ConfigError: a count or range that makes no sense.

    Example:
        >>> Sharpen(count=3)({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 3, 3, 32, 32])
    """

    paper = "PCL-SR"

    def __init__(self, *, count: int = 3, factor: tuple[float, float] = (1.2, 2.0)) -> None:
        super().__init__(count=count)
        self.factor = check_range(factor, "Sharpen(factor)", at_least=1.0)
        if self.factor[1] == 1.0:
            raise ConfigError("Sharpen(factor): expected an upper bound above 1, got 1, which changes nothing.")

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Sharpened HR images.

        Args:
            batch: ``"hr"`` (B, C, H, W) in [0, 1].
            generator: source of randomness, on the batch's device.

        Returns:
            (B, count, C, H, W) in [0, 1].

        Raises:
            DataError: images with a side of 1 px.
        """
        hr = batch["hr"]
        if min(hr.shape[-2:]) < 2:
            raise DataError(f"Sharpen: expected HR images of at least 2 px a side, got {tuple(hr.shape)}.")
        kernel = hr.new_full((3, 3), 1 / 13)
        kernel[1, 1].fill_(5 / 13)  # an assignment would wait for the device
        smooth = depthwise(mirror(hr, 1), kernel.expand(hr.shape[0], 3, 3), hr.shape[-2:])
        factor = uniform(*self.factor, (hr.shape[0], self.count, 1, 1, 1), hr, generator)
        return torch.addcmul(smooth[:, None], (hr - smooth)[:, None], factor).clamp_(0, 1)
