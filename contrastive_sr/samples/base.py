"""What every sample generator offers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_count
from contrastive_sr.config import Registry

Batch = Mapping[str, Tensor]


class SampleGenerator:
    """Makes ``count`` images for each HR image, on the device of the batch.

    A generator that has a state is an ``nn.Module`` too: methods save its state with their own.

    Args:
        count: how many images to make for each image of the batch.

    Raises:
        ConfigError: not a whole number of at least 1.

    Example:
        >>> class Dimmed(SampleGenerator):
        ...     def __call__(self, batch, generator=None):
        ...         return (0.5 * batch["hr"])[:, None]
        >>> Dimmed()({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    def __init__(self, *, count: int = 1) -> None:
        self.count = check_count(count, f"{type(self).__name__}(count)")

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Draw the samples.

        Args:
            batch: ``"hr"`` (B, C, H, W) and, for some generators, ``"lr"``, in [0, 1].
            generator: source of randomness, on the batch's device; None: torch's default generator.

        Returns:
            (B, count, C, H, W) images in [0, 1].
        """
        raise NotImplementedError

    def attach(self, net: nn.Module) -> None:
        """Make what depends on the SR network in training; called once, before optimizers are made. Most do nothing.

        Args:
            net: the network, without a wrapper for several processes.

        Raises:
            ConfigError: the network does not fit.
        """

    def follow(self, net: nn.Module, step: int) -> None:
        """See the SR network at the beginning of a training step. Most generators ignore it.

        Args:
            net: the network, without a wrapper for several processes.
            step: how many SR steps were done before this one.
        """


SAMPLES = Registry(SampleGenerator, "samples")
register_samples = SAMPLES.register


def uniform(low: float, high: float, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers drawn uniformly from [low, high), in the dtype of ``like`` and on its device."""
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype) * (high - low) + low


def grey_ones(images: Tensor) -> Tensor:
    """Which of (B, C, H, W) images are grey, as (B, 1, 1, 1, 1): their changes must not be told by colour alone."""
    return (images == images[:, :1]).flatten(1).all(1)[:, None, None, None, None]


def mirror(x: Tensor, pad: int) -> Tensor:
    """Mirror the edges of (B, C, H, W) images by ``pad`` pixels."""
    return F.pad(x, (pad, pad, pad, pad), mode="reflect")


def depthwise(padded: Tensor, kernels: Tensor, size: torch.Size) -> Tensor:
    """Filter all channels of image b with kernel b, in one convolution call for the whole batch.

    Args:
        padded: (B, C, H + k - 1, W + k - 1), mirrored by half the kernel.
        kernels: (B, k, k), k odd.
        size: (H, W).

    Returns:
        (B, C, H, W).
    """
    batch, channels = padded.shape[:2]
    weight = kernels[:, None, None].expand(-1, channels, -1, -1, -1).flatten(0, 1)
    return F.conv2d(padded.flatten(0, 1)[None], weight, groups=batch * channels).view(batch, channels, *size)
