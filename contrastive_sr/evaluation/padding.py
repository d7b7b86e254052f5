"""Networks that take images of some sizes alone, such as those that attend in windows, on images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""What sides may have to be multiples of."""
_SMALLEST = 16


class Sizes(NamedTuple):
    """Which images a network takes.

    Attributes:
        multiple: sides have to be multiples of it.
        least: a side that is long enough, one of these multiples.
    """

    multiple: int
    least: int

    def padded(self, lr: Tensor) -> Tensor:
        """An image that the network takes: mirrored beyond the right and bottom edge or, where too little of it is
        there for that, with the edge repeated.

        Args:
            lr: (B, C, h, w).
        """
        height, width = lr.shape[-2:]
        below, right = (max(self.least, side + -side % self.multiple) - side for side in (height, width))
        if not below and not right:
            return lr
        return F.pad(lr, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")


def needed_sizes(net: Callable[[Tensor], Tensor], like: Tensor, scale: int) -> Sizes | None:
    """Find by trying on small images which sizes a network takes.

    Args:
        net: (B, 3, h, w) to (B, 3, scale h, scale w), in evaluation mode.
        like: a tensor of the dtype and on the device that it takes.
        scale: how many times larger the output is.

    Returns:
        None if it takes none of those that were tried.
    """

    def takes(height: int, width: int) -> bool:
        return _takes(net, like.new_full((1, 3, height, width), 0.5), scale)

    for multiple in MULTIPLES:
        side = multiple * (-(-_SMALLEST // multiple) | 1)  # an odd number of times, so of no larger multiple
        if takes(side, side + 2 * multiple):
            doubled = (multiple << times for times in range(side.bit_length()))
            least = next((length for length in doubled if length < side and takes(length, length)), side)
            return Sizes(multiple, least)
    return None


def fit_sizes(net: nn.Module, scale: int) -> Callable[[Tensor], Tensor]:
    """Let an SR network take images of any size.

    On small images it is tried which multiple its sides have to be of, up to 64, and how long they have to be. Images
    that do not fit are padded at the right and bottom, by what is mirrored there, and their SR images are cropped.

    Args:
        net: (B, 3, h, w) to (B, 3, scale h, scale w), in evaluation mode.
        scale: how many times larger the output is.

    Returns:
        What to call in the network's place. The network itself, if it takes any size, or none of those that were tried.

    Example:
        >>> net = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 48, 1), nn.PixelShuffle(4))
        >>> fit_sizes(net, 2)(torch.rand(1, 3, 5, 8)).shape
        torch.Size([1, 3, 10, 16])
    """
    sizes = needed_sizes(net, next(net.parameters(), torch.empty(())), scale)
    return net if sizes in (None, (1, 1)) else _Padded(net, sizes, scale)


@contextmanager
def any_size(net: nn.Module, sizes: Sizes | None, scale: int) -> Iterator[None]:
    """Let an SR network take images of any size in a block of code, whoever calls it there.

    Args:
        net: called with the LR images first.
        sizes: see :func:`needed_sizes`; None: as it is.
        scale: how many times larger the output is.

    Example:
        >>> net = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 48, 1), nn.PixelShuffle(4))
        >>> with any_size(net, Sizes(2, 2), 2):
        ...     net(torch.rand(1, 3, 5, 8)).shape
        torch.Size([1, 3, 10, 16])
    """
    if sizes is None:
        yield
        return
    asked: list[torch.Size] = []

    def pad(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        asked.append(arguments[0].shape)
        return (sizes.padded(arguments[0]), *arguments[1:])

    def crop(module: nn.Module, arguments: tuple[Any, ...], sr: Tensor) -> Tensor:
        return _cropped(sr, asked.pop(), scale)

    handles = net.register_forward_pre_hook(pad), net.register_forward_hook(crop)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _takes(net: Callable[[Tensor], Tensor], lr: Tensor, scale: int) -> bool:
    try:
        with torch.inference_mode():
            sr = net(lr)
    except Exception:  # what networks raise has no common base
        return False
    return isinstance(sr, Tensor) and sr.shape[-2:] == (scale * lr.shape[-2], scale * lr.shape[-1])


def _cropped(sr: Tensor, shape: torch.Size, scale: int) -> Tensor:
    return sr[..., : shape[-2] * scale, : shape[-1] * scale]


class _Padded:
    """A network for images of any size; see :func:`fit_sizes`."""

    def __init__(self, net: nn.Module, sizes: Sizes, scale: int) -> None:
        self.net, self.sizes, self.scale = net, sizes, scale

    def __call__(self, lr: Tensor) -> Tensor:
        return _cropped(self.net(self.sizes.padded(lr)), lr.shape, self.scale)
