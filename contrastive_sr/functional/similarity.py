"""Similarities between feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import at_least_float32, check_shape


def inverse_norm(x: Tensor, dim: int) -> Tensor:
    """``1 / max(|x|, eps)`` along one dimension, with eps from the dtype.

    The square is clamped before the root, so that a zero vector has a zero gradient and not NaN.
    """
    return x.square().sum(dim).clamp_min(torch.finfo(x.dtype).eps ** 2).rsqrt()


def pixel_cosine_similarity(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean over positions of the cosine between the channel vectors (PCL-SR eq. 9).

    .. math:: s(x, y) = \frac{1}{HW} \sum_{h,w} \frac{x_{hw} \cdot y_{hw}}{\|x_{hw}\| \|y_{hw}\|}

    A position where either vector is shorter than the dtype's machine epsilon counts as (nearly) zero.
    Half precision is computed in float32. Differentiable twice.

    Args:
        x: (B, C, H, W) feature maps.
        y: (B, C, H, W) feature maps.

    Returns:
        (B,) similarities in [-1, 1].

    Raises:
        DataError: not floating (B, C, H, W) tensors of one shape.

    Example:
        >>> pixel_cosine_similarity(torch.ones(2, 4, 8, 8), -torch.ones(2, 4, 8, 8))
        tensor([-1., -1.])
    """
    check_shape(x, ("B", "C", "H", "W"), "pixel_cosine_similarity(x)")
    check_shape(y, x.shape, "pixel_cosine_similarity(y)")
    x, y = at_least_float32(x), at_least_float32(y)
    cosine = (x * y).sum(1) * inverse_norm(x, 1) * inverse_norm(y, 1)
    return cosine.mean((1, 2))
