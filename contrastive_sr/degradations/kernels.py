"""Families of blur kernels: what each draws for an image, and how it blurs with what was drawn."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_range
from contrastive_sr.config import Registry, unknown
from contrastive_sr.degradations.functional import (
    Downsampling,
    bicubic_downsample,
    blur,
    blur_bicubic_downsample,
    blur_variant,
    gaussian_kernels,
    stretch,
)
from contrastive_sr.errors import ConfigError

Layout = Literal["left_to_right", "random_field"]
FIELD = 4
"""How many values a random field has along each side."""

Parameters = dict[str, Tensor]


class Kernel:
    """Draws a blur for each image, and blurs and downsamples with what was drawn.

    Attributes:
        needed: the parameters that :meth:`degrade` needs, among those that :meth:`draw` returns.
    """

    needed: tuple[str, ...] = ("kernel",)

    def draw(self, batch: int, size: int, device: torch.device, generator: torch.Generator | None) -> Parameters:
        """Draw one blur for each image.

        Args:
            batch: B, the number of images.
            size: pixels along each side of the kernels.
            device: where to draw; the generator's.
            generator: source of randomness; None: torch's default generator.

        Returns:
            Tensors with one row for each image, named in the class.
        """
        raise NotImplementedError

    def degrade(self, hr: Tensor, parameters: Parameters, scale: int, downsample: Downsampling, size: int) -> Tensor:
        """Blur and downsample.

        Args:
            hr: (B, 3, H, W).
            parameters: what :meth:`draw` returned, in the dtype of ``hr`` and on its device.
            scale: the downsampling factor.
            downsample: ``"bicubic"`` or ``"s_fold"``.
            size: pixels along each side of the kernels.

        Returns:
            (B, 3, H / scale, W / scale).
        """
        raise NotImplementedError


KERNELS: Registry[Kernel] = Registry(Kernel, "kernel", own=False)


@KERNELS.register
class IsotropicGaussian(Kernel):
    """A width for each image, the same along both axes (DASR and CRL-SR, section 4.1).

    ``draw`` gives ``"kernel"`` (B, k, k), ``"sigma"`` (B, 2) with two equal columns and ``"angle"`` (B,) zeros.

    Args:
        sigma: (low, high) of the standard deviation in HR pixels, drawn uniformly. 0 is no blur.

    Raises:
        ConfigError: a range that makes no sense.

    Example:
        >>> from contrastive_sr.degradations import Degradation
        >>> Degradation(scale=4, kernel=IsotropicGaussian(sigma=(1.8, 1.8)))(torch.rand(2, 3, 48, 48)).lr.shape
        torch.Size([2, 3, 12, 12])
    """

    def __init__(self, *, sigma: tuple[float, float] = (0.2, 4.0)) -> None:
        self.sigma = check_range(sigma, "IsotropicGaussian(sigma)", at_least=0)

    def draw(self, batch: int, size: int, device: torch.device, generator: torch.Generator | None) -> Parameters:
        """See :class:`Kernel`."""
        sigma = uniform(self.sigma, (batch, 1), device, generator).expand(-1, 2)
        angle = sigma.new_zeros(batch)
        return {"kernel": gaussian_kernels(sigma, angle, size), "sigma": sigma, "angle": angle}

    def degrade(self, hr: Tensor, parameters: Parameters, scale: int, downsample: Downsampling, size: int) -> Tensor:
        """See :class:`Kernel`."""
        if downsample == "s_fold":
            return blur(hr, parameters["kernel"], stride=scale)
        # the rows of an isotropic kernel add up to its profile
        return blur_bicubic_downsample(hr, parameters["kernel"].sum(1), scale)


@KERNELS.register
class AnisotropicGaussian(Kernel):
    """Two widths and an angle for each image (DASR and CRL-SR, section 4.1).

    ``draw`` gives ``"kernel"`` (B, k, k), ``"sigma"`` (B, 2) and ``"angle"`` (B,). The papers call the widths the
    eigenvalues of the covariance; DASR's code takes them as standard deviations, and so do we.

    Args:
        sigma: (low, high) of the first standard deviation in HR pixels, drawn uniformly.
        second_sigma: (low, high) of the second standard deviation; None: the same range.
        angle: (low, high) of the first axis' angle in radians, drawn uniformly.

    Raises:
        ConfigError: a range that makes no sense.

    Example:
        >>> from contrastive_sr.degradations import Degradation
        >>> degraded = Degradation(scale=4, kernel=AnisotropicGaussian(), noise=(0, 25))(torch.rand(2, 3, 48, 48))
        >>> degraded.lr.shape, sorted(degraded.parameters)
        (torch.Size([2, 3, 12, 12]), ['angle', 'kernel', 'noise', 'sigma'])
    """

    def __init__(
        self,
        *,
        sigma: tuple[float, float] = (0.2, 4.0),
        second_sigma: tuple[float, float] | None = None,
        angle: tuple[float, float] = (0.0, math.pi),
    ) -> None:
        self.sigma = check_range(sigma, "AnisotropicGaussian(sigma)", at_least=0)
        self.second_sigma = self.sigma
        if second_sigma is not None:
            self.second_sigma = check_range(second_sigma, "AnisotropicGaussian(second_sigma)", at_least=0)
        self.angle = check_range(angle, "AnisotropicGaussian(angle)", at_least=0)

    def draw(self, batch: int, size: int, device: torch.device, generator: torch.Generator | None) -> Parameters:
        """See :class:`Kernel`."""
        widths = [uniform(limits, (batch,), device, generator) for limits in (self.sigma, self.second_sigma)]
        sigma, angle = torch.stack(widths, 1), uniform(self.angle, (batch,), device, generator)
        return {"kernel": gaussian_kernels(sigma, angle, size), "sigma": sigma, "angle": angle}

    def degrade(self, hr: Tensor, parameters: Parameters, scale: int, downsample: Downsampling, size: int) -> Tensor:
        """See :class:`Kernel`."""
        if downsample == "s_fold":
            return blur(hr, parameters["kernel"], stride=scale)
        return bicubic_downsample(blur(hr, parameters["kernel"]), scale)


@KERNELS.register
class SpatiallyVariant(Kernel):
    """Isotropic Gaussians whose width changes over the image.

    ``draw`` gives ``"sigma_map"`` (B, 1, h, w): a few widths, spread evenly over the HR image that they are used for
    (:func:`~contrastive_sr.degradations.functional.stretch`). ``"left_to_right"``, which CRL-SR tests (section 4.3),
    has the two ends of the range, (B, 1, 1, 2), and a straight line between them. ``"random_field"``, which is ours,
    has 4 x 4 widths, drawn uniformly, and a smooth surface through them.

    Args:
        sigma: (low, high) of the standard deviation in HR pixels.
        layout: ``"left_to_right"`` or ``"random_field"``.

    Raises:
        ConfigError: a range that makes no sense, or an unknown layout.

    Example:
        >>> from contrastive_sr.degradations import Degradation
        >>> kernel = SpatiallyVariant(layout="random_field")
        >>> Degradation(scale=4, kernel=kernel)(torch.rand(2, 3, 48, 48)).parameters["sigma_map"].shape
        torch.Size([2, 1, 4, 4])
    """

    needed = ("sigma_map",)

    def __init__(self, *, sigma: tuple[float, float] = (0.2, 4.0), layout: Layout = "left_to_right") -> None:
        self.sigma = check_range(sigma, "SpatiallyVariant(sigma)", at_least=0)
        check_layout(layout, "SpatiallyVariant(layout)", get_args(Layout))
        self.layout = layout

    def draw(self, batch: int, size: int, device: torch.device, generator: torch.Generator | None) -> Parameters:
        """See :class:`Kernel`."""
        return {"sigma_map": draw_field(self.layout, self.sigma, batch, device, generator)}

    def degrade(self, hr: Tensor, parameters: Parameters, scale: int, downsample: Downsampling, size: int) -> Tensor:
        """See :class:`Kernel`."""
        height, width = hr.shape[-2:]
        sigma = spread(self.layout, parameters["sigma_map"], (height, width))
        if downsample == "s_fold":
            return blur_variant(hr, sigma, size, stride=scale)
        return bicubic_downsample(blur_variant(hr, sigma, size), scale)


def check_layout(layout: object, where: str, accepted: tuple[str, ...]) -> None:
    """Require the name of a layout.

    Raises:
        ConfigError: another name.
    """
    if layout not in accepted:
        raise ConfigError(f"{where}: {unknown('layout', layout, list(accepted))}")


def uniform(
    limits: tuple[float, float], shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers drawn uniformly from [low, high)."""
    low, high = limits
    return torch.rand(shape, generator=generator, device=device) * (high - low) + low


def draw_field(
    layout: str, limits: tuple[float, float], batch: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """The values that a field passes through: (B, 1, 1, 2) from left to right, or (B, 1, 4, 4) drawn at random."""
    if layout == "left_to_right":
        ends = torch.linspace(*limits, 2, device=device)  # no list, which would have to be copied to the device
        return ends.expand(batch, 1, 1, 2)
    return uniform(limits, (batch, 1, FIELD, FIELD), device, generator)


def spread(layout: str, control: Tensor, size: tuple[int, int]) -> Tensor:
    """The field over an image of a size: a straight line from left to right, or a smooth surface."""
    return stretch(control, size, smooth=layout != "left_to_right")
