"""Cria-CL: "Criteria Comparative Learning for Real-scene Image Super-Resolution" (TCSVT 2022), the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.config import build
from contrastive_sr.embeddings.weights import load_state_dict, read_network
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks.crl_sr import ResidualBlock
from contrastive_sr.networks.parts import upsampler
from contrastive_sr.networks.registry import NETWORKS

BLOCKS = 3
MASK_CHANNELS = 64
# Networks whose features can be had without their upsampling: first convolution, body, convolution behind it. Both
# hosts have an RRDBNet, and name its parts alike.
TRUNKS = {
    "RRDBNet": ("conv_first", "body", "conv_body"),
    "EDSR": ("conv_first", "body", "conv_after_body"),
    "EDSRNet": ("conv_first", "body", "conv_after_body"),
    "RCAN": ("conv_first", "body", "conv_after_body"),
}


class ValueRange(nn.Module):
    """From images in [0, 1] to what a trunk works on, less a mean colour and times a gain; :meth:`undo`: back."""

    def __init__(self, mean: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.gain: Tensor
        # Settings of the stock network: no part of the saved state, there as here.
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("gain", gain, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) * self.gain

    def undo(self, x: Tensor) -> Tensor:
        """Images in [0, 1], unclamped."""
        return x / self.gain + self.mean


class Trunk(nn.Module):
    """What a stock SR network has before its upsampling: an image to feature maps at LR size.

    Its parts have the names that they have in the stock network, and so its weights fit.

    Args:
        net: an SR network, one of ``TRUNKS``. Its parts are taken, not copied; its upsampling is left out.

    Raises:
        ConfigError: a network that cannot be split, or that does not take RGB.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        kind = type(net).__name__
        found = {name: getattr(net, name, None) for name in TRUNKS.get(kind, ())}
        if not found or not all(isinstance(part, nn.Module) for part in found.values()):
            raise ConfigError(
                f"CriteriaBranches(trunk): expected a network that can be split behind its body, one of "
                f"{', '.join(TRUNKS)} of BasicSR or MMagic, got {kind}. Take one of these."
            )
        self._parts = tuple(found)
        for name, part in found.items():
            self.add_module(name, part)
        # Below a scale of 4 RRDBNet works on several pixels at once.
        scale = getattr(net, "scale", getattr(net, "upscale_factor", 4))
        self.unshuffle = 4 // scale if kind == "RRDBNet" and scale in (1, 2) else 1
        first = self.get_submodule(self._parts[0])
        assert isinstance(first, nn.Conv2d)
        if first.in_channels != 3 * self.unshuffle**2:
            raise ConfigError(
                f"CriteriaBranches(trunk): expected a network for RGB images, got a {kind} whose first convolution has "
                f"{first.in_channels} channels."
            )
        self.channels: int = first.out_channels
        mean, std = getattr(net, "mean", torch.zeros(1, 3, 1, 1)), getattr(net, "std", torch.ones(1, 3, 1, 1))
        assert isinstance(mean, Tensor)
        assert isinstance(std, Tensor)
        self.range = ValueRange(mean.clone(), getattr(net, "img_range", 1.0) / std)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] to (B, C, h, w); with ``unshuffle`` the maps are smaller by it."""
        first, body, after = (self.get_submodule(name) for name in self._parts)
        if self.unshuffle > 1 and (lr.shape[-2] % self.unshuffle or lr.shape[-1] % self.unshuffle):
            raise DataError(
                f"CriteriaBranches(lr): expected a height and width that are multiples of {self.unshuffle} with this "
                f"RRDBNet, got {tuple(lr.shape[-2:])}. Pad the images."
            )
        x = first(F.pixel_unshuffle(self.range(lr), self.unshuffle))
        features: Tensor = x + after(body(x))
        return features


class ImageBranch(nn.Module):
    """Three residual blocks and an upsampling of its own, from a trunk's features to an image."""

    def __init__(self, trunk: Trunk, factor: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(trunk.channels) for _ in range(BLOCKS)))
        self.upsample = upsampler(trunk.channels, factor)
        self.range = trunk.range

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W) RGB, unclamped."""
        return self.range.undo(self.upsample(self.blocks(features)))


class MaskBranch(nn.Module):
    """Three residual blocks on the LR image, upsampling, and softmax over the two masks."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(3, MASK_CHANNELS, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(MASK_CHANNELS) for _ in range(BLOCKS)))
        self.last = nn.Conv2d(MASK_CHANNELS, 2, 3, padding=1)
        # Both images count alike at first: else the one that happens to be better gets all, and the other never learns.
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] to (B, 2, H, W) in [0, 1], 1 in sum at each pixel."""
        scores = self.last(self.blocks(self.first(lr)))
        enlarged = F.interpolate(scores, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return enlarged.softmax(dim=1)


class CriteriaBranches(nn.Module):
    r"""Cria-CL's network: two images from one trunk, and masks that put them together (Fig. 3, eq. 4 and 10).

    .. math:: I_{SR} = I_{align}\, S + I_{unif}\, (1 - S)

    The features behind a trunk's body go into two branches of three residual blocks each, which give two images; a
    third branch of three residual blocks reads the LR image and gives the masks S and 1 - S. The rest is ours: blocks
    without BatchNorm as in EDSR, branches as wide as the trunk, upsampled by convolutions and pixel shuffles, and masks
    from 64 channels, enlarged bilinearly, which are one half everywhere in a new network. With an RRDBNet of 19 blocks
    there are 14.97 M parameters (Table VII: 14.8 M; the whole RRDBNet of 23 blocks: 16.7 M).

    ``net(lr)`` is all that testing needs. The modules ``align``, ``unif`` and ``masks`` give what
    :class:`contrastive_sr.methods.CriaCL` trains by, in the same forward pass.

    Args:
        trunk: the network whose features are taken: a mapping such as ``{"type": "RRDBNet", ...}``, by the names and
            keys of the host in use, or a built network, whose parts become this one's. RRDBNet, EDSR and RCAN of
            BasicSR; RRDBNet and EDSRNet of MMagic, and RCAN there.
        scale: of this network, 1 to 4. The trunk's own upsampling is not used; but an RRDBNet made for scale 1 or 2
            works on fewer, wider pixels.
        trunk_weights: a checkpoint of the stock network, of either host, to take the trunk's weights from; averaged
            ones where there are such. None: none.

    Raises:
        ConfigError: a trunk that cannot be split, another scale, or weights that are missing or do not fit.

    Example:
        >>> from contrastive_sr.networks import CriteriaBranches
        >>> class EDSR(nn.Module):  # stands for a host's own
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv_first, self.conv_after_body = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        ...         self.body = nn.Conv2d(8, 8, 3, 1, 1)
        >>> CriteriaBranches(EDSR(), scale=4)(torch.rand(2, 3, 12, 12)).shape
        torch.Size([2, 3, 48, 48])
    """

    def __init__(
        self, trunk: Mapping[str, object] | nn.Module, scale: int = 4, trunk_weights: str | Path | None = None
    ) -> None:
        super().__init__()
        self.scale = check_count(scale, "CriteriaBranches(scale)", at_most=4)
        if isinstance(trunk, Mapping) and str(trunk.get("type")) in TRUNKS and not NETWORKS.host:
            raise ConfigError(
                f"CriteriaBranches(trunk): {trunk['type']} is a network of BasicSR or MMagic, and neither is in use. "
                "Build it, and give the network."
            )
        self.trunk = Trunk(build(nn.Module, NETWORKS, trunk, "CriteriaBranches(trunk)"))
        factor = scale * self.trunk.unshuffle
        if factor > 4:
            raise ConfigError(
                f"CriteriaBranches(scale): expected at most {4 // self.trunk.unshuffle} with this RRDBNet, whose own "
                f"scale is {4 // self.trunk.unshuffle}, got {scale}. Give both the same."
            )
        if trunk_weights is not None:
            key = "CriteriaBranches(trunk_weights)"
            load_state_dict(self.trunk, read_network(trunk_weights, key), str(trunk_weights), partial=True, key=key)
        self.align, self.unif = ImageBranch(self.trunk, factor), ImageBranch(self.trunk, factor)
        self.masks = MaskBranch(scale)

    def forward(self, lr: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w) RGB in [0, 1].

        Returns:
            (B, 3, s h, s w), unclamped.

        Raises:
            DataError: other shapes.
        """
        check_shape(lr, ("B", 3, "h", "w"), "CriteriaBranches(lr)")
        features = self.trunk(lr)
        masks: Tensor = self.masks(lr)
        sr: Tensor = self.align(features) * masks[:, :1] + self.unif(features) * masks[:, 1:]
        return sr
