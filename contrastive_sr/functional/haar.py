"""The Haar wavelet transform whose high bands feed PCL-SR's embedding network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_shape
from contrastive_sr.errors import DataError


def haar_high_bands(x: Tensor, *, decimated: bool = True) -> Tensor:
    r"""The three high bands of the orthonormal 2-D Haar transform (PCL-SR, section III-C), or of the undecimated one.

    With a 2x2 block :math:`\begin{smallmatrix}a&b\\c&d\end{smallmatrix}`:
    :math:`LH=(a+b-c-d)/2`, :math:`HL=(a-b+c-d)/2`, :math:`HH=(a-b-c+d)/2`. LH is low-pass along the width
    and high-pass along the height. The low band is left out, so constants map to zero.

    The paper's blocks lie side by side. With ``decimated=False`` there is a block at every pixel, so that all phases of
    a pattern are seen; blocks at the right and bottom edge repeat the last column and row.

    Args:
        x: (B, C, H, W) images of any value range, H and W even if decimated.
        decimated: whether blocks lie side by side.

    Returns:
        (B, 3C, H/2, W/2), or (B, 3C, H, W) if not decimated: LH of all channels, then HL, then HH.

    Raises:
        DataError: not a floating (B, C, H, W) tensor, or H or W odd where they must be even.

    Example:
        >>> haar_high_bands(torch.ones(1, 3, 8, 8)).abs().max()
        tensor(0.)
    """
    check_shape(x, ("B", "C", "H", "W"), "haar_high_bands(x)")
    height, width = x.shape[-2:]
    if not decimated:
        x = F.pad(x, (0, 1, 0, 1), mode="replicate")
        return _bands(x[..., :-1, :] + x[..., 1:, :], x[..., :-1, :] - x[..., 1:, :], 1)
    if height % 2 or width % 2:
        raise DataError(
            f"haar_high_bands(x): expected even H and W, got {height} x {width}. "
            "Crop the image, or choose a patch size that is a multiple of 2."
        )
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    return _bands(top + bottom, top - bottom, 2)


def _bands(low: Tensor, high: Tensor, step: int) -> Tensor:
    """LH, HL and HH of sums and differences of rows; neighbours are joined at every ``step``-th column."""
    end = None if step == 2 else -1
    lh = high[..., 0:end:step] + high[..., 1::step]
    hl = low[..., 0:end:step] - low[..., 1::step]
    hh = high[..., 0:end:step] - high[..., 1::step]
    return torch.cat((lh, hl, hh), dim=1) / 2
