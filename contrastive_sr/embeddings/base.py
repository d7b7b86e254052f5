"""What every embedding network offers, and how to use one without training it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from contrastive_sr._checks import describe
from contrastive_sr.config import Registry
from contrastive_sr.errors import ConfigError, DataError

_TRIAL_SIZE = 64


class Embedding(nn.Module):
    """Turns images into feature maps of several layers.

    Attributes:
        minimum_size: least height and width of an image, in pixels.
        multiple_of: height and width of an image must be multiples of this number.

    Example:
        >>> class Colours(Embedding):
        ...     def forward(self, images):
        ...         return [images, images.mean((2, 3))]
        >>> Colours().channels()
        [3, 3]
    """

    minimum_size: int = 1
    multiple_of: int = 1

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps of each layer.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            One (B, C_l, H_l, W_l) for each layer.
        """
        raise NotImplementedError

    def bands(self, images: Tensor) -> dict[str, Tensor]:
        """What the first layer sees of images, for a person to look at.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 3, h, w) in [-1, 1] by name, where 0 means nothing is there; empty if the layer sees the images
            themselves.
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
                f"got {height} x {width}. Raise the patch size."
            )
        if height % self.multiple_of or width % self.multiple_of:
            raise DataError(
                f"{name}: expected an HR height and width that are multiples of {self.multiple_of}, "
                f"got {height} x {width}. Choose another patch size."
            )

    def channels(self) -> list[int]:
        """How many channels each layer's feature map has, from a run on a small black image.

        Returns:
            C_l of each layer.

        Raises:
            ConfigError: :meth:`forward` returns no list of maps or vectors.
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


EMBEDDINGS = Registry(Embedding, "embedding")
register_embedding = EMBEDDINGS.register


class TrainableEmbedding(Embedding):
    """An embedding that learns to tell HR from SR images, as a discriminator does.

    Attributes:
        vector_size: D of :meth:`vectors`.
        head: the last part, which makes logits; neither :meth:`forward` nor :meth:`vectors` uses it.
    """

    vector_size: int
    head: nn.Module

    def vectors(self, images: Tensor) -> Tensor:
        """One vector for each image, from the last layer.

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
            (B, K), K logits for each image.
        """
        raise NotImplementedError


@contextmanager
def training_mode(module: nn.Module, mode: bool) -> Iterator[None]:
    """Set ``module.training``, on which BatchNorm depends, for a block of code.

    Args:
        module: the network; afterwards each part of it has the mode that it had before.
        mode: True for training, False for evaluation.
    """
    before = [(part, part.training) for part in module.modules()]  # a part may have a mode of its own
    module.train(mode)
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


class KeepsWeights(nn.Module):
    """A part that in eval mode computes the weights it works with from its parameters and statistics."""

    _keeps = False
    _kept: tuple[Tensor, Tensor] | None = None

    def computed_weights(self) -> tuple[Tensor, Tensor]:
        """Weight and bias."""
        raise NotImplementedError

    def weights(self) -> tuple[Tensor, Tensor]:
        """:meth:`computed_weights`; within :func:`frozen` they are computed once."""
        if not self._keeps:
            return self.computed_weights()
        if self._kept is None:
            self._kept = self.computed_weights()
        return self._kept


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Use a network as a fixed function: eval mode, no gradient at its parameters, BatchNorm's statistics unchanged.

    Weights that are computed, by a parametrization such as spectral normalisation or from BatchNorm's statistics, are
    computed once for the whole block of code.

    Args:
        module: the network; afterwards it is as it was before.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    # what a block around this one has frozen, stays as it is to the end of that
    keepers = [part for part in module.modules() if isinstance(part, KeepsWeights) and not part._keeps]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for part in keepers:
        part._keeps = True
    try:
        with training_mode(module, False), parametrize.cached():
            yield
    finally:
        for part in keepers:
            part._keeps, part._kept = False, None
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_out_indices(out_indices: object, layers: int, name: str) -> tuple[int, ...]:
    """Require one or more different indices of layers, and return them from the first layer to the last.

    Args:
        out_indices: the value to check.
        layers: how many layers there are.
        name: the argument's name, for the message.

    Raises:
        ConfigError: not a list of whole numbers, an empty list, or an index that is out of range or occurs twice.
    """
    indices = list(out_indices) if isinstance(out_indices, Sequence) else []
    whole = all(isinstance(index, int) and not isinstance(index, bool) and 0 <= index < layers for index in indices)
    if not indices or not whole or len(set(indices)) < len(indices):
        raise ConfigError(
            f"{name}: expected a list of different whole numbers from 0 to {layers - 1}, such as [0, 1], got "
            f"{describe(out_indices)}."
        )
    return tuple(sorted(indices))
