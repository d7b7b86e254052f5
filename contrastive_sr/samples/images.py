"""Samples that are the images at hand, without randomness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.samples.base import Batch, SampleGenerator


class HighResolution(SampleGenerator):
    """The HR image itself, the first of PCL-SR's positives.

    Example:
        >>> HighResolution()({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    def __init__(self) -> None:
        super().__init__(count=1)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The HR images.

        Args:
            batch: ``"hr"`` (B, C, H, W) in [0, 1].
            generator: not used.

        Returns:
            (B, 1, C, H, W), a view.
        """
        return batch["hr"][:, None]


class UpsampledLowResolution(SampleGenerator):
    """The LR image, bicubically enlarged to HR size: a negative that PCL-SR's code has and its text does not name.

    Example:
        >>> batch = {"hr": torch.rand(2, 3, 32, 32), "lr": torch.rand(2, 3, 8, 8)}
        >>> UpsampledLowResolution()(batch).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    def __init__(self) -> None:
        super().__init__(count=1)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The enlarged LR images.

        Args:
            batch: ``"lr"`` (B, C, h, w) and ``"hr"`` (B, C, H, W), in [0, 1].
            generator: not used.

        Returns:
            (B, 1, C, H, W) in [0, 1].

        Raises:
            DataError: the batch has no ``"lr"``.
        """
        if "lr" not in batch:
            raise DataError(f"UpsampledLowResolution: expected a batch with 'lr', got {sorted(batch)}.")
        size = batch["hr"].shape[-2:]
        return F.interpolate(batch["lr"], size=size, mode="bicubic", align_corners=False).clamp_(0, 1)[:, None]
