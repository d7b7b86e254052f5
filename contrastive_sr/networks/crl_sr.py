"""CRL-SR: "Blind Image Super-Resolution via Contrastive Representation Learning" (arXiv 2107.00708), the networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.errors import DataError
from contrastive_sr.networks.parts import ColourMean, check_scale, upsampler
from contrastive_sr.networks.registry import NETWORKS

MAPS = 3


class ResidualBlock(nn.Module):
    """conv 3x3, ReLU, conv 3x3, and a skip, as in EDSR."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + out


class ImageEncoder(nn.Module):
    """An encoder of CRL-SR, from an image of HR size to feature maps at LR size.

    The paper says that there are 15 residual blocks, and nothing else. Ours: space to depth by the scale (a lossless
    step to LR size, so that a block costs as much as in EDSR), conv 3x3, the blocks, conv 3x3, and a skip from the
    first convolution to the end. Feature maps are taken after one and two thirds of the blocks and at the end.

    Args:
        scale: 2, 3 or 4.
        channels: number of channels of the features.
        blocks: how many residual blocks.

    Example:
        >>> import torch
        >>> encoder = ImageEncoder(scale=4, channels=8, blocks=3)
        >>> encoder.out_layers, [tuple(m.shape) for m in encoder(torch.rand(1, 3, 48, 48))]
        (['blocks.0', 'blocks.1', 'out'], [(1, 8, 12, 12), (1, 8, 12, 12), (1, 8, 12, 12)])
    """

    def __init__(self, *, scale: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.scale = scale
        self.colour = ColourMean()
        self.first = nn.Conv2d(3 * scale**2, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Identity()  # a name for the last feature map
        self._out_blocks = sorted({-(-blocks * third // MAPS) - 1 for third in range(1, MAPS)} - {blocks - 1})

    @property
    def out_layers(self) -> list[str]:
        """Names of the modules whose outputs are the feature maps."""
        return [*(f"blocks.{index}" for index in self._out_blocks), "out"]

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps.

        Args:
            images: (B, 3, s h, s w) RGB in [0, 1].

        Returns:
            Up to three maps (B, C, h, w); the last is what a decoder takes.

        Raises:
            DataError: other shapes, or a height or width that is not a multiple of the scale.
        """
        check_shape(images, ("B", 3, "H", "W"), "ImageEncoder(images)")
        if images.shape[-2] % self.scale or images.shape[-1] % self.scale:
            raise DataError(
                f"ImageEncoder(images): expected a height and width that are multiples of {self.scale}, got "
                f"{tuple(images.shape[-2:])}. Crop the images."
            )
        first = x = self.first(F.pixel_unshuffle(self.colour(images), self.scale))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._out_blocks:
                maps.append(x)
        return [*maps, self.out(first + self.last(x))]


class ImageDecoder(nn.Module):
    """A decoder of CRL-SR, from a feature map to the image. Ours: residual blocks, convolutions and pixel shuffles.

    Args:
        scale: 2, 3 or 4.
        channels: number of channels of the features.
        blocks: how many residual blocks.

    Example:
        >>> import torch
        >>> ImageDecoder(scale=4, channels=8, blocks=1)(torch.rand(1, 8, 12, 12)).shape
        torch.Size([1, 3, 48, 48])
    """

    def __init__(self, *, scale: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.upsample = upsampler(channels, scale)
        self.colour = ColourMean()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) features to a (B, 3, s h, s w) image, RGB in [0, 1], unclamped."""
        return self.colour.undo(self.upsample(self.blocks(features)))


@NETWORKS.register
class CRLSR(nn.Module):
    """A blind SR network: an encoder that leaves the degradation behind, and a decoder that adds the lost detail.

    It has those parts of CRL-SR's Fig. 1 that work at test time: the encoder of the upsampled LR image and the
    refinement decoder. No skip leads from the LR image to the output: what the encoder leaves out is gone. Of the
    networks the paper says only "15 residual blocks and a decoder"; the rest is ours (see :class:`ImageEncoder` and
    :class:`ImageDecoder`): 64 features and five blocks in the decoder. The encoder takes the bicubically upsampled
    image, as in the paper, and works at LR size. The parts that are needed only in training (encoder of HR, feature
    encoder, reconstruction) are in :class:`contrastive_sr.methods.CRLSR`; trained with a pixel loss alone, this is
    Model a of Table 1.

    Args:
        scale: 2, 3 or 4.
        channels: number of channels of the features.
        encoder_blocks: how many residual blocks the encoder has.
        decoder_blocks: how many residual blocks the decoder has.

    Raises:
        ConfigError: an argument that makes no sense.

    Example:
        >>> import torch
        >>> CRLSR(scale=4, channels=8, encoder_blocks=2, decoder_blocks=1)(torch.rand(2, 3, 12, 12)).shape
        torch.Size([2, 3, 48, 48])
    """

    paper = "CRL-SR"

    def __init__(
        self, *, scale: int = 4, channels: int = 64, encoder_blocks: int = 15, decoder_blocks: int = 5
    ) -> None:
        super().__init__()
        self.scale = check_scale(scale, "CRLSR")
        self.channels = check_count(channels, "CRLSR(channels)")
        self.encoder_blocks = check_count(encoder_blocks, "CRLSR(encoder_blocks)")
        self.decoder_blocks = check_count(decoder_blocks, "CRLSR(decoder_blocks)")
        self.encoder, self.decoder = self.new_encoder(), self.new_decoder()

    def new_encoder(self) -> ImageEncoder:
        """Another encoder of the same shape, with weights of its own."""
        return ImageEncoder(scale=self.scale, channels=self.channels, blocks=self.encoder_blocks)

    def new_decoder(self) -> ImageDecoder:
        """Another decoder of the same shape, with weights of its own."""
        return ImageDecoder(scale=self.scale, channels=self.channels, blocks=self.decoder_blocks)

    def forward(self, lr: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].

        Returns:
            (B, 3, s h, s w), unclamped.

        Raises:
            DataError: other shapes.
        """
        check_shape(lr, ("B", 3, "h", "w"), "CRLSR(lr)")
        upsampled = F.interpolate(lr, scale_factor=self.scale, mode="bicubic", align_corners=False)
        sr: Tensor = self.decoder(self.encoder(upsampled)[-1])
        return sr
