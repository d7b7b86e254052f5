"""Structural similarity, also over several scales, computed by torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_count
from contrastive_sr._install import install
from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32

SIGMA = 1.5
WINDOW = 11  # the size that torchmetrics derives from SIGMA, and that Wang et al. have
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
FLOOR = 1e-4  # of a scale's mean: powers of less have huge gradients, of less than 0 none


def _torchmetrics_ssim(name: str) -> Callable[..., Any]:
    """torchmetrics' function.

    Raises:
        ConfigError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise ConfigError(
            f"{name} needs torchmetrics, which cannot be imported ({error}). "
            f"Try: {install('ssim')}; or choose other criteria."
        ) from error
    return structural_similarity_index_measure


@CRITERIA.register
class SSIM(Criterion):
    """1 - SSIM, with the Gaussian window of 11 x 11 of Wang et al. (TIP 2004), as a mean over the colours.

    torchmetrics computes it; docs/cria_cl.md compares the libraries that could.

    Raises:
        ConfigError: torchmetrics is not installed.
    """

    paper = "Cria-CL"

    def __init__(self) -> None:
        super().__init__()
        self._similarity = _torchmetrics_ssim("SSIM")

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`Criterion.check_size`."""
        if min(height, width) < WINDOW:
            raise DataError(
                f"SSIM: expected HR patches of at least {WINDOW} x {WINDOW} pixels, got {height} x {width}. "
                "Raise the patch size."
            )

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """A map (B, 1, H, W) from 0 to 2, also under autocast; see :meth:`Criterion.forward`."""
        check_images(sr, hr, "SSIM")
        self.check_size(*sr.shape[-2:])
        sr, hr = at_least_float32(sr), at_least_float32(hr)
        # In half precision its variances, differences of large sums, would be noise.
        with torch.autocast(sr.device.type, enabled=False):
            _, similarity = self._similarity(
                sr, hr.to(sr), sigma=SIGMA, data_range=1.0, reduction="none", return_full_image=True
            )
        return 1 - similarity.mean(1, keepdim=True)


@CRITERIA.register
class MSSSIM(Criterion):
    r"""1 - MS-SSIM, the SSIM over several scales of Wang et al. (Asilomar 2003), as a mean over the colours.

    .. math:: 1 - \mathrm{SSIM}_M^{\beta_M} \prod_{j=1}^{M-1} \mathrm{CS}_j^{\beta_j}

    Each scale is half as large as the one before, by the mean of 2 x 2 pixels. The published exponents are for five
    scales, and so for patches of at least 176 pixels; with fewer scales we use the first of them, divided by their sum.
    torchmetrics computes each scale. Its own MS-SSIM needs patches of 99 pixels for four scales, and is 0 without any
    gradient where one scale's mean is not above 0; here such a mean counts as 0.0001, and the other scales keep theirs.

    Args:
        scales: M, from 1 to 5; M scales need patches of at least 11 * 2^(M - 1) pixels a side. None: as many as the
            patches allow, such as 4 for 96 pixels and 5 from 176 pixels on.

    Raises:
        ConfigError: a number of scales that is not from 1 to 5, or torchmetrics is not installed.

    Example:
        >>> hr = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        >>> MSSSIM()(0.9 * hr, hr).shape
        torch.Size([2, 1, 1, 1])
    """

    def __init__(self, *, scales: int | None = None) -> None:
        super().__init__()
        at_most = len(EXPONENTS)
        self.scales = None if scales is None else check_count(scales, "MSSSIM(scales)", at_most=at_most)
        self._similarity = _torchmetrics_ssim("MSSSIM")

    @property
    def label(self) -> str:
        return "ms_ssim"

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`Criterion.check_size`."""
        least = WINDOW * 2 ** ((self.scales or 1) - 1)
        if min(height, width) < least:
            raise DataError(
                f"MSSSIM: expected HR patches of at least {least} x {least} pixels for {self.scales or 1} scales, got "
                f"{height} x {width}. Raise the patch size, or lower `scales`."
            )

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """One value from 0 to 1 for each image, (B, 1, 1, 1), also under autocast; see :meth:`Criterion.forward`."""
        check_images(sr, hr, "MSSSIM")
        self.check_size(*sr.shape[-2:])
        sr, hr = at_least_float32(sr), at_least_float32(hr)
        hr = hr.to(sr)
        scales = self.scales or min(len(EXPONENTS), (min(sr.shape[-2:]) // WINDOW).bit_length())
        exponents = EXPONENTS[:scales]
        product = torch.ones(len(sr), dtype=sr.dtype, device=sr.device)
        with torch.autocast(sr.device.type, enabled=False):
            for scale, exponent in enumerate(exponents, start=1):
                similarity, contrast = self._similarity(
                    sr, hr, sigma=SIGMA, data_range=1.0, reduction="none", return_contrast_sensitivity=True
                )
                mean = similarity if scale == scales else contrast
                product = product * mean.clamp_min(FLOOR) ** (exponent / sum(exponents))
                sr, hr = F.avg_pool2d(sr, 2), F.avg_pool2d(hr, 2)
        return 1 - product[:, None, None, None]
