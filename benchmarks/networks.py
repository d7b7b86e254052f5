"""EDSR, RCAN and RRDBNet at the sizes of their papers, for machines without the hosts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class _Residual(nn.Module):
    """``x + scale * body(x)``."""

    def __init__(self, *body: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.scale = nn.Sequential(*body), scale

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + (y if self.scale == 1.0 else self.scale * y)


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 16, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)
        return gated


class _Dense(nn.Module):
    """Five convolutions, each of all maps before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [channels + n * growth for n in range(5)]
        self.layers = nn.ModuleList(_conv(width, growth if n < 4 else channels) for n, width in enumerate(widths))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers[:-1]:
            maps.append(nn.functional.leaky_relu(layer(torch.cat(maps, 1)), 0.2))
        return x + 0.2 * self.layers[-1](torch.cat(maps, 1))


def _x4(channels: int) -> list[nn.Module]:
    return [layer for _ in range(2) for layer in (_conv(channels, 4 * channels), nn.PixelShuffle(2))]


def edsr(channels: int = 64, blocks: int = 16) -> nn.Module:
    """EDSR-baseline, x4."""
    body = [_Residual(_conv(channels, channels), nn.ReLU(), _conv(channels, channels)) for _ in range(blocks)]
    trunk = _Residual(*body, _conv(channels, channels))
    return nn.Sequential(_conv(3, channels), trunk, *_x4(channels), _conv(channels, 3))


def rcan(channels: int = 64, groups: int = 10, blocks: int = 20) -> nn.Module:
    """RCAN, x4."""

    def block() -> nn.Module:
        return _Residual(_conv(channels, channels), nn.ReLU(), _conv(channels, channels), _ChannelAttention(channels))

    body = [_Residual(*(block() for _ in range(blocks)), _conv(channels, channels)) for _ in range(groups)]
    trunk = _Residual(*body, _conv(channels, channels))
    return nn.Sequential(_conv(3, channels), trunk, *_x4(channels), _conv(channels, 3))


def rrdb(channels: int = 64, blocks: int = 23, growth: int = 32) -> nn.Module:
    """ESRGAN's RRDBNet, x4."""
    body = [_Residual(*(_Dense(channels, growth) for _ in range(3)), scale=0.2) for _ in range(blocks)]
    trunk = _Residual(*body, _conv(channels, channels))
    enlarge = [
        layer
        for _ in range(2)
        for layer in (nn.Upsample(scale_factor=2), _conv(channels, channels), nn.LeakyReLU(0.2, inplace=True))
    ]
    tail = (_conv(channels, channels), nn.LeakyReLU(0.2, inplace=True), _conv(channels, 3))
    return nn.Sequential(_conv(3, channels), trunk, *enlarge, *tail)
