"""What every embedding network offers, and how it is used without being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from contrastive_sr._checks import describe
from contrastive_sr.errors import ConfigError, DataError

_TRIAL_SIZE = 64


class Embedding(nn.Module):
    """Turns images into feature maps of several layers.

    Attributes:
        minimum_size: least height and width of an image, in pixels.
        multiple_of: height and width must be multiples of it.
    """

    minimum_size: int = 1
    multiple_of: int = 1

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, one a layer.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            A list of (B, C_l, H_l, W_l).
        """
        raise NotImplementedError

    def bands(self, images: Tensor) -> dict[str, Tensor]:
        """What the first layer sees of images, for a person to look at.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            By name (B, 3, h, w) in [-1, 1], with 0 for nothing; none if the layer sees the images themselves.
        """
        return {}

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image size that this embedding cannot take.

        Raises:
            DataError: too small, or not a multiple of ``multiple_of``.
        """
        name = type(self).__name__
        if min(height, width) < self.minimum_size:
            raise DataError(
                f"{name}: expected HR patches of at least {self.minimum_size} x {self.minimum_size} pixels, "
                f"got {height} x {width}. Raise the patch size (gt_size, gt_patch_size)."
            )
        if height % self.multiple_of or width % self.multiple_of:
            raise DataError(
                f"{name}: expected an HR height and width that are multiples of {self.multiple_of}, "
                f"got {height} x {width}. Choose another patch size (gt_size, gt_patch_size)."
            )

    def channels(self) -> list[int]:
        """How many channels each layer's feature map has, found by a run on a small black image.

        Raises:
            ConfigError: what :meth:`forward` returns is no list of maps or vectors.
        """
        size = -(-max(self.minimum_size, _TRIAL_SIZE) // self.multiple_of) * self.multiple_of
        like = next(self.parameters(), torch.empty(()))
        with torch.no_grad(), training_mode(self, False):
            layers = self(like.new_zeros(1, 3, size, size))
        if isinstance(layers, Tensor) or not all(isinstance(x, Tensor) and x.ndim in (2, 4) for x in layers):
            raise ConfigError(
                f"{type(self).__name__}: expected a list of feature maps (B, C, H, W) or vectors (B, C) from "
                f"forward(), got {describe(layers)}. A single tensor needs a list around it."
            )
        return [features.shape[1] for features in layers]


class TrainableEmbedding(Embedding):
    """An embedding that learns to tell HR from SR images, as a discriminator does.

    Attributes:
        vector_size: D of :meth:`vectors`.
        head: takes what is behind the vectors to logits; no other output depends on it.
    """

    vector_size: int
    head: nn.Module

    def vectors(self, images: Tensor) -> Tensor:
        """One vector an image, from the last layer.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, D).
        """
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        """Real-or-fake logits.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, K): K logits an image.
        """
        raise NotImplementedError


@contextmanager
def training_mode(module: nn.Module, mode: bool) -> Iterator[None]:
    """Set ``module.training`` (and so BatchNorm's behaviour) for a block of code."""
    before = [(part, part.training) for part in module.modules()]  # a part may have a mode of its own
    module.train(mode)
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Use a network as a fixed function: eval mode, no gradient at its parameters, statistics unmoved.

    Weights under a parametrization, such as spectral normalisation, are computed once for the whole block of code.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with training_mode(module, False), parametrize.cached():
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
