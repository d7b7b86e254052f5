"""Degradations on the device: ours against plain code, one image after the other, and against patches by unfold."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import DEVICE, Run, compare
from contrastive_sr.degradations import bicubic_downsample, blur, blur_variant, gaussian_kernels
from contrastive_sr.degradations.functional import blur_bicubic_downsample, stretch

BATCH, SIZE, SCALE, KERNEL = 16, 192, 4, 21


def plain_blur(hr: Tensor, kernels: Tensor) -> Tensor:
    """All pixels of all images, mirrored edges, in one grouped convolution."""
    pad = KERNEL // 2
    padded = F.pad(hr, (pad, pad, pad, pad), mode="reflect").flatten(0, 1)[None]
    weight = kernels.repeat_interleave(hr.shape[1], 0)[:, None]
    return F.conv2d(padded, weight, groups=weight.shape[0]).view(hr.shape)


def plain_bicubic(x: Tensor) -> Tensor:
    """torch's own antialiased bicubic, which differs from MATLAB's at the edges alone."""
    return F.interpolate(x, scale_factor=1 / SCALE, mode="bicubic", antialias=True)


def one_by_one(hr: Tensor, kernels: Tensor) -> Tensor:
    """Blur and bicubic downsampling, one image after the other."""
    images = zip(hr.split(1), kernels.split(1), strict=True)
    return torch.cat([plain_bicubic(plain_blur(image, kernel)) for image, kernel in images])


def unfold_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """(1, 3, H, W) with a width for each pixel, as patches times kernels."""
    pad, (height, width) = KERNEL // 2, image.shape[2:]
    offset = torch.arange(-pad, pad + 1, device=image.device)
    line = torch.exp(-0.5 * (offset[:, None, None] / sigma[0, 0].expand(height, width)) ** 2)
    kernels = (line[:, None] * line).flatten(0, 1)
    kernels = kernels / kernels.sum(0)
    patches = F.unfold(F.pad(image, (pad, pad, pad, pad), mode="reflect"), KERNEL)
    return (patches.view(3, KERNEL**2, height, width) * kernels).sum(1)[None]


def cases(batch: int = BATCH, size: int = SIZE) -> dict[str, tuple[Run, Run]]:
    """By name, the plain way and ours; both give the same images."""
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(batch, 3, size, size, generator=generator).to(DEVICE)
    widths = 0.2 + 3.8 * torch.rand(batch, 2, generator=generator).to(DEVICE)
    angle = torch.rand(batch, generator=generator).to(DEVICE) * 3
    isotropic = gaussian_kernels(widths[:, :1].expand(-1, 2), torch.zeros_like(angle), KERNEL)
    anisotropic = gaussian_kernels(widths, angle, KERNEL)
    control = 0.2 + 3.8 * torch.rand(1, 1, 4, 4, generator=generator).to(DEVICE)
    field = stretch(control, (size, size))
    across = torch.linspace(0.2, 4, size, device=DEVICE).view(1, 1, 1, -1)
    return {
        "s-fold": (
            lambda: plain_blur(hr, anisotropic)[..., ::SCALE, ::SCALE],
            lambda: blur(hr, anisotropic, SCALE),
        ),
        "bicubic, isotropic": (
            lambda: one_by_one(hr, isotropic),
            lambda: blur_bicubic_downsample(hr, isotropic.sum(1), SCALE),
        ),
        "bicubic, anisotropic": (
            lambda: one_by_one(hr, anisotropic),
            lambda: bicubic_downsample(blur(hr, anisotropic), SCALE),
        ),
        "random field": (lambda: unfold_blur(hr[:1], field), lambda: blur_variant(hr[:1], field, KERNEL)),
        "left to right": (lambda: unfold_blur(hr[:1], across), lambda: blur_variant(hr[:1], across, KERNEL)),
    }


_ROWS = {
    "s-fold": ("one convolution at all pixels / strided, s-fold x4 of 16x3x192x192", "at least 4"),
    "bicubic, isotropic": ("image by image / two products, blur and bicubic x4, isotropic", "-"),
    "bicubic, anisotropic": ("image by image / grouped convolutions, blur and bicubic x4, anisotropic", "-"),
    "random field": ("unfold / spatially variant blur, random field", "at least 15"),
    "left to right": ("unfold / spatially variant blur, left to right", "at least 15"),
}


def report() -> Iterator[tuple[str, str, str]]:
    """Rows of (figure, goal, measured)."""
    torch.set_num_threads(1)
    for name, (plain, ours) in cases().items():
        seconds = compare({"plain": plain, "ours": ours}, repeats=5)
        yield *_ROWS[name], f"{seconds['plain'] / seconds['ours']:.1f}"
