"""Hard negatives: slightly blurred HR images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, check_range
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator, depthwise, grey_ones, mirror, uniform


@SAMPLES.register
class GaussianBlur(SampleGenerator):
    """HR images under a random isotropic Gaussian (PCL-SR eq. 6), also with noise (MPF-Net eq. 8).

    Each sample of each image draws its own kernel size and width, and its own level of noise, which is grey where the
    image is. Edges are mirrored.
    Values match torchvision's ``gaussian_blur`` of that size and width.

    Args:
        count: images to make from each HR image.
        sizes: kernel sizes in pixels to choose from, odd.
        sigma: (low, high) of the kernel's standard deviation in pixels.
        noise: (low, high) of the standard deviation of white Gaussian noise, for images in [0, 1]. None: no noise.

    Raises:
        ConfigError: a count, size or range that makes no sense.

    Example:
        >>> GaussianBlur(count=4)({"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 4, 3, 32, 32])
    """

    paper = "PCL-SR, MPF-Net"

    def __init__(
        self,
        *,
        count: int = 4,
        sizes: Sequence[int] = (3, 5, 7, 9, 11),
        sigma: tuple[float, float] = (0.3, 1.5),
        noise: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(count=count)
        listed = isinstance(sizes, Sequence) and len(sizes) > 0
        if not listed or any(check_count(size, "GaussianBlur(sizes)") % 2 == 0 for size in sizes):
            raise ConfigError(f"GaussianBlur(sizes): expected odd kernel sizes such as (3, 5, 7), got {sizes!r}.")
        self.sizes = tuple(sizes)
        self.sigma = check_range(sigma, "GaussianBlur(sigma)", at_least=1e-3)
        self.noise = None if noise is None else check_range(noise, "GaussianBlur(noise)", at_least=0)
        if self.noise is not None and self.noise[1] > 1:
            raise ConfigError(
                f"GaussianBlur(noise): expected standard deviations for images in [0, 1], got {noise}. Divide levels "
                "for images in [0, 255] by 255."
            )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Blurred HR images.

        Args:
            batch: ``"hr"`` (B, C, H, W) in [0, 1].
            generator: source of randomness, on the batch's device.

        Returns:
            (B, count, C, H, W) in [0, 1].

        Raises:
            DataError: images not larger than half the largest kernel.
        """
        hr = batch["hr"]
        pad = max(self.sizes) // 2
        if min(hr.shape[-2:]) <= pad:
            raise DataError(
                f"GaussianBlur: expected HR images larger than {pad} pixels for kernels of {max(self.sizes)}, "
                f"got {tuple(hr.shape[-2:])}."
            )
        kernels = self.kernels((hr.shape[0], self.count), hr, generator)
        padded = mirror(hr, pad)
        out = hr.new_empty(hr.shape[0], self.count, *hr.shape[1:])
        for index in range(self.count):  # a call per set: all sets in one call run several times slower
            out[:, index] = depthwise(padded, kernels[:, index], hr.shape[-2:])
        if self.noise is not None:
            levels = uniform(*self.noise, (*out.shape[:2], 1, 1, 1), out, generator)
            noise = torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)
            noise = torch.where(grey_ones(hr), noise[:, :, :1], noise)
            out.addcmul_(levels, noise).clamp_(0, 1)
        return out

    def kernels(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random kernels that sum to 1, zero outside their size.

        Args:
            shape: how many kernels, e.g. (B, count).
            like: gives dtype and device.
            generator: source of randomness.

        Returns:
            ``(*shape, k, k)`` with k the largest of ``sizes``.
        """
        radius = max(self.sizes) // 2
        chosen = torch.randint(len(self.sizes), shape, generator=generator, device=like.device)
        # No look-up in a table, which would have to be copied to the device at every step.
        reach = torch.stack([(chosen == index) * (size // 2) for index, size in enumerate(self.sizes)]).sum(0)
        sigma = uniform(*self.sigma, shape, like, generator)
        offset = torch.arange(-radius, radius + 1, device=like.device)
        line = torch.exp(-0.5 * (offset / sigma[..., None]) ** 2) * (offset.abs() <= reach[..., None])
        line = line / line.sum(-1, keepdim=True)
        return line[..., :, None] * line[..., None, :]
