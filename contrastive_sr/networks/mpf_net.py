"""MPF-Net: "Learning from Multi-Perception Features for Real-World Image Super-resolution", the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_flag, check_shape, describe
from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError
from contrastive_sr.networks.parts import ColourMean, check_scale, upsampler
from contrastive_sr.networks.registry import NETWORKS

Perceptions = Sequence[Sequence[int]]
PerceptionsName = Literal["mpfe", "vanilla", "0+5", "1+4", "2+3", "3+2", "4+1", "5+0"]

# Kernel and dilation of each map's convolution. "mpfe" is the paper's, "vanilla" its baseline (Table V), "m+n" a row of
# Table VI: m convolutions that are not dilated and n that are. For "1+4" the paper's text lists three dilated by 3, and
# so six convolutions in all, while its table has five: ours has two of them.
PERCEPTIONS: dict[PerceptionsName, Perceptions] = {
    "mpfe": ((1, 1), (3, 1), (3, 3), (3, 6), (3, 9)),
    "vanilla": ((3, 1), (3, 1), (3, 1), (3, 1), (3, 1)),
    "0+5": ((3, 3), (3, 3), (3, 3), (3, 6), (3, 9)),
    "1+4": ((3, 1), (3, 3), (3, 3), (3, 6), (3, 9)),
    "2+3": ((1, 1), (3, 1), (3, 3), (3, 6), (3, 9)),
    "3+2": ((1, 1), (3, 1), (3, 1), (3, 6), (3, 9)),
    "4+1": ((1, 1), (3, 1), (3, 1), (3, 1), (3, 6)),
    "5+0": ((1, 1), (3, 1), (3, 1), (3, 1), (3, 1)),
}
REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Weights each channel, depending on the mean of every channel over the image (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x * torch.sigmoid(self.weigh(x))


class Block(nn.Sequential):
    """``Block`` of eq. 4 and 5: two convolutions 3x3, a SELU after each, and squeeze and excitation.

    Args:
        inputs: number of input channels.
        channels: number of output channels.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.SELU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SELU(inplace=True),
            SqueezeExcitation(channels),
        )


class CrossPerceptionBlock(nn.Module):
    """Eq. 4 to 6: joins each map with the map of the next larger receptive field, then with that of the next smaller.

    Args:
        maps: number of maps.
        channels: number of channels of each map.
        cross_fusion: whether maps are joined; if not, each map goes through such blocks on its own.
    """

    def __init__(self, maps: int, channels: int, cross_fusion: bool) -> None:
        super().__init__()
        self.cross_fusion = cross_fusion
        inputs = 2 * channels if cross_fusion else channels
        self.up, self.down = (nn.ModuleList(Block(inputs, channels) for _ in range(maps - 1)) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, H, W) to as many."""
        up = list(maps)
        for index in reversed(range(len(self.up))):
            up[index] = self.up[index](self._join(maps[index], up[index + 1]))
        down = list(up)
        for index, block in enumerate(self.down, start=1):
            down[index] = block(self._join(up[index], down[index - 1]))
        return [before + after for before, after in zip(maps, down, strict=True)]

    def _join(self, own: Tensor, neighbour: Tensor) -> Tensor:
        return torch.cat((own, neighbour), dim=1) if self.cross_fusion else own


@NETWORKS.register
class MPFNet(nn.Module):
    """An SR network that looks at the LR image through several receptive fields and fuses what it sees (MPF-Net).

    Conv 3x3; one convolution for each perception (the unit MPFE); ten cross-perception blocks (eq. 4 to 6); a tail that
    fuses the maps and enlarges them. The paper gives neither the widths nor the tail, only the totals of 5.95 M
    parameters and 327 G multiply-adds for an LR image of 224 x 224 at x4. Ours: 50 channels; a SELU after each
    convolution of a block; squeeze and excitation by 16; a 3x3 convolution that fuses the maps, pixel shuffles, and two
    convolutions at HR size. Together that is 5.85 M and 323 G, which ``contrastive-sr cost plugins/mpf_net_x4.yml``
    prints.

    Args:
        scale: 2, 3 or 4.
        channels: number of channels of each map.
        blocks: how many cross-perception blocks.
        perceptions: kernel and dilation of each map's convolution, e.g. ``[[1, 1], [3, 1], [3, 3]]``; or a name:
            ``"mpfe"``, the paper's five; ``"vanilla"``, five 3x3 convolutions that are not dilated, the baseline of
            Table V; ``"0+5"`` to ``"5+0"``, the rows of Table VI.
        cross_fusion: whether the maps are joined with each other. False: Table V without CPB, whose blocks have fewer
            input channels (``channels=61`` brings the number of parameters back to about the same).

    Raises:
        ConfigError: an argument that makes no sense.

    Example:
        >>> MPFNet(scale=4, channels=8, blocks=1)(torch.rand(2, 3, 12, 12)).shape
        torch.Size([2, 3, 48, 48])
    """

    paper = "MPF-Net"

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 50,
        blocks: int = 10,
        perceptions: PerceptionsName | Perceptions = "mpfe",
        cross_fusion: bool = True,
    ) -> None:
        super().__init__()
        self.scale = check_scale(scale, "MPFNet")
        check_count(channels, "MPFNet(channels)")
        check_count(blocks, "MPFNet(blocks)")
        check_flag(cross_fusion, "MPFNet(cross_fusion)")
        pairs = _check_perceptions(perceptions)
        self.colour = ColourMean()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.perceptions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            for kernel, dilation in pairs
        )
        self.blocks = nn.ModuleList(CrossPerceptionBlock(len(pairs), channels, cross_fusion) for _ in range(blocks))
        self.fuse = nn.Conv2d(len(pairs) * channels, channels, 3, padding=1)
        self.upsample = upsampler(channels, scale)[:-1]
        self.last = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.SELU(inplace=True), nn.Conv2d(channels, 3, 3, padding=1)
        )

    def forward(self, lr: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].

        Returns:
            (B, 3, s h, s w), unclamped.

        Raises:
            DataError: other shapes.
        """
        check_shape(lr, ("B", 3, "h", "w"), "MPFNet(lr)")
        shallow = self.first(self.colour(lr))
        maps = [perception(shallow) for perception in self.perceptions]
        for block in self.blocks:
            maps = block(maps)
        fused = self.fuse(torch.cat(maps, dim=1))
        return self.colour.undo(self.last(self.upsample(fused)))


def _check_perceptions(perceptions: PerceptionsName | Perceptions) -> Perceptions:
    """The pairs of kernel and dilation.

    Raises:
        ConfigError: an unknown name, fewer than two maps, an even kernel, or no pairs of whole numbers.
    """
    name = "MPFNet(perceptions)"
    if isinstance(perceptions, str):
        if perceptions not in PERCEPTIONS:
            raise ConfigError(f"{name}: MPFNet {unknown('name', perceptions, list(PERCEPTIONS))}")
        return PERCEPTIONS[perceptions]
    pairs: list[Any] = list(perceptions) if isinstance(perceptions, Sequence) else []
    if len(pairs) < 2 or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ConfigError(
            f"{name}: expected a name ({', '.join(PERCEPTIONS)}) or two or more pairs of kernel and dilation, such as "
            f"[[1, 1], [3, 1], [3, 3]]; got {describe(perceptions)}."
        )
    for kernel, dilation in pairs:
        if check_count(kernel, f"{name}: kernel") % 2 == 0:
            raise ConfigError(f"{name}: expected odd kernels, which keep the size of a map, got {kernel}.")
        check_count(dilation, f"{name}: dilation")
    return pairs
