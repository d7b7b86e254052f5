"""Half precision in, float32 inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, all others as they are: similarities need the exponent's range.

    At float16 tensors, gradients that would be infinite, as at vectors near zero, are limited to that type's largest
    number.

    Args:
        x: a floating-point tensor of any shape.

    Returns:
        A float32 or float64 tensor of the same shape.

    Example:
        >>> at_least_float32(torch.ones(2, dtype=torch.float16)).dtype
        torch.float32
    """
    if x.dtype == torch.float16:
        widened: Tensor = _FromFloat16.apply(x)
        return widened
    return x.float() if x.dtype == torch.bfloat16 else x


class _FromFloat16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        largest = torch.finfo(torch.float16).max
        return gradient.clamp(-largest, largest).half()
