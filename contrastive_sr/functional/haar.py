"""The Haar wavelet transform whose high bands feed PCL-SR's embedding network."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import check_shape
from contrastive_sr.errors import DataError


def haar_high_bands(x: Tensor) -> Tensor:
    r"""The three high bands of the orthonormal 2-D Haar transform (PCL-SR, section III-C).

    With a 2x2 block :math:`\begin{smallmatrix}a&b\\c&d\end{smallmatrix}`:
    :math:`LH=(a+b-c-d)/2`, :math:`HL=(a-b+c-d)/2`, :math:`HH=(a-b-c+d)/2`. LH is low-pass along the width
    and high-pass along the height. The low band is left out, so constants map to zero.

    Args:
        x: (B, C, H, W) images of any value range, H and W even.

    Returns:
        (B, 3C, H/2, W/2): LH of all channels, then HL, then HH.

    Raises:
        DataError: not a floating (B, C, H, W) tensor, or H or W odd.

    Example:
        >>> haar_high_bands(torch.ones(1, 3, 8, 8)).abs().max()
        tensor(0.)
    """
    check_shape(x, ("B", "C", "H", "W"), "haar_high_bands(x)")
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise DataError(
            f"haar_high_bands(x): expected even H and W, got {height} x {width}. "
            "Crop the image, or choose a patch size that is a multiple of 2."
        )
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    lh = high[..., 0::2] + high[..., 1::2]
    hl = low[..., 0::2] - low[..., 1::2]
    hh = high[..., 0::2] - high[..., 1::2]
    return torch.cat((lh, hl, hh), dim=1) / 2
