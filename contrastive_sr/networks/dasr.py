"""DASR: "Unsupervised Degradation Representation Learning for Blind Super-Resolution" (CVPR 2021), the network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.embeddings.degradation import released_encoder
from contrastive_sr.embeddings.weights import LoadsReleased, renamed
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks.parts import ColourMean, check_scale, upsampler
from contrastive_sr.networks.registry import NETWORKS

Variant = Literal["full", "unmodulated", "concatenated", "oracle"]
COMPRESSED = 64
REDUCTION = 8
SLOPE = 0.1
# The authors' names of the SR network's layers, and ours. The mean colour, in theirs a layer, is a constant here.
_BLOCK = r"G\.body\.(\d+)\.body\.(\d+)\."
_RELEASED = (
    (r"G\.head\.0\.", "first."),
    (r"G\.compress\.", "compress."),
    (_BLOCK + r"da_conv(\d)\.kernel\.", r"groups.\1.blocks.\2.aware\3.kernel."),
    (_BLOCK + r"da_conv(\d)\.conv\.", r"groups.\1.blocks.\2.aware\3.pointwise."),
    (_BLOCK + r"da_conv(\d)\.ca\.conv_du\.", r"groups.\1.blocks.\2.aware\3.modulation."),
    (_BLOCK + r"conv(\d)\.", r"groups.\1.blocks.\2.conv\3."),
    (_BLOCK, r"groups.\1.conv."),
    (r"G\.body\.\d+\.", "after_groups."),
    (r"G\.tail\.0\.", "upsample."),
    (r"G\.tail\.1\.", "upsample.{last}."),
    (r"G\.(?:sub|add)_mean\.|E\.", None),
)


def depthwise_per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter channel c of image b with its own kernel, all images in one grouped convolution.

    Args:
        x: (B, C, H, W).
        kernels: (B, C, k, k), k odd.

    Returns:
        (B, C, H, W), zero padded.
    """
    batch, channels, height, width = x.shape
    size = kernels.shape[-1]
    joined = x.reshape(1, batch * channels, height, width)
    filters = kernels.reshape(batch * channels, 1, size, size)
    filtered = F.conv2d(joined, filters, padding=size // 2, groups=batch * channels)
    return filtered.view(batch, channels, height, width)


class DegradationAwareConvolution(nn.Module):
    """F1 + F2 of Fig. 2(c): a depth-wise convolution whose kernels come from R, and channel weights that come from R.

    Args:
        channels: number of channels of the features.
        modulation: whether F2 is there.
    """

    def __init__(self, channels: int, modulation: bool) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(COMPRESSED, COMPRESSED, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Linear(COMPRESSED, channels * 9, bias=False),
        )
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.modulation: nn.Sequential | None = None
        if modulation:
            hidden = max(channels // REDUCTION, 1)
            self.modulation = nn.Sequential(
                nn.Linear(COMPRESSED, hidden, bias=False),
                nn.LeakyReLU(SLOPE),
                nn.Linear(hidden, channels, bias=False),
                nn.Sigmoid(),
            )

    def forward(self, x: Tensor, compressed: Tensor) -> Tensor:
        """(B, C, H, W) features and (B, 64) to (B, C, H, W)."""
        kernels = self.kernel(compressed).view(x.shape[0], x.shape[1], 3, 3)
        out: Tensor = self.pointwise(F.leaky_relu(depthwise_per_image(x, kernels), SLOPE))
        if self.modulation is not None:
            out = out + x * self.modulation(compressed)[:, :, None, None]
        return out


class ConcatenatedConvolution(nn.Module):
    """The convolution of Model 2: R is stretched over all positions and concatenated with the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + COMPRESSED, channels, 3, padding=1)

    def forward(self, x: Tensor, compressed: Tensor) -> Tensor:
        """(B, C, H, W) features and (B, 64) to (B, C, H, W)."""
        stretched = compressed[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.conv(torch.cat((x, stretched), dim=1))
        return out


class Block(nn.Module):
    """Two degradation-aware convolutions, each followed by an ordinary one, and a skip."""

    def __init__(self, channels: int, variant: Variant) -> None:
        super().__init__()

        def aware() -> nn.Module:
            if variant == "concatenated":
                return ConcatenatedConvolution(channels)
            return DegradationAwareConvolution(channels, modulation=variant != "unmodulated")

        self.aware1, self.aware2 = aware(), aware()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, compressed: Tensor) -> Tensor:
        """(B, C, H, W) features and (B, 64) to (B, C, H, W)."""
        out = F.leaky_relu(self.aware1(x, compressed), SLOPE)
        out = F.leaky_relu(self.conv1(out), SLOPE)
        out = F.leaky_relu(self.aware2(out, compressed), SLOPE)
        return x + self.conv2(out)


class Group(nn.Module):
    """Blocks, a convolution, and a skip around them."""

    def __init__(self, channels: int, blocks: int, variant: Variant) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, variant) for _ in range(blocks))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, compressed: Tensor) -> Tensor:
        """(B, C, H, W) features and (B, 64) to (B, C, H, W)."""
        out = x
        for block in self.blocks:
            out = block(out, compressed)
        return x + self.conv(out)


@NETWORKS.register
class DASR(LoadsReleased):
    """A blind SR network that first encodes how the LR image was degraded, and adapts to it (DASR, Fig. 2).

    The degradation encoder gives R (256), which is compressed to 64; the SR network has RCAN's structure, with blocks
    whose depth-wise kernels and channel weights are predicted from R. At x4 that is 4.69 M parameters, and 1.28 M more
    in the encoder. The paper takes images in [0, 255] minus their mean colour, and internally so does this network
    (images in [0, 1] are multiplied by 255 on the way in and divided by 255 on the way out). The encoder sees [0, 1];
    BatchNorm makes it independent of the range.

    To super-resolve, call ``net(lr)``. :class:`contrastive_sr.methods.DASR` trains the encoder by contrast; trained
    with a pixel loss alone, this is Model 1 of the paper's Table 1. Checkpoints of the authors' code (``model_600.pt``)
    load into the variant ``"full"`` if no other argument but ``scale`` is given.

    Args:
        scale: 2, 3 or 4.
        variant: which of the models of Table 1. ``"full"``: Models 1 and 4. ``"concatenated"``: Model 2, R stretched
            and concatenated with the features before vanilla 3x3 convolutions. ``"unmodulated"``: Model 3, kernels
            without channel weights. ``"oracle"``: Model 5, R comes from the true blur kernel through 5 fully connected
            layers (widths are ours: 256 each, LeakyReLU 0.1 between) and there is no encoder.
        channels: number of channels of the features. None: 64; with ``"concatenated"`` 55, which gives about the same
            number of parameters, as in the paper.
        groups: how many residual groups.
        blocks: how many degradation-aware blocks each group has.
        kernel_size: side of the true kernel, for ``"oracle"``.

    Raises:
        ConfigError: an argument that makes no sense.

    Example:
        >>> net = DASR(scale=4, channels=8, groups=1, blocks=1)
        >>> lr = torch.rand(2, 3, 12, 12)
        >>> net(lr).shape
        torch.Size([2, 3, 48, 48])
        >>> other = net.encode(torch.rand(2, 3, 12, 12))  # Fig. 4: R from other images of the same degradation
        >>> net(lr, representation=other).shape
        torch.Size([2, 3, 48, 48])
    """

    paper = "DASR"

    def __init__(
        self,
        *,
        scale: int = 4,
        variant: Variant = "full",
        channels: int | None = None,
        groups: int = 5,
        blocks: int = 5,
        kernel_size: int = 21,
    ) -> None:
        super().__init__()
        self.scale = check_scale(scale, "DASR")
        if variant not in get_args(Variant):
            raise ConfigError(f"DASR(variant): expected one of {', '.join(get_args(Variant))}, got {variant!r}.")
        self.variant = variant
        if channels is None:
            channels = 55 if variant == "concatenated" else 64
        check_count(channels, "DASR(channels)")
        check_count(groups, "DASR(groups)")
        check_count(blocks, "DASR(blocks)")
        self.kernel_size = check_count(kernel_size, "DASR(kernel_size)")

        self.encoder: DegradationEncoder | None = None
        self.kernel_layers: nn.Sequential | None = None
        if variant == "oracle":
            self.kernel_layers = _fully_connected(kernel_size**2, DegradationEncoder.dim, layers=5)
        else:
            self.encoder = DegradationEncoder()
        self.colour = ColourMean(gain=255.0)
        self.compress = nn.Sequential(nn.Linear(DegradationEncoder.dim, COMPRESSED, bias=False), nn.LeakyReLU(SLOPE))
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.groups = nn.ModuleList(Group(channels, blocks, variant) for _ in range(groups))
        self.after_groups = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsample = upsampler(channels, scale)

    def from_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """See :meth:`LoadsReleased.from_released`; the file is the authors' ``model_600.pt``, or another epoch's."""
        encoder = released_encoder(state)
        if encoder is None:
            return None
        convolutions = [value for name, value in state.items() if re.match(r"G\.tail\.0\.\d+\.weight", name)]
        scale = math.isqrt(math.prod(weight.shape[0] // weight.shape[1] for weight in convolutions))
        if scale != self.scale:
            raise ConfigError(
                f"DASR(scale): expected a checkpoint for x{self.scale}, got one for x{scale}. Take scale {scale}."
            )
        last = len(self.upsample) - 1
        names = [(pattern, new and new.format(last=last)) for pattern, new in _RELEASED]
        own = renamed(state, names, "DASR as its authors release it")
        # what is a linear layer here is a 1x1 convolution there
        own = {name: value.flatten(1) if ".modulation." in name else value for name, value in own.items()}
        return {**own, **{f"encoder.{name}": value for name, value in encoder.items()}}

    def encode(self, lr: Tensor) -> Tensor:
        """The representation R of the degradation.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].

        Returns:
            (B, 256).

        Raises:
            ConfigError: the variant ``"oracle"`` has no encoder.
            DataError: other shapes.
        """
        if self.encoder is None:
            raise ConfigError(
                "DASR: variant 'oracle' has no encoder; it reads the true kernel: net(lr, kernel=...). In training "
                "put the method `TrueKernel` before all others; to super-resolve by the LR image alone, take 'full'."
            )
        representation: Tensor = self.encoder(lr)
        return representation

    def forward(self, lr: Tensor, representation: Tensor | None = None, kernel: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].
            representation: (B, 256), from :meth:`encode`, of these images or of others. None: of these images.
            kernel: (B, k, k), the true blur kernels, only for the variant ``"oracle"``.

        Returns:
            (B, 3, s h, s w), unclamped.

        Raises:
            DataError: other shapes, or a kernel for a variant that reads none.
            ConfigError: the variant ``"oracle"`` without ``kernel``.
        """
        check_shape(lr, ("B", 3, "h", "w"), "DASR(lr)")
        if kernel is not None:
            representation = self._from_kernel(kernel, lr)
        elif representation is None:
            representation = self.encode(lr)
        check_shape(representation, (lr.shape[0], DegradationEncoder.dim), "DASR(representation)")
        compressed = self.compress(representation)
        first = self.first(self.colour(lr))
        x = first
        for group in self.groups:
            x = group(x, compressed)
        return self.colour.undo(self.upsample(first + self.after_groups(x)))

    def _from_kernel(self, kernel: Tensor, lr: Tensor) -> Tensor:
        if self.kernel_layers is None:
            raise DataError(
                f"DASR(kernel): variant {self.variant!r} encodes the LR image; only 'oracle' reads kernels."
            )
        check_shape(kernel, (lr.shape[0], self.kernel_size, self.kernel_size), "DASR(kernel)")
        representation: Tensor = self.kernel_layers(kernel.flatten(1))
        return representation


def _fully_connected(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(layers - 1):
        parts += [nn.LeakyReLU(SLOPE), nn.Linear(outputs, outputs)]
    return nn.Sequential(*parts)
