"""Networks that take images of some sizes alone, such as those that attend in windows, on images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST = 16


def fit_sizes(net: nn.Module, scale: int) -> Callable[[Tensor], Tensor]:
    """Let an SR network take images of any size.

    On small images it is tried which multiple its sides have to be of, up to 64. If that is more than 1, images are
    padded at the right and bottom, by what is mirrored there, and their SR images are cropped.

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
    like = next(net.parameters(), torch.empty(()))
    for multiple in _MULTIPLES:
        side = multiple * (-(-_SMALLEST // multiple) | 1)  # an odd number of times, so of no larger multiple
        if _takes(net, like.new_full((1, 3, side, side + 2 * multiple), 0.5), scale):
            return net if multiple == 1 else _Padded(net, multiple, scale)
    return net


def _takes(net: nn.Module, lr: Tensor, scale: int) -> bool:
    try:
        with torch.inference_mode():
            sr = net(lr)
    except Exception:  # what networks raise has no common base
        return False
    return isinstance(sr, Tensor) and sr.shape[-2:] == (scale * lr.shape[-2], scale * lr.shape[-1])


class _Padded:
    """A network for images of any size; see :func:`fit_sizes`."""

    def __init__(self, net: nn.Module, multiple: int, scale: int) -> None:
        self.net, self.multiple, self.scale = net, multiple, scale

    def __call__(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        below, right = (-side % self.multiple for side in (height, width))
        mode = "reflect" if below < height and right < width else "replicate"
        sr: Tensor = self.net(F.pad(lr, (0, right, 0, below), mode=mode))
        return sr[..., : height * self.scale, : width * self.scale]
