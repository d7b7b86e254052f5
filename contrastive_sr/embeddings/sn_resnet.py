"""MPF-Net's embedding network: a residual discriminator under spectral normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from contrastive_sr._checks import check_shape
from contrastive_sr.embeddings.base import EMBEDDINGS, TrainableEmbedding, check_out_indices
from contrastive_sr.embeddings.weights import LoadsReleased, load_weights, renamed

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, and stride of the first block
BLOCKS = 2
SLOPE = 0.1
HIDDEN = 1024
# ContraD's names of layers, and ours; its projection heads are for training alone.
_RELEASED = (
    (r"conv1\.", "first.0."),
    *(
        (rf"layer{stage + 1}\.(\d)\.{theirs}\.", rf"stages.{stage}.\1.{ours}.")
        for stage in range(len(STAGES))
        for theirs, ours in (("conv1", "conv1"), ("conv2", "conv2"), (r"shortcut\.0", "skip"))
    ),
    (r"linear\.l1\.", "head.0."),
    (r"linear\.l2\.", "head.2."),
    (r"projection2?\.", None),
)
# PyTorch's names for what spectral_norm keeps, of the function that ContraD uses and of the one that is used here.
_SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
    "bias": "bias",
}


class Block(nn.Module):
    """conv 3x3, LeakyReLU, conv 3x3, a skip, LeakyReLU; a 1x1 convolution on the skip where the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        changes = stride > 1 or inputs != channels
        self.skip = nn.Conv2d(inputs, channels, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # In place: the sum is this block's own, and what it returns is the feature map.
        return F.leaky_relu_(self.conv2(F.leaky_relu_(self.conv1(x), SLOPE)) + self.skip(x), SLOPE)


def contrad_head(inputs: int, outputs: int) -> nn.Sequential:
    """What ContraD has after its features: two linear layers under spectral normalisation, LeakyReLU 0.1 in between."""
    return nn.Sequential(
        spectral_norm(nn.Linear(inputs, HIDDEN)), nn.LeakyReLU(SLOPE), spectral_norm(nn.Linear(HIDDEN, outputs))
    )


@EMBEDDINGS.register
class SNResNet18(LoadsReleased, TrainableEmbedding):
    """MPF-Net's embedding network (section III-D), that of ContraD (Jeong and Shin, arXiv 2103.09742).

    Images as 2x - 1; conv 3x3 to 64 and LeakyReLU; four stages of two residual blocks with 64, 128, 256, 512 channels
    and strides 1, 2, 2, 2; LeakyReLU 0.1; no BatchNorm; spectral normalisation of every convolution and linear layer.
    Global average pooling, so that any size from 16 pixels will do, and two linear layers (1024 in between, as in
    ContraD) make one logit for each image. 11.7 M parameters, 11.2 M of them without these two.

    Spectral normalisation divides each weight by an estimate of its largest singular value. Each pass in training mode,
    and only in training mode, improves the estimate by one step; it is saved with the weights. Weights are normalised
    in float32, once in each pass; within :func:`~contrastive_sr.embeddings.frozen`, once for all passes.

    Args:
        out_indices: the stages whose outputs are the feature maps, counted from 0, in any order; the paper takes all
            four.
        weights: a file with trained weights: one that a training saved, ContraD's discriminator (``dis.pt`` of its
            ``snresnet18``), or a plain state dict; see :func:`load_weights`.

    Raises:
        ConfigError: ``out_indices`` that are not different numbers from 0 to 3, or weights that are missing or do not
            fit.

    Example:
        >>> maps = SNResNet18(out_indices=(0, 1))(torch.rand(1, 3, 48, 48))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 48, 48), (1, 128, 24, 24)]
    """

    paper = "MPF-Net"
    minimum_size = 16
    vector_size = STAGES[-1][0]

    def __init__(self, *, out_indices: Sequence[int] = (0, 1, 2, 3), weights: str | Path | None = None) -> None:
        super().__init__()
        self.out_indices = check_out_indices(out_indices, len(STAGES), "SNResNet18(out_indices)")
        self.first = nn.Sequential(nn.Conv2d(3, STAGES[0][0], 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True))
        inputs = (STAGES[0][0], *(channels for channels, _ in STAGES))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(inputs[index], channels, stride), *(Block(channels, channels, 1) for _ in range(BLOCKS - 1))
            )
            for index, (channels, stride) in enumerate(STAGES)
        )
        self.head = contrad_head(self.vector_size, 1)
        for part in (self.first, self.stages):
            for convolution in part.modules():
                if isinstance(convolution, nn.Conv2d):
                    spectral_norm(convolution)
        self._normalized = [part for part in self.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
        if weights is not None:
            load_weights(self, weights, key="SNResNet18(weights)")

    def from_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """See :meth:`LoadsReleased.from_released`; the file is a discriminator's of ContraD."""
        if "layer1.0.conv1.weight_orig" not in state:
            return None
        own = {}
        for name, value in renamed(state, _RELEASED, "ContraD's SNResNet18").items():
            layer, _, entry = name.rpartition(".")
            own[f"{layer}.{_SPECTRAL.get(entry, entry)}"] = value
        return own

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the stages ``out_indices``; later stages are not run.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            One (B, C_l, H_l, W_l) for each of ``out_indices``, from the first stage to the last.

        Raises:
            DataError: other shapes, or a size that the embedding cannot take.
        """
        with self._normalized_weights(images):
            maps = self._maps(images, self.out_indices[-1] + 1)
        return [maps[index] for index in self.out_indices]

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
