"""Hard negatives of our own: images under a faint pattern of dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_count, check_range
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator, grey_ones, uniform


@SAMPLES.register
class PeriodicPattern(SampleGenerator):
    """SR images under a random pattern that repeats, such as a network makes that follows an embedding too far.

    It is not from a paper. As a negative it pushes the SR image away from what it would be with such a pattern, and so
    keeps flat areas free of dots. Each sample of each image draws its own period p, p x p values of mean 0 for each
    channel (in half of the samples, at random, and where the HR image is grey, the same for all channels), and a
    strength; so the pattern can have any phase and any colour.

    Args:
        count: images to make from each image.
        of: ``"sr"``, the images to put the pattern on, or ``"hr"``.
        periods: periods in pixels to choose from. None: 2 and 4, from an embedding's strides, and the scale, from pixel
            shuffle.
        strength: (low, high) of the pattern's rms, for images in [0, 1]; drawn uniformly in its logarithm.

    Raises:
        ConfigError: a count, period or range that makes no sense.

    Example:
        >>> PeriodicPattern(count=2)({"lr": torch.rand(2, 3, 8, 8), "sr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        count: int = 1,
        of: Literal["sr", "hr"] = "sr",
        periods: Sequence[int] | None = None,
        strength: tuple[float, float] = (1 / 255, 16 / 255),
    ) -> None:
        super().__init__(count=count)
        check_choice(of, ("sr", "hr"), "PeriodicPattern(of)")
        self.of = of
        if periods is not None:
            listed = isinstance(periods, Sequence) and not isinstance(periods, str) and len(periods) > 0
            if not listed or any(check_count(period, "PeriodicPattern(periods)") < 2 for period in periods):
                raise ConfigError(
                    f"PeriodicPattern(periods): expected periods from 2 on such as (2, 4), got {periods!r}."
                )
        self.periods = None if periods is None else tuple(periods)
        self.strength = check_range(strength, "PeriodicPattern(strength)", at_least=1e-6)
        if self.strength[1] > 1:
            raise ConfigError(
                f"PeriodicPattern(strength): expected an rms for images in [0, 1], got {strength}. Divide grey levels "
                "by 255."
            )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Patterned images, without a gradient.

        Args:
            batch: ``"sr"`` or ``"hr"`` (B, C, H, W), in or near [0, 1]; and ``"lr"``, which gives the scale.
            generator: source of randomness, on the batch's device.

        Returns:
            (B, count, C, H, W) in [0, 1].

        Raises:
            DataError: the batch has no such images.
        """
        needed = [self.of, *(["lr"] if self.periods is None else [])]
        if missing := [name for name in needed if name not in batch]:
            raise DataError(f"PeriodicPattern: expected a batch with {missing[0]!r}, got {sorted(batch)}.")
        images = batch[self.of].detach()
        periods = self.periods or sorted({2, 4, images.shape[-1] // batch["lr"].shape[-1]} - {1})
        count, (channels, height, width) = (images.shape[0], self.count), images.shape[1:]
        chosen = torch.randint(len(periods), (*count, 1, 1, 1), generator=generator, device=images.device)
        grey = torch.rand((*count, 1, 1, 1), generator=generator, device=images.device) < 0.5
        if "hr" in batch:  # an SR image may be grey but for its last bits
            grey = grey | grey_ones(batch["hr"])
        pattern = images.new_zeros(*count, channels, height, width)
        for index, period in enumerate(periods):
            shape = (*count, channels, period, period)
            cell = torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
            cell = torch.where(grey, cell[:, :, :1], cell)
            cell = cell - cell.mean((3, 4), keepdim=True)
            cell = cell / cell.square().mean((2, 3, 4), keepdim=True).sqrt().clamp_min(1e-6)
            repeats = (1, 1, 1, -(-height // period), -(-width // period))
            pattern += (chosen == index) * cell.repeat(repeats)[..., :height, :width]
        low, high = self.strength
        strength = low * (high / low) ** uniform(0, 1, (*count, 1, 1, 1), images, generator)
        return torch.addcmul(images[:, None], strength, pattern).clamp_(0, 1)
