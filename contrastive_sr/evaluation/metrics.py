"""PSNR and SSIM on the Y channel, as super-resolution papers report them, and on RGB, as some do."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from contrastive_sr._checks import check_count
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import DataError


def luma(image: UInt8Image) -> npt.NDArray[np.float64]:
    r"""Y of BT.601 YCbCr, in studio range and not rounded, as MATLAB's `rgb2ycbcr` gives it for images of doubles.

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
    _check_rgb(image)
    return 16.0 + image.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def _check_rgb(image: UInt8Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"Expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")


def _inside(sr: UInt8Image, hr: UInt8Image, border: int, smallest: int) -> tuple[UInt8Image, UInt8Image]:
    """Both images without their border; at least ``smallest`` pixels a side must be left."""
    for image in (sr, hr):
        _check_rgb(image)
    if sr.shape != hr.shape:
        raise DataError(f"Expected two images of one shape, got {sr.shape} and {hr.shape}.")
    check_count(border, "border", at_least=0)
    if min(sr.shape[:2]) < 2 * border + smallest:
        raise DataError(
            f"Expected images that keep at least {smallest} px a side without their border of {border} px, got "
            f"{sr.shape}. Try a smaller border."
        )
    inside = slice(border, -border) if border else slice(None)
    return sr[inside, inside], hr[inside, inside]


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
        ConfigError: a border that is no number of pixels.

    Example:
        >>> black = np.zeros((16, 16, 3), dtype=np.uint8)
        >>> round(psnr_y(black, black + 10), 2)
        29.45
    """
    a, b = _inside(sr, hr, border, 1)
    return _psnr(luma(a), luma(b))


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
        ConfigError: a border that is no number of pixels.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        >>> round(ssim_y(image, image), 6)
        1.0
    """
    a, b = _inside(sr, hr, border, 11)
    return _ssim(luma(a)[..., None], luma(b)[..., None])


def psnr_rgb(sr: UInt8Image, hr: UInt8Image, border: int = 4) -> float:
    """Peak signal-to-noise ratio of the squared error over all three colours, see :func:`psnr_y`.

    Equal to BasicSR's ``calculate_psnr`` with ``test_y_channel: false``. Never compare it with :func:`psnr_y`: of grey
    images it is 1.32 dB lower, since Y spans 219 grey levels of 255, and in colour errors count that cancel on Y.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: reference of the same shape.
        border: pixels left out at every edge; usually the scale.

    Returns:
        dB; `inf` for equal images.

    Raises:
        DataError: shapes differ, dtype is not uint8, or nothing is left inside the border.
        ConfigError: a border that is no number of pixels.

    Example:
        >>> black = np.zeros((16, 16, 3), dtype=np.uint8)
        >>> round(psnr_rgb(black, black + 10), 2)
        28.13
    """
    a, b = _inside(sr, hr, border, 1)
    return _psnr(a.astype(np.float64), b.astype(np.float64))


def ssim_rgb(sr: UInt8Image, hr: UInt8Image, border: int = 4) -> float:
    """Structural similarity as in :func:`ssim_y`, of each colour, and the mean of the three.

    Equal to BasicSR's ``calculate_ssim`` with ``test_y_channel: false``.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: reference of the same shape.
        border: pixels left out at every edge; usually the scale.

    Returns:
        Mean over image and colours, at most 1.

    Raises:
        DataError: shapes differ, dtype is not uint8, or fewer than 11 px a side are left inside the border.
        ConfigError: a border that is no number of pixels.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        >>> round(ssim_rgb(image, image), 6)
        1.0
    """
    a, b = _inside(sr, hr, border, 11)
    return _ssim(a.astype(np.float64), b.astype(np.float64))


def _psnr(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def _ssim(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Of images (H, W, C); the mean over their channels."""
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[:, None] for image in (a, b))
    distance = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(distance**2) / (2 * 1.5**2))
    line = line / line.sum()

    def local_mean(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(image, line.view(1, 1, 11, 1)), line.view(1, 1, 1, 11))

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return float(similarity.mean())
