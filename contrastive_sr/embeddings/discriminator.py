"""PCL-SR's embedding network: a small discriminator over frequency bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_shape
from contrastive_sr.embeddings.base import EMBEDDINGS, KeepsWeights, TrainableEmbedding, check_out_indices
from contrastive_sr.embeddings.weights import load_weights
from contrastive_sr.functional import haar_high_bands

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)


class Block(KeepsWeights):
    """conv 3x3 without bias, BatchNorm, LeakyReLU 0.2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)) if self.training else F.conv2d(x, *self.weights(), self.conv.stride, padding=1)
        # In place: neither layer before it keeps its output for the backward pass. What it returns is the feature map.
        return F.leaky_relu_(x, 0.2)

    def computed_weights(self) -> tuple[Tensor, Tensor]:
        """Of the convolution with BatchNorm in it: in eval mode that is a scale and a shift per channel."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return self.conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


@EMBEDDINGS.register
class RGBDiscriminator(TrainableEmbedding):
    """The plain discriminator "D" of PCL-SR's Table IV, config 2: eight blocks over RGB.

    Conv 3x3, BatchNorm, LeakyReLU 0.2, eight times, with 64, 64, 128, 128, 256, 256, 512, 512 channels and strides 1,
    2, 1, 2, 1, 2, 1, 2; then adaptive average pooling to 4 x 4 and a 1 x 1 convolution, which give 16 logits for each
    image.

    Args:
        out_indices: the blocks whose outputs are the feature maps, counted from 0, in any order; the paper takes the
            first four of the eight.
        weights: a file with trained weights (PCL-F, Table V): one that a training saved, or a plain state dict; see
            :func:`load_weights`.

    Raises:
        ConfigError: ``out_indices`` that are not different numbers from 0 to 7, or weights that are missing or do not
            fit.

    Example:
        >>> maps = RGBDiscriminator(out_indices=(0, 1))(torch.rand(1, 3, 64, 64))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 64, 64), (1, 64, 32, 32)]
    """

    paper = "PCL-SR"
    in_channels = 3
    first_stride = 1
    minimum_size = 16
    vector_size = CHANNELS[-1]

    def __init__(self, *, out_indices: Sequence[int] = (0, 1, 2, 3), weights: str | Path | None = None) -> None:
        super().__init__()
        self.out_indices = check_out_indices(out_indices, len(CHANNELS), f"{type(self).__name__}(out_indices)")
        inputs = (self.in_channels, *CHANNELS[:-1])
        strides = (self.first_stride, 2, 1, 2, 1, 2, 1, 2)
        self.blocks = nn.ModuleList(Block(*sizes) for sizes in zip(inputs, CHANNELS, strides, strict=True))
        self.head = nn.Conv2d(CHANNELS[-1], 1, 1)
        if weights is not None:
            load_weights(self, weights, key=f"{type(self).__name__}(weights)")

    def transform(self, images: Tensor) -> Tensor:
        """What the first block sees: the images themselves."""
        return images

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps after the LeakyReLU of the blocks ``out_indices``; later blocks are not run.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            One (B, C_l, H_l, W_l) for each of ``out_indices``, from the first block to the last.

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        x = self._inputs(images)
        maps = []
        for index, block in enumerate(self.blocks[: self.out_indices[-1] + 1]):
            x = block(x)
            if index in self.out_indices:
                maps.append(x)
        return maps

    def logits(self, images: Tensor) -> Tensor:
        """Real-or-fake logits.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 16).

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        return self.head(F.adaptive_avg_pool2d(self._last(images), 4)).flatten(1)

    def vectors(self, images: Tensor) -> Tensor:
        """The mean of the last block over all positions.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 512).

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        return F.adaptive_avg_pool2d(self._last(images), 1).flatten(1)

    def _last(self, images: Tensor) -> Tensor:
        x = self._inputs(images)
        for block in self.blocks:
            x = block(x)
        return x

    def _inputs(self, images: Tensor) -> Tensor:
        check_shape(images, ("B", 3, "H", "W"), f"{type(self).__name__}(images)")
        self.check_size(*images.shape[-2:])
        return self.transform(images).contiguous(memory_format=torch.channels_last)


@EMBEDDINGS.register
class HaarDiscriminator(RGBDiscriminator):
    """PCL-SR's embedding network "H+D" (section III-C; Table IV, config 3): over the Haar bands LH, HL and HH.

    The blocks are those of :class:`RGBDiscriminator`; the input has 9 channels at half the size, so
    low frequencies, and with them the mean colour, are invisible to it.

    Args:
        out_indices: the blocks whose outputs are the feature maps, as in :class:`RGBDiscriminator`; the paper takes the
            first four.
        weights: a file with trained weights, as in :class:`RGBDiscriminator`.

    Raises:
        ConfigError: as :class:`RGBDiscriminator`.

    Example:
        >>> HaarDiscriminator().logits(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 16])
    """

    in_channels = 9
    minimum_size = 32
    multiple_of = 2

    def transform(self, images: Tensor) -> Tensor:
        """LH, HL and HH of RGB, (B, 9, H/2, W/2)."""
        return haar_high_bands(images)

    def bands(self, images: Tensor) -> dict[str, Tensor]:
        """LH, HL and HH; see :meth:`Embedding.bands`."""
        return dict(zip(("LH", "HL", "HH"), self.transform(images).chunk(3, dim=1), strict=True))


@EMBEDDINGS.register
class StationaryHaarDiscriminator(HaarDiscriminator):
    """:class:`HaarDiscriminator` over the undecimated (stationary) Haar transform, ours: a block at every pixel.

    The first block has the stride of 2 that the transform no longer has, so that the maps have the same sizes, and the
    network the same cost, as the paper's. What the first block sees does not depend on how the image lies on a grid of
    two pixels, and nothing is left out.

    Args:
        out_indices: the blocks whose outputs are the feature maps, as in :class:`RGBDiscriminator`.
        weights: a file with trained weights of this network. Those of :class:`HaarDiscriminator` have the same names
            and shapes, but mean something else.

    Raises:
        ConfigError: as :class:`RGBDiscriminator`.

    Example:
        >>> [tuple(m.shape) for m in StationaryHaarDiscriminator(out_indices=(0, 1))(torch.rand(1, 3, 64, 64))]
        [(1, 64, 32, 32), (1, 64, 16, 16)]
    """

    first_stride = 2
    multiple_of = 1

    def transform(self, images: Tensor) -> Tensor:
        """LH, HL and HH of RGB at every pixel, (B, 9, H, W)."""
        return haar_high_bands(images, decimated=False)


@EMBEDDINGS.register
class FourierDiscriminator(RGBDiscriminator):
    """The Fourier form "F+D" of PCL-SR's Table IV, config 5: over the 2-D spectrum of the image.

    The paper does not say how the spectrum is laid out. In ours: orthonormal FFT, zero frequency in the centre, the
    real parts of RGB and then the imaginary parts. It costs about four times as much as :class:`HaarDiscriminator`,
    whose input has half the height and width.

    Args:
        out_indices: the blocks whose outputs are the feature maps, as in :class:`RGBDiscriminator`.
        weights: a file with trained weights, as in :class:`RGBDiscriminator`.

    Raises:
        ConfigError: as :class:`RGBDiscriminator`.

    Example:
        >>> [tuple(m.shape) for m in FourierDiscriminator(out_indices=(1,))(torch.rand(1, 3, 16, 16))]
        [(1, 64, 8, 8)]
    """

    in_channels = 6

    def transform(self, images: Tensor) -> Tensor:
        """Real and imaginary parts of the centred spectrum, (B, 6, H, W) in float32 or wider."""
        spectrum = torch.fft.fftshift(torch.fft.fft2(_full_precision(images), norm="ortho"), dim=(-2, -1))
        return torch.cat((spectrum.real, spectrum.imag), dim=1)

    def bands(self, images: Tensor) -> dict[str, Tensor]:
        """The logarithm of the spectrum's magnitude, with 1 for the largest possible; see :meth:`Embedding.bands`."""
        magnitude = torch.hypot(*self.transform(images).chunk(2, dim=1))
        largest = images[0, 0].numel() ** 0.5
        return {"log spectrum": torch.log1p(magnitude) / math.log1p(largest)}


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
