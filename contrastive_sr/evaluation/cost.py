"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from contrastive_sr._checks import check_count, describe_error
from contrastive_sr.errors import ConfigError


class Cost(NamedTuple):
    """What :func:`cost` returns.

    Attributes:
        parameters: trained numbers.
        multiply_adds: multiplications, each with its addition, of convolutions and matrix products for one LR image.
            Half of what is often called FLOPs.
    """

    parameters: int
    multiply_adds: int


def cost(net: nn.Module, height: int, width: int) -> Cost:
    """Count parameters and multiply-adds of an SR network.

    The network runs on tensors without data, so that nothing is computed. What is neither convolution nor matrix
    product (activations, sums, pooling, interpolation) is not counted, as in the papers' tables.

    Args:
        net: the network, called as ``sr = net(lr)``. It is not changed.
        height: of the LR image, in pixels.
        width: of the LR image, in pixels.

    Raises:
        ConfigError: a size that makes no sense, or a network that does not take such an image.

    Example:
        >>> cost(nn.Conv2d(3, 8, 3, padding=1), 10, 20)
        Cost(parameters=224, multiply_adds=43200)
    """
    check_count(height, "cost(height)")
    check_count(width, "cost(width)")
    # Without data a copy needs no memory for weights, and multiply-adds take no time.
    empty = copy.deepcopy(net).to("meta").eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            empty(torch.empty(1, 3, height, width, device="meta"))
    except Exception as error:  # what a host's network raises on a size it does not take has no common base
        raise ConfigError(
            f"cost: {type(net).__name__} cannot be counted on an LR image of {height} x {width} "
            f"({describe_error(error)}). Try another size."
        ) from error
    return Cost(sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2)
