"""For ``--import``: PCL-SR's embedding with anti-aliased strides, which `dots.yml` compares with other cures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.embeddings import StationaryHaarDiscriminator
from contrastive_sr.embeddings.base import EMBEDDINGS


class BlurPool(nn.Module):
    """Every second pixel of maps blurred by [1 2 1] / 4 in both directions (Zhang, ICML 2019; arXiv 1904.11486)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=channels)


@EMBEDDINGS.register
class AntialiasedHaarDiscriminator(StationaryHaarDiscriminator):
    """With convolutions of stride 1, of whose activations each second one is blurred and halved: no stride aliases."""

    def __init__(self, *, out_indices: Sequence[int] = (0, 1, 2, 3), weights: str | Path | None = None) -> None:
        super().__init__(out_indices=out_indices, weights=weights)
        for index, block in enumerate(self.blocks):
            conv = block.conv
            assert isinstance(conv, nn.Conv2d)
            if conv.stride != (1, 1):
                conv.stride = (1, 1)
                self.blocks[index] = nn.Sequential(block, BlurPool())
