"""Hard negatives of our own: HR images under a faint pattern of dots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, check_range
from contrastive_sr.errors import ConfigError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator, uniform


@SAMPLES.register
class PeriodicPattern(SampleGenerator):
    """HR images under a random pattern that repeats, such as a network makes that follows an embedding too far.

    No paper's. Each sample of each image draws its own period p, p x p values for each channel, of mean 0, equal in
    all channels for every other sample, and a strength; so the pattern lies at any phase and has any colour.

    Args:
        count: images to make from each HR image.
        periods: in pixels, to choose from: 2, of an embedding's strides, and that of the network's pixel shuffle.
        strength: (low, high) of the pattern's rms, for images in [0, 1]; drawn evenly in its logarithm.

    Raises:
        ConfigError: a count, period or range that makes no sense.

    Example:
        >>> PeriodicPattern(count=2)({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        count: int = 1,
        periods: Sequence[int] = (2, 4),
        strength: tuple[float, float] = (1 / 255, 16 / 255),
    ) -> None:
        super().__init__(count=count)
        listed = isinstance(periods, Sequence) and not isinstance(periods, str) and len(periods) > 0
        if not listed or any(check_count(period, "PeriodicPattern(periods)") < 2 for period in periods):
            raise ConfigError(f"PeriodicPattern(periods): expected periods from 2 on such as (2, 4), got {periods!r}.")
        self.periods = tuple(periods)
        self.strength = check_range(strength, "PeriodicPattern(strength)", at_least=1e-6)
        if self.strength[1] > 1:
            raise ConfigError(
                f"PeriodicPattern(strength): expected an rms for images in [0, 1], got {strength}. Divide grey levels "
                "by 255."
            )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Patterned HR images.

        Args:
            batch: ``"hr"`` (B, C, H, W) in [0, 1].
            generator: source of randomness, on the batch's device.

        Returns:
            (B, count, C, H, W) in [0, 1].
        """
        hr = batch["hr"]
        count, (channels, height, width) = (hr.shape[0], self.count), hr.shape[1:]
        chosen = torch.randint(len(self.periods), (*count, 1, 1, 1), generator=generator, device=hr.device)
        grey = torch.rand((*count, 1, 1, 1), generator=generator, device=hr.device) < 0.5
        pattern = hr.new_zeros(*count, channels, height, width)
        for index, period in enumerate(self.periods):
            cell = torch.randn((*count, channels, period, period), generator=generator, device=hr.device).to(hr.dtype)
            cell = torch.where(grey, cell[:, :, :1], cell)
            cell = cell - cell.mean((3, 4), keepdim=True)
            cell = cell / cell.square().mean((2, 3, 4), keepdim=True).sqrt().clamp_min(1e-6)
            repeats = (1, 1, 1, -(-height // period), -(-width // period))
            pattern += (chosen == index) * cell.repeat(repeats)[..., :height, :width]
        low, high = self.strength
        strength = low * (high / low) ** uniform(0, 1, (*count, 1, 1, 1), hr, generator)
        return torch.addcmul(hr[:, None], strength, pattern).clamp_(0, 1)
