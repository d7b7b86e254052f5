"""Cria-CL: "Criteria Comparative Learning for Real-scene Image Super-Resolution" (TCSVT 2022), the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_choice, check_count, check_shape
from contrastive_sr.config import build
from contrastive_sr.embeddings import load_weights
from contrastive_sr.embeddings.weights import LoadsReleased, renamed
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks.crl_sr import ResidualBlock
from contrastive_sr.networks.parts import upsampler
from contrastive_sr.networks.registry import NETWORKS

Variant = Literal["paper", "released"]
BLOCKS = 3
MASK_CHANNELS = 64
RELEASED_CHANNELS = 64
RELEASED_SLOPE = 0.2
# The authors' names of the layers of the released network, and ours: the trunk's are those of RRDBNet in both hosts.
_RELEASED = (
    (r"conv_(first|last)\.", r"trunk.conv_\1."),
    (r"RRDB_trunk\.(\d+)\.RDB(\d)\.", r"trunk.body.\1.rdb\2."),
    (r"trunk_conv\.", "trunk.conv_body."),
    (r"upconv(\d)\.", r"trunk.conv_up\1."),
    (r"HRconv\.", "trunk.conv_hr."),
    *(
        (rf"{theirs}\.(\d)\.{part}\.", rf"projector.{ours}.\1.{name}.")
        for theirs, ours in (("branch1", "align"), ("branch2", "uniformity"), ("sm", "mask"))
        for part, name in (("block", "body"), ("conv", "skip"))
    ),
    (r"tail_conv1\.", "projector.align_tail."),
    (r"tail_conv2\.", "projector.uniformity_tail."),
)
# What a network must have so that its features can be taken before its upsampling: a first convolution, a body, and a
# convolution behind it, whose name differs.
FIRST, BODY, AFTER = "conv_first", "body", ("conv_body", "conv_after_body")


class ValueRange(nn.Module):
    """Subtracts a mean colour from images in [0, 1] and multiplies by a gain; :meth:`undo` does the reverse."""

    def __init__(self, mean: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.gain: Tensor
        # Settings of the stock network: as there, not part of the saved state.
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("gain", gain, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) * self.gain

    def undo(self, x: Tensor) -> Tensor:
        """Images in [0, 1], unclamped."""
        return x / self.gain + self.mean


class Trunk(nn.Module):
    """The part of a stock SR network before its upsampling, from an image to feature maps at LR size.

    Its parts have the same names as in the stock network, so that network's weights fit.

    Args:
        net: an SR network with the modules ``conv_first``, ``body``, and ``conv_body`` or ``conv_after_body``. Its
            parts are taken, not copied; its upsampling is left out.

    Raises:
        ConfigError: a network that cannot be split, or that does not take RGB.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.kind = type(net).__name__
        parts = dict(net.named_children())
        first = parts.get(FIRST)
        after = next((name for name in AFTER if name in parts), None)
        if not isinstance(first, nn.Conv2d) or BODY not in parts or after is None:
            raise ConfigError(
                "CriteriaBranches(trunk): expected a network that can be split behind its body, with the modules "
                f"{FIRST}, {BODY}, and {' or '.join(AFTER)}, got {self.kind}. Take one such as RRDBNet, EDSR or RCAN."
            )
        self._parts = (FIRST, BODY, after)
        for name in self._parts:
            self.add_module(name, parts[name])
        # At scales below 4 an RRDBNet works on blocks of 2 x 2 or 4 x 4 pixels, whose colours are its input channels.
        sides = {3 * side**2: side for side in (1, 2, 4)}
        if first.in_channels not in sides:
            raise ConfigError(
                f"CriteriaBranches(trunk): expected a network for RGB images, got a {self.kind} whose first "
                f"convolution has {first.in_channels} channels."
            )
        self.unshuffle = sides[first.in_channels]
        self.channels: int = first.out_channels
        mean, std = (
            torch.as_tensor(getattr(net, name, value)).reshape(1, -1, 1, 1).clone()
            for name, value in (("mean", (0.0, 0.0, 0.0)), ("std", (1.0, 1.0, 1.0)))
        )
        self.range = ValueRange(mean, getattr(net, "img_range", 1.0) / std)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] to (B, C, h / u, w / u), where u is ``unshuffle``."""
        first, body, after = (self.get_submodule(name) for name in self._parts)
        if self.unshuffle > 1 and (lr.shape[-2] % self.unshuffle or lr.shape[-1] % self.unshuffle):
            raise DataError(
                f"CriteriaBranches(lr): expected a height and width that are multiples of {self.unshuffle} with this "
                f"{self.kind}, got {tuple(lr.shape[-2:])}. Pad the images."
            )
        x = first(F.pixel_unshuffle(self.range(lr), self.unshuffle))
        features: Tensor = x + after(body(x))
        return features


class ImageBranch(nn.Module):
    """Makes an image from a trunk's features, with three residual blocks and an upsampling of its own."""

    def __init__(self, trunk: Trunk, factor: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(trunk.channels) for _ in range(BLOCKS)))
        self.upsample = upsampler(trunk.channels, factor)
        self.range = trunk.range

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W) RGB, unclamped."""
        return self.range.undo(self.upsample(self.blocks(features)))


class MaskBranch(nn.Module):
    """Makes two masks from the LR image: three residual blocks, upsampling, and softmax over both."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(3, MASK_CHANNELS, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(MASK_CHANNELS) for _ in range(BLOCKS)))
        self.last = nn.Conv2d(MASK_CHANNELS, 2, 3, padding=1)
        # Both images have the same share at first: otherwise the one that happens to be better would get all of it, and
        # the other would never learn.
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] to (B, 2, H, W) in [0, 1], whose sum is 1 at each pixel."""
        scores = self.last(self.blocks(self.first(lr)))
        enlarged = F.interpolate(scores, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return enlarged.softmax(dim=1)


class ReleasedBlock(nn.Module):
    """conv 3x3 and LeakyReLU, twice, and a 1x1 convolution beside them."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, RELEASED_CHANNELS, 3, padding=1),
            nn.LeakyReLU(RELEASED_SLOPE, inplace=True),
            nn.Conv2d(RELEASED_CHANNELS, RELEASED_CHANNELS, 3, padding=1),
            nn.LeakyReLU(RELEASED_SLOPE, inplace=True),
        )
        self.skip = nn.Conv2d(inputs, RELEASED_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 64, H, W)."""
        out: Tensor = self.body(x) + self.skip(x)
        return out


class ReleasedProjector(nn.Module):
    """Branches and mask of the released network, which read the image that a whole SR network has made."""

    def __init__(self) -> None:
        super().__init__()
        self.align, self.uniformity, self.mask = (
            nn.Sequential(*(ReleasedBlock(inputs) for inputs in (3, *[RELEASED_CHANNELS] * (BLOCKS - 1))))
            for _ in range(3)
        )
        self.align_tail, self.uniformity_tail = (nn.Conv2d(RELEASED_CHANNELS, 3, 3, padding=1) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H, W), unclamped."""
        mask = self.mask(image).softmax(dim=1)
        first: Tensor = self.align_tail(mask * self.align(image))
        return first + self.uniformity_tail((1 - mask) * self.uniformity(image))


@NETWORKS.register
class CriteriaBranches(LoadsReleased):
    r"""Cria-CL's network: two images from one trunk, and masks that join them (Fig. 3, eq. 4 and 10).

    .. math:: I_{SR} = I_{align}\, S + I_{uniformity}\, (1 - S)

    The features after a trunk's body go into two branches of three residual blocks each, which give two images; a third
    branch of three residual blocks reads the LR image and gives the masks S and 1 - S. The rest is ours: blocks without
    BatchNorm as in EDSR; branches as wide as the trunk, upsampled by convolutions and pixel shuffles; masks from 64
    channels, enlarged bilinearly, which are one half everywhere in a new network. With an RRDBNet of 19 blocks there
    are 14.97 M parameters (Table VII: 14.8 M; the whole RRDBNet of 23 blocks: 16.7 M).

    To super-resolve, call ``net(lr)``. :class:`contrastive_sr.methods.CriaCL` trains the network through the outputs of
    its modules ``align``, ``uniformity`` and ``masks`` in the same forward pass.

    The network that the authors released (RealSR-CCL) is a different one, the variant ``"released"``. A whole SR
    network, upsampling and all, makes an image; from this image each branch, and the mask, makes 64 channels with three
    blocks. The mask is a softmax over its channels, and not over two masks. The masked branches, each followed by a
    convolution, are summed: they are not images of their own, so this network is trained by the method's variants 1 to
    5, which judge the SR image. With an RRDBNet of 23 blocks there are 17.29 M parameters, and the authors' checkpoint
    loads.

    Args:
        trunk: the network whose features are taken, such as an RRDBNet, an EDSR or an RCAN: a built network, whose
            parts become this one's, or a mapping such as ``{"type": "RRDBNet", ...}``, by the names and keys of the
            training framework in use.
        scale: the scale of this network, 1 to 4. The trunk's own upsampling is not used; but an RRDBNet made for scale
            1 or 2 works on fewer, larger pixels.
        trunk_weights: a file to take the trunk's weights from: a checkpoint of the stock network, or a plain state
            dict; see :func:`contrastive_sr.embeddings.load_weights`. None: new weights.
        variant: ``"paper"``, or ``"released"``, whose trunk may be any SR network of this scale.

    Raises:
        ConfigError: a trunk that cannot be split, a scale that is not from 1 to 4 or does not fit the trunk, weights
            that are missing or do not fit, or an unknown variant.

    Example:
        >>> from contrastive_sr.networks import CriteriaBranches
        >>> class EDSR(nn.Module):  # a small one
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv_first, self.conv_after_body = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        ...         self.body = nn.Conv2d(8, 8, 3, 1, 1)
        >>> CriteriaBranches(EDSR(), scale=4)(torch.rand(2, 3, 12, 12)).shape
        torch.Size([2, 3, 48, 48])
    """

    paper = "Cria-CL"

    def __init__(
        self,
        trunk: Mapping[str, object] | nn.Module,
        *,
        scale: int = 4,
        trunk_weights: str | Path | None = None,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        self.scale = check_count(scale, "CriteriaBranches(scale)", at_most=4)
        check_choice(variant, get_args(Variant), "CriteriaBranches(variant)")
        self.variant = variant
        kind = trunk.get("type") if isinstance(trunk, Mapping) else None
        if isinstance(kind, str) and kind not in NETWORKS and not NETWORKS.host:
            raise ConfigError(
                f"CriteriaBranches(trunk): {kind} is no network of ours, and no training framework is in use whose "
                "network it could be. Build it, and give the network."
            )
        network = build(NETWORKS, trunk, "CriteriaBranches(trunk)")
        self.trunk = network if variant == "released" else Trunk(network)
        if trunk_weights is not None:
            # a file of the stock network holds its upsampling, too
            partial = variant == "paper"
            load_weights(self.trunk, trunk_weights, partial=partial, key="CriteriaBranches(trunk_weights)")
        self.projector: ReleasedProjector | None = None
        if isinstance(self.trunk, Trunk):
            factor = scale * self.trunk.unshuffle
            if factor > 4:
                own = 4 // self.trunk.unshuffle
                raise ConfigError(
                    f"CriteriaBranches(scale): expected at most {own} with this {self.trunk.kind}, whose own scale is "
                    f"{own}, got {scale}. Give both the same."
                )
            self.align, self.uniformity = ImageBranch(self.trunk, factor), ImageBranch(self.trunk, factor)
            self.masks = MaskBranch(scale)
        else:
            self.projector = ReleasedProjector()

    def from_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """See :meth:`LoadsReleased.from_released`; the file is RealSR-CCL's."""
        if "sm.0.conv.weight" not in state:
            return None
        if self.projector is None:
            raise ConfigError(
                "CriteriaBranches: expected a checkpoint of the network of the paper's text, got that of RealSR-CCL, "
                "the network that the authors released. Take variant 'released', and an RRDBNet of 23 blocks as trunk."
            )
        return renamed(state, _RELEASED, "RealSR-CCL")

    def forward(self, lr: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].

        Returns:
            (B, 3, s h, s w), unclamped.

        Raises:
            DataError: other shapes, or, with variant ``"released"``, a trunk of another scale.
        """
        check_shape(lr, ("B", 3, "h", "w"), "CriteriaBranches(lr)")
        features = self.trunk(lr)
        if self.projector is not None:
            size = tuple(self.scale * side for side in lr.shape[-2:])
            check_shape(features, (lr.shape[0], 3, *size), "CriteriaBranches(trunk): the image of the trunk")
            image: Tensor = self.projector(features)
            return image
        masks: Tensor = self.masks(lr)
        sr: Tensor = self.align(features) * masks[:, :1] + self.uniformity(features) * masks[:, 1:]
        return sr
