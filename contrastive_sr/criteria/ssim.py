"""Structural similarity, computed by torchmetrics."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32

SIGMA = 1.5
WINDOW = 11  # the size that torchmetrics derives from SIGMA, and that Wang et al. have


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
        try:
            from torchmetrics.functional.image import structural_similarity_index_measure
        except ImportError as error:
            raise ConfigError(
                f"SSIM needs torchmetrics, which cannot be imported ({error}). "
                "Try: pip install 'contrastive-sr[ssim]'; or choose other criteria."
            ) from error
        self._similarity = structural_similarity_index_measure

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
