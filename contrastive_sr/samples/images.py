"""Samples that are images of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator


@SAMPLES.register
class HighResolution(SampleGenerator):
    """The HR image itself, the first of PCL-SR's positives.

    Example:
        >>> HighResolution()({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    paper = "PCL-SR"

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


@SAMPLES.register
class UpsampledLowResolution(SampleGenerator):
    """The LR image, bicubically enlarged to HR size, a negative in PCL-SR's code that the paper does not mention.

    Example:
        >>> batch = {"hr": torch.rand(2, 3, 32, 32), "lr": torch.rand(2, 3, 8, 8)}
        >>> UpsampledLowResolution()(batch).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    paper = "PCL-SR"

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


@SAMPLES.register
class OtherInstances(SampleGenerator):
    """HR images of other instances of the batch ("Rand" in MPF-Net's Table VII, config 4).

    Each is drawn anew from all other images of the same process's batch, so the same image may occur twice.

    Args:
        count: images for each image of the batch.

    Raises:
        ConfigError: a count that is not a whole number of at least 1.

    Example:
        >>> OtherInstances(count=2)({"hr": torch.rand(4, 3, 32, 32)}).shape
        torch.Size([4, 2, 3, 32, 32])
    """

    paper = "MPF-Net"

    def __init__(self, *, count: int = 5) -> None:
        super().__init__(count=count)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Other HR images.

        Args:
            batch: ``"hr"`` (B, C, H, W) in [0, 1], B at least 2.
            generator: source of randomness, on the batch's device.

        Returns:
            (B, count, C, H, W) in [0, 1].

        Raises:
            DataError: a batch of one.
        """
        hr = batch["hr"]
        if len(hr) < 2:
            raise DataError(
                "OtherInstances: expected a batch of 2 or more images for each process, got 1. Take larger batches, "
                "and leave out a last one of one image (drop_last=True of torch's DataLoader)."
            )
        steps = torch.randint(1, len(hr), (len(hr), self.count), generator=generator, device=hr.device)
        return hr[(torch.arange(len(hr), device=hr.device)[:, None] + steps) % len(hr)]
