"""The degradation of the blind super-resolution papers: HR images to LR images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, check_flag, check_range, check_shape, describe
from contrastive_sr.config import build
from contrastive_sr.degradations.functional import (
    Downsampling,
    check_downsample,
    check_kernel_size,
    check_sides,
    gaussian_kernels,
)
from contrastive_sr.degradations.kernels import (
    KERNELS,
    IsotropicGaussian,
    Kernel,
    Parameters,
    check_layout,
    draw_field,
    spread,
    uniform,
)
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32

NoiseLayout = Literal["uniform", "left_to_right", "random_field"]


class Degraded(NamedTuple):
    """What a degradation returns.

    Attributes:
        lr: (B, 3, h, w) in [0, 1].
        parameters: what was drawn, one row for each image, see :class:`Degradation`.
    """

    lr: Tensor
    parameters: Parameters


class Degradation:
    r"""Blur, downsample, add noise, round: an LR image for each HR image, each under a degradation of its own.

    .. math:: I^{LR} = \mathrm{round}_8\bigl((I^{HR} \otimes k)\downarrow_s + n\bigr), \quad n \sim N(0, (l / 255)^2)

    DASR eq. 1, CRL-SR eq. 1, on the device of the images and without a gradient. The noise is drawn for every pixel
    and channel of the LR image; rounding to 8 bits and clamping to [0, 1] come last. The papers do not say how they
    treat edges: here the blur mirrors them without repeating the edge pixel, and the bicubic downsampling treats them
    as MATLAB does.

    :meth:`draw` returns, and :meth:`apply` takes, these parameters, one row for each image:

    - ``"kernel"`` (B, k, k), ``"sigma"`` (B, 2), ``"angle"`` (B,) for a kernel that is the same all over an image, or
      ``"sigma_map"`` (B, 1, h, w) for one that changes: a few widths that are spread over the image;
    - ``"noise"`` (B,), the noise level in 0..255, or ``"noise_map"`` (B, 1, h, w), a few levels that are spread over
      the LR image.

    Args:
        scale: the downsampling factor, at least 2.
        kernel: one of ``KERNELS`` or its config, e.g. ``{"type": "IsotropicGaussian", "sigma": (0.2, 4.0)}``; None:
            ``IsotropicGaussian()``.
        noise: (low, high) of the noise level, drawn uniformly: the standard deviation for pixels from 0 to 255.
        noise_layout: ``"uniform"``: one level for each image; ``"left_to_right"``: from low at the left to high at the
            right of each image; ``"random_field"``: levels that change smoothly over the image, at random.
        downsample: ``"bicubic"``, with antialiasing like MATLAB's ``imresize``, or ``"s_fold"``, the upper-left pixel
            of each s x s patch.
        kernel_size: pixels along each side of the kernels, odd.
        rounding: whether to round to 8 bits.

    Raises:
        ConfigError: an unknown name or a value out of range.

    Example:
        >>> degradation = Degradation(scale=4, noise=(0, 25))
        >>> lr, parameters = degradation(torch.rand(2, 3, 48, 48), torch.Generator().manual_seed(0))
        >>> lr.shape, {name: tuple(value.shape) for name, value in parameters.items()}
        (torch.Size([2, 3, 12, 12]), {'kernel': (2, 21, 21), 'sigma': (2, 2), 'angle': (2,), 'noise': (2,)})

        The same degradations for another crop of each image, with noise of its own:

        >>> degradation.apply(torch.rand(2, 3, 48, 48), parameters).shape
        torch.Size([2, 3, 12, 12])
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        kernel: Kernel | Mapping[str, object] | None = None,
        noise: tuple[float, float] = (0.0, 0.0),
        noise_layout: NoiseLayout = "uniform",
        downsample: Downsampling = "bicubic",
        kernel_size: int = 21,
        rounding: bool = True,
    ) -> None:
        self.scale = check_count(scale, "Degradation(scale)", at_least=2)
        self.kernel: Kernel = IsotropicGaussian()
        if kernel is not None:
            self.kernel = build(KERNELS, kernel, "Degradation(kernel)")
        self.noise = check_range(noise, "Degradation(noise)", at_least=0)
        if self.noise[1] > 255:
            raise ConfigError(
                f"Degradation(noise): expected levels from 0 to 255, got {self.noise[1]:g}. A level is the noise's "
                "standard deviation for pixels from 0 to 255."
            )
        check_layout(noise_layout, "Degradation(noise_layout)", get_args(NoiseLayout))
        check_downsample(downsample, "Degradation(downsample)")
        self.noise_layout, self.downsample = noise_layout, downsample
        self.kernel_size = check_kernel_size(kernel_size, "Degradation(kernel_size)")
        self.rounding = check_flag(rounding, "Degradation(rounding)")
        self._checked = False

    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Draw a degradation for each image and apply it.

        Args:
            hr: (B, 3, H, W) in [0, 1], sides multiples of the scale and no smaller than the kernel.
            generator: source of randomness, on any device. One on the CPU gives the same degradations and noise on
                every device. None: torch's default generator.

        Returns:
            LR images (B, 3, H / s, W / s) in [0, 1], in float32 for half precision, and what was drawn.

        Raises:
            DataError: images of another shape or size, or, in the first call, values outside [0, 1].
        """
        self._check(hr)
        parameters = self.draw(hr.shape[0], hr.device, generator)
        return Degraded(self.apply(hr, parameters, generator), parameters)

    def draw(
        self, batch: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None
    ) -> Parameters:
        """Draw a degradation for each of B images.

        Args:
            batch: B.
            device: where the parameters go.
            generator: source of randomness, on any device; None: torch's default generator.

        Returns:
            The parameters, in float32, named in the class.
        """
        check_count(batch, "Degradation.draw(batch)")
        source = torch.device(device) if generator is None else generator.device
        drawn = self.kernel.draw(batch, self.kernel_size, source, generator)
        if self.noise_layout == "uniform":
            drawn["noise"] = uniform(self.noise, (batch,), source, generator)
        else:
            drawn["noise_map"] = draw_field(self.noise_layout, self.noise, batch, source, generator)
        return {name: value.to(device) for name, value in drawn.items()}

    @torch.no_grad()
    def apply(self, hr: Tensor, parameters: Parameters, generator: torch.Generator | None = None) -> Tensor:
        """Degrade images with parameters that were drawn before.

        Args:
            hr: (B, 3, H, W) in [0, 1], sides multiples of the scale and no smaller than the kernel.
            parameters: what :meth:`draw` of this degradation returned for B images. ``"kernel"`` may be left out, as in
                the JSON of a test set; it is then made from ``"sigma"`` and ``"angle"``.
            generator: source of the noise, on any device; None: torch's default generator.

        Returns:
            LR images (B, 3, H / s, W / s) in [0, 1], in float32 for half precision.

        Raises:
            DataError: images of another shape or size, parameters of another degradation or batch, or, in the first
                call, values outside [0, 1].
        """
        self._check(hr)
        hr = at_least_float32(hr)
        if "kernel" not in parameters and {"sigma", "angle"} <= parameters.keys():
            kernels = gaussian_kernels(parameters["sigma"], parameters["angle"], self.kernel_size)
            parameters = {**parameters, "kernel": kernels}
        ready = {name: self._row(name, parameters, hr) for name in self._needed()}
        lr = self.kernel.degrade(hr, ready, self.scale, self.downsample, self.kernel_size)
        if self.noise[1] > 0:
            level = (
                spread(self.noise_layout, ready["noise_map"], (lr.shape[2], lr.shape[3]))
                if "noise_map" in ready
                else (ready["noise"].view(-1, 1, 1, 1))
            )
            lr = lr + level / 255 * _normal(lr, generator)
        if self.rounding:
            lr = (lr * 255).round() / 255
        return lr.clamp(0, 1)

    def _needed(self) -> tuple[str, ...]:
        if self.noise[1] == 0:
            return self.kernel.needed
        return (*self.kernel.needed, "noise" if self.noise_layout == "uniform" else "noise_map")

    def _row(self, name: str, parameters: Parameters, hr: Tensor) -> Tensor:
        if name not in parameters:
            raise DataError(
                f"parameters: expected {', '.join(self._needed())}, as this degradation draws them, got "
                f"{', '.join(sorted(parameters)) or 'none'}."
            )
        value = parameters[name]
        if not isinstance(value, Tensor) or value.shape[:1] != hr.shape[:1]:
            raise DataError(
                f"parameters[{name!r}]: expected one row for each of {hr.shape[0]} images, got {describe(value)}."
            )
        return value.to(hr)

    def _check(self, hr: Tensor) -> None:
        check_shape(hr, ("B", 3, "H", "W"), "hr")
        if min(hr.shape[-2:]) < self.kernel_size:
            raise DataError(
                f"hr: expected images no smaller than the kernel, {self.kernel_size} x {self.kernel_size}, got "
                f"{hr.shape[-2]} x {hr.shape[-1]}. Use larger images or patches, or a smaller kernel_size."
            )
        check_sides(hr, self.scale, "hr")
        if self._checked:
            return
        low, high = hr.min().item(), hr.max().item()
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also true for NaN
            raise DataError(
                f"hr: expected values in [0, 1], got {low:.4g} to {high:.4g}. Divide images by 255, and leave out any "
                "mean or standard deviation."
            )
        self._checked = True


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Normal numbers in the shape of a tensor, drawn in float32 on the generator's device."""
    source = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=source).to(like)
