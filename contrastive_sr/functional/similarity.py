"""Similarities between feature maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_shape
from contrastive_sr.functional.precision import at_least_float32


def inverse_norm(x: Tensor, dim: int) -> Tensor:
    """``1 / |x|`` along one dimension; 0, with a zero gradient, for vectors not longer than the dtype's epsilon."""
    return invert_norm((x * x).sum(dim).clamp_min(torch.finfo(x.dtype).eps ** 2).sqrt())


def invert_norm(norm: Tensor) -> Tensor:
    """``1 / norm``, and 0 where the norm is not above the dtype's epsilon: such a vector has no direction.

    It is also 0 where a square overflowed, so that the norm is infinite.
    """
    return F.threshold(norm, torch.finfo(norm.dtype).eps, math.inf).reciprocal()


def unit_vectors(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; 0 where the dtype's epsilon or a square's overflow is reached."""
    return x * inverse_norm(x, -1)[..., None]


def pixel_cosine_similarity(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean over positions of the cosine between the channel vectors (PCL-SR eq. 9).

    .. math:: s(x, y) = \frac{1}{HW} \sum_{h,w} \frac{x_{hw} \cdot y_{hw}}{\|x_{hw}\| \|y_{hw}\|}

    Where either vector is not longer than the machine epsilon, or so long that its square overflows (in float32 from
    1e19 on), the cosine is 0 and has no gradient.
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
    # With x as unit vectors the dot products cannot overflow.
    cosine = (x * inverse_norm(x, 1)[:, None] * y).sum(1) * inverse_norm(y, 1)
    return cosine.mean((1, 2))
