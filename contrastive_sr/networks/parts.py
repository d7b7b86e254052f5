"""Parts that several SR networks have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count

SCALES = (2, 3, 4)


def check_scale(scale: object, name: str) -> int:
    """Require one of the papers' scales and return it.

    Raises:
        ConfigError: anything but 2, 3 or 4.
    """
    return check_count(scale, f"{name}(scale)", at_least=SCALES[0], at_most=SCALES[-1])


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles, from (B, channels, h, w) features to an RGB image ``scale`` times as large."""
    layers: list[nn.Module] = []
    for factor in (2, 2) if scale == 4 else (scale,):
        layers += [nn.Conv2d(channels, channels * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


class ColourMean(nn.Module):
    """Subtracts DIV2K's mean colour from images in [0, 1] and multiplies by ``gain``; :meth:`undo` does the reverse."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.mean: Tensor
        # A constant, not part of the saved state.
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) * self.gain

    def undo(self, x: Tensor) -> Tensor:
        """Images in [0, 1], unclamped."""
        return x / self.gain + self.mean
