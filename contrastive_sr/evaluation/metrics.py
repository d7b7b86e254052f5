"""PSNR and SSIM on the Y channel, as super-resolution papers report them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import DataError


def luma(image: UInt8Image) -> npt.NDArray[np.float64]:
    r"""Y of BT.601 YCbCr, in studio range and not rounded, as MATLAB's `rgb2ycbcr` computes it.

    :math:`Y = 16 + 65.481 R + 128.553 G + 24.966 B`, for R, G, B in [0, 1].

    Args:
        image: RGB, (H, W, 3), uint8.

    Returns:
        (H, W), from 16 to 235.

    Raises:
        DataError: shape or dtype is another.

    Example:
        >>> float(luma(np.full((1, 1, 3), 255, dtype=np.uint8))[0, 0])
        235.0
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"Expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")
    return 16.0 + image.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def _cropped_pair(
    sr: UInt8Image, hr: UInt8Image, border: int, smallest: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if sr.shape != hr.shape:
        raise DataError(f"Expected two images of one shape, got {sr.shape} and {hr.shape}.")
    if border < 0 or min(sr.shape[:2]) < 2 * border + smallest:
        raise DataError(
            f"Expected images that keep at least {smallest} px a side without their border of {border} px, got "
            f"{sr.shape}. Try a smaller border."
        )
    inside = slice(border, -border) if border else slice(None)
    return luma(sr)[inside, inside], luma(hr)[inside, inside]


def psnr_y(sr: UInt8Image, hr: UInt8Image, border: int = 4) -> float:
    r"""Peak signal-to-noise ratio on Y, :math:`10 \log_{10}(255^2 / \mathrm{MSE})`.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: reference of the same shape.
        border: pixels left out at every edge; usually the scale.

    Returns:
        dB; `inf` for equal images.

    Raises:
        DataError: shapes differ, dtype is not uint8, or nothing is left inside the border.

    Example:
        >>> black = np.zeros((16, 16, 3), dtype=np.uint8)
        >>> round(psnr_y(black, black + 10), 2)
        29.45
    """
    a, b = _cropped_pair(sr, hr, border, 1)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim_y(sr: UInt8Image, hr: UInt8Image, border: int = 4) -> float:
    """Structural similarity on Y: 11x11 Gaussian window, sigma 1.5, only where the window lies inside the image.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, with
    K1 = 0.01, K2 = 0.03 and L = 255.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: reference of the same shape.
        border: pixels left out at every edge; usually the scale.

    Returns:
        Mean over the image, at most 1.

    Raises:
        DataError: shapes differ, dtype is not uint8, or fewer than 11 px a side are left inside the border.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        >>> round(ssim_y(image, image), 6)
        1.0
    """
    a, b = (torch.from_numpy(y)[None, None] for y in _cropped_pair(sr, hr, border, 11))
    distance = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(distance**2) / (2 * 1.5**2))
    line = line / line.sum()

    def local_mean(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(x, line.view(1, 1, 11, 1)), line.view(1, 1, 1, 11))

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    return float(similarity.mean())
