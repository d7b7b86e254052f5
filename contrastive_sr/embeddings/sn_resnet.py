"""MPF-Net's embedding network: a residual discriminator under spectral normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.embeddings.base import TrainableEmbedding
from contrastive_sr.embeddings.weights import load_weights

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, and stride of the first block
BLOCKS = 2
SLOPE = 0.1
HIDDEN = 256


class Block(nn.Module):
    """conv 3x3, LeakyReLU, conv 3x3, a skip, LeakyReLU; a 1x1 convolution on the skip where the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        changes = stride > 1 or inputs != channels
        self.skip = nn.Conv2d(inputs, channels, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # What is activated in place is this block's own sum; a tap is what the block returns.
        return F.leaky_relu_(self.conv2(F.leaky_relu_(self.conv1(x), SLOPE)) + self.skip(x), SLOPE)


class SNResNet18(TrainableEmbedding):
    """MPF-Net's embedding network (section III-D), that of ContraD (Jeong and Shin, arXiv 2103.09742).

    Images as 2x - 1; conv 3x3 to 64; four stages of two residual blocks with 64, 128, 256, 512 channels and strides 1,
    2, 2, 2; LeakyReLU 0.1; no BatchNorm; spectral normalisation of every convolution and linear layer. Global average
    pooling, so that any size from 16 pixels will do, and two linear layers make one logit an image. 11.3 M parameters.

    Spectral normalisation divides each weight by an estimate of its largest singular value. The estimate moves on in
    training mode alone, by one step a pass; it is saved with the weights. Weights are normalised in float32, once a
    pass; within :func:`~contrastive_sr.embeddings.frozen`, once for all passes.

    Args:
        taps: how many stages, from the first, give a feature map; the paper takes 4.
        weights: a file with trained weights: one that a BasicSR run saved (``embedding_*.pth``), an MMagic checkpoint,
            or a plain state dict.

    Raises:
        ConfigError: ``taps`` out of 1 to 4, or weights that are missing or do not fit.

    Example:
        >>> maps = SNResNet18(taps=2)(torch.rand(1, 3, 48, 48))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 48, 48), (1, 128, 24, 24)]
    """

    minimum_size = 16
    vector_size = STAGES[-1][0]

    def __init__(self, taps: int = 4, weights: str | Path | None = None) -> None:
        super().__init__()
        self.taps = check_count(taps, "SNResNet18(taps)", at_most=len(STAGES))
        self.first = nn.Conv2d(3, STAGES[0][0], 3, padding=1)
        inputs = (STAGES[0][0], *(channels for channels, _ in STAGES))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(inputs[index], channels, stride), *(Block(channels, channels, 1) for _ in range(BLOCKS - 1))
            )
            for index, (channels, stride) in enumerate(STAGES)
        )
        self.head = nn.Sequential(nn.Linear(self.vector_size, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, 1))
        self._normalized = [part for part in self.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
        for part in self._normalized:
            spectral_norm(part)
        if weights is not None:
            load_weights(self, weights, key="SNResNet18(weights)")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps behind the first ``taps`` stages.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            ``taps`` tensors (B, C_l, H_l, W_l).

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        with self._normalized_weights(images):
            return self._maps(images, self.taps)

    def vectors(self, images: Tensor) -> Tensor:
        """The mean of the last stage over all positions.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 512).

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        with self._normalized_weights(images):
            return F.adaptive_avg_pool2d(self._maps(images, len(STAGES))[-1], 1).flatten(1)

    def logits(self, images: Tensor) -> Tensor:
        """Real-or-fake logits.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 1).

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        with self._normalized_weights(images):
            logits: Tensor = self.head(self.vectors(images))
        return logits

    @contextmanager
    def _normalized_weights(self, images: Tensor) -> Iterator[None]:
        """Normalise all weights, and keep them so for a block of code."""
        check_shape(images, ("B", 3, "H", "W"), "SNResNet18(images)")
        self.check_size(*images.shape[-2:])
        with parametrize.cached():
            with torch.autocast(images.device.type, enabled=False):  # it would estimate in half precision
                for part in self._normalized:
                    getattr(part, "weight")  # noqa: B009 - for its effect
            yield

    def _maps(self, images: Tensor, count: int) -> list[Tensor]:
        x = self.first((2 * images - 1).contiguous(memory_format=torch.channels_last))
        maps: list[Tensor] = []
        for stage in self.stages[:count]:
            x = stage(x)
            maps.append(x)
        return maps
