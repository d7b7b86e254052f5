"""What a degradation is made of: kernels, blur, downsampling, smooth fields. Tensors in, a tensor out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_count, check_shape, describe
from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32

Downsampling = Literal["bicubic", "s_fold"]

# How many pixels are blurred at a time if each has its own kernel: a CPU's cache holds these; a GPU wants few calls.
_CPU_PIXELS, _GPU_PIXELS = 2**16, 2**20
# How many planes a CPU convolves at a time: oneDNN's vectors hold 16, and small parts use the same memory again.
_CPU_PLANES = 16


def gaussian_kernels(sigma: Tensor, angle: Tensor, size: int = 21) -> Tensor:
    r"""Gaussian kernels with one width along each of two axes.

    .. math:: k(u) \propto \exp(-u^T \Sigma^{-1} u / 2), \quad
              \Sigma = R(\theta)\,\mathrm{diag}(\sigma_1^2, \sigma_2^2)\,R(\theta)^T

    DASR, section 4.1. The paper calls the widths the eigenvalues of the covariance; its code takes them as standard
    deviations, and so does this function. A width of 0 means no blur. The density is taken at the pixels' centres and
    cut off at the border of the kernel.

    Args:
        sigma: (B, 2) standard deviations in HR pixels, at least 0; the first from left to right at angle 0.
        angle: (B,) angle of the first axis, in radians, turning from rightwards to downwards.
        size: pixels along each side, odd.

    Returns:
        (B, size, size), row by row from the top, that sum to 1.

    Raises:
        ConfigError: an even or negative size.
        DataError: tensors of other shapes.

    Example:
        >>> kernels = gaussian_kernels(torch.tensor([[0.8, 3.0]]), torch.tensor([0.5]))
        >>> kernels.shape, round(kernels.sum().item(), 5)
        (torch.Size([1, 21, 21]), 1.0)
    """
    check_kernel_size(size, "gaussian_kernels(size)")
    check_shape(sigma, ("B", 2), "sigma")
    check_shape(angle, (sigma.shape[0],), "angle")
    offset = torch.arange(-(size // 2), size // 2 + 1, device=sigma.device, dtype=sigma.dtype)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = offset * cos + offset[:, None] * sin, offset[:, None] * cos - offset * sin
    first, second = _width(sigma[:, :, None, None]).unbind(1)
    density = _no_denormals(torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2)))
    return density / density.sum((1, 2), keepdim=True)


def blur(x: Tensor, kernels: Tensor, stride: int = 1) -> Tensor:
    r"""Filter all channels of image b with kernel b.

    .. math:: y(p) = \sum_u k(u)\, x(s p + u)

    With a stride only the pixels that are kept are computed. Edges are mirrored without repeating the edge pixel;
    the papers do not say how they treat edges. On a CPU this is a grouped convolution of 16 planes at a time, on CUDA a
    Fourier transform, because cuDNN's convolutions round their inputs to ten bits unless told otherwise.

    Args:
        x: (B, C, H, W), each side larger than half the kernel.
        kernels: (B, k, k), k odd.
        stride: pixels from one kept row or column to the next, starting with the first.

    Returns:
        (B, C, ceil(H / stride), ceil(W / stride)), in float32 for half precision.

    Raises:
        DataError: tensors of other shapes, or images not larger than half the kernel.

    Example:
        >>> kernels = gaussian_kernels(torch.full((2, 2), 1.8), torch.zeros(2))
        >>> blur(torch.rand(2, 3, 48, 48), kernels, stride=4).shape
        torch.Size([2, 3, 12, 12])
    """
    check_shape(x, ("B", "C", "H", "W"), "x")
    check_shape(kernels, (x.shape[0], "k", "k"), "kernels")
    if kernels.shape[1] != kernels.shape[2] or kernels.shape[2] % 2 == 0:
        raise DataError(f"kernels: expected (B, k, k) with k odd, got {describe(kernels)}.")
    x, radius = at_least_float32(x), kernels.shape[2] // 2
    planes, weight = x.flatten(0, 1), kernels.to(x.dtype).repeat_interleave(x.shape[1], 0)
    if x.is_cuda:
        out = _filter_by_fft(_mirror(planes, radius), weight)[:, ::stride, ::stride]
    else:
        count = _CPU_PLANES if x.device.type == "cpu" else planes.shape[0]
        parts = zip(planes.split(count), weight.split(count), strict=True)
        out = torch.cat([_filter_by_convolution(_mirror(part, radius), kernel, stride) for part, kernel in parts])
    return out.view(*x.shape[:2], *out.shape[1:])


def _filter_by_convolution(padded: Tensor, kernels: Tensor, stride: int) -> Tensor:
    with torch.autocast(padded.device.type, enabled=False):
        return F.conv2d(padded[None], kernels[:, None], stride=stride, groups=kernels.shape[0])[0]


def _filter_by_fft(padded: Tensor, kernels: Tensor) -> Tensor:
    size = padded.shape[-2:]
    # the conjugate makes it a correlation; the rows and columns that wrap around are cut off below
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels, s=size).conj()
    height, width = (length - kernels.shape[-1] + 1 for length in size)
    return torch.fft.irfft2(spectrum, s=size)[:, :height, :width]


def blur_bicubic_downsample(x: Tensor, lines: Tensor, scale: int) -> Tensor:
    r"""Blur with separable kernels, given by their profiles, and downsample, in two matrix products.

    .. math:: y = (D_H G_b)\, x\, (D_W G_b)^T

    D downsamples a column and G_b blurs it, mirrored edges and all, so the result is that of :func:`blur` with the
    kernel ``lines[b, :, None] * lines[b]`` followed by :func:`bicubic_downsample`.

    Args:
        x: (B, C, H, W), sides multiples of the scale and larger than half the kernel.
        lines: (B, k) profiles of the kernels, k odd.
        scale: the downsampling factor s, at least 2.

    Returns:
        (B, C, H / s, W / s), in float32 for half precision.

    Raises:
        ConfigError: a scale below 2.
        DataError: tensors of other shapes, or images of an unsuitable size.

    Example:
        >>> line = gaussian_kernels(torch.full((1, 2), 1.8), torch.zeros(1)).sum(1)
        >>> blur_bicubic_downsample(torch.rand(1, 3, 48, 48), line, scale=4).shape
        torch.Size([1, 3, 12, 12])
    """
    _check_downsampled(x, scale)
    check_shape(lines, (x.shape[0], "k"), "lines")
    if lines.shape[1] % 2 == 0:
        raise DataError(f"lines: expected (B, k) with k odd, got {describe(lines)}.")
    x = at_least_float32(x)
    lines = lines.to(x)
    height, width = x.shape[-2:]
    rows = _blurred(_bicubic_matrix(height, scale, x), lines)
    columns = rows if width == height else _blurred(_bicubic_matrix(width, scale, x), lines)
    return _both_sides(x, rows, columns)


def bicubic_downsample(x: Tensor, scale: int) -> Tensor:
    r"""Shrink images as MATLAB's ``imresize`` with antialiasing does (and BasicSR's): Keys' cubic with a = -0.5.

    .. math:: y = D_H\, x\, D_W^T, \quad D_{oi} \propto \sum_{i' \sim i} c\bigl((i' - s o - (s - 1) / 2) / s\bigr)

    over the pixels i' that are i after the edges were mirrored, the edge pixel repeated. Every entry is computed
    from small whole numbers, so that it is exact except for rounding, even at the far end of a large image.

    Args:
        x: (B, C, H, W), sides multiples of the scale and at least twice the scale.
        scale: the downsampling factor s, at least 2.

    Returns:
        (B, C, H / s, W / s), in float32 for half precision. Next to sharp edges values overshoot the range of x.

    Raises:
        ConfigError: a scale below 2.
        DataError: a tensor of another shape, or images of an unsuitable size.

    Example:
        >>> bicubic_downsample(torch.ones(1, 3, 32, 48), 4).shape
        torch.Size([1, 3, 8, 12])
    """
    _check_downsampled(x, scale)
    x = at_least_float32(x)
    height, width = x.shape[-2:]
    rows = _bicubic_matrix(height, scale, x)
    columns = rows if width == height else _bicubic_matrix(width, scale, x)
    return _both_sides(x, rows[None], columns[None])


def bicubic_upsample(x: Tensor, scale: int) -> Tensor:
    r"""Enlarge images as MATLAB's ``imresize`` does: Keys' cubic with a = -0.5.

    .. math:: y = U_H\, x\, U_W^T, \quad U_{oi} \propto \sum_{i' \sim i} c\bigl((o + 1/2) / s - 1/2 - i'\bigr)

    over the pixels i' that are i after the edges were mirrored, the edge pixel repeated. torch's own
    ``F.interpolate(mode="bicubic")`` has a = -0.75 and overshoots more.

    Args:
        x: (B, C, h, w).
        scale: the factor s; at 1 images stay as they are.

    Returns:
        (B, C, s h, s w), in float32 for half precision. Next to sharp edges values overshoot the range of x.

    Raises:
        ConfigError: a scale below 1.
        DataError: a tensor of another shape.

    Example:
        >>> bicubic_upsample(torch.ones(1, 3, 8, 12), 4).shape
        torch.Size([1, 3, 32, 48])
    """
    check_count(scale, "scale")
    check_shape(x, ("B", "C", "h", "w"), "x")
    x = at_least_float32(x)
    rows, columns = (_enlarging_matrix(length, scale, x) for length in x.shape[-2:])
    return _both_sides(x, rows[None], columns[None])


def _enlarging_matrix(length: int, scale: int, like: Tensor) -> Tensor:
    """The matrix (length * scale, length) that enlarges one side of an image."""
    at = torch.arange(length, device=like.device, dtype=like.dtype)
    centre = ((torch.arange(length * scale, device=like.device, dtype=like.dtype) + 0.5) / scale - 0.5)[:, None]
    weights = sum(_cubic(place - centre) for place in (at, -1 - at, 2 * length - 1 - at))
    assert isinstance(weights, Tensor)
    return weights / weights.sum(1, keepdim=True)


def _check_downsampled(x: Tensor, scale: int) -> None:
    check_count(scale, "scale", at_least=2)
    check_shape(x, ("B", "C", "H", "W"), "x")
    check_sides(x, scale, "x")


def check_sides(x: Tensor, scale: int, name: str) -> None:
    """Require images whose sides are multiples of the scale, and at least twice the scale.

    Raises:
        DataError: other sides, with the size to crop to.
    """
    height, width = x.shape[-2:]
    if min(height, width) < 2 * scale:
        raise DataError(
            f"{name}: expected sides of at least {2 * scale} pixels for scale {scale}, got {height} x {width}."
        )
    if height % scale or width % scale:
        fit = height // scale * scale, width // scale * scale
        raise DataError(
            f"{name}: expected height and width that are multiples of the scale {scale}, got {height} x {width}. "
            f"Crop to {fit[0]} x {fit[1]}: {name}[..., :{fit[0]}, :{fit[1]}]."
        )


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, zero from 2 on."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _bicubic_matrix(length: int, scale: int, like: Tensor) -> Tensor:
    """The matrix (length / scale, length) that shrinks one side of an image."""
    at = torch.arange(length, device=like.device, dtype=like.dtype)
    centre = at[::scale, None] + (scale - 1) / 2
    # a pixel and its two mirror images beyond the edges; more are out of reach for sides of twice the scale
    weights = sum(_cubic((place - centre) / scale) for place in (at, -1 - at, 2 * length - 1 - at))
    assert isinstance(weights, Tensor)
    return weights / weights.sum(1, keepdim=True)


def _blurred(matrix: Tensor, lines: Tensor) -> Tensor:
    """The matrices (B, h, H) that do both: each of B blurs with mirrored edges, then the matrix (h, H)."""
    radius, length = lines.shape[1] // 2, matrix.shape[1]
    check_mirrored(length, radius)
    # in float64 on CUDA, see _both_sides
    matrix, lines = _exactly(matrix), _exactly(lines)
    with torch.autocast(matrix.device.type, enabled=False):
        spread = F.conv1d(matrix[:, None], lines.flip(1)[:, None], padding=2 * radius).transpose(0, 1)
    inside = spread[..., radius:-radius].clone()
    inside[..., 1 : radius + 1] += spread[..., :radius].flip(-1)
    inside[..., -radius - 1 : -1] += spread[..., -radius:].flip(-1)
    return inside


def _exactly(x: Tensor) -> Tensor:
    """In float64 on CUDA: torch may be set to round float32 products to ten bits there, and these are small."""
    return x.double() if x.is_cuda else x


def _both_sides(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows[b] @ x[b, c] @ columns[b].T``; a single matrix serves all images."""
    with torch.autocast(x.device.type, enabled=False):
        narrow = torch.matmul(_exactly(x).flatten(1, 2), _exactly(columns).transpose(1, 2))
        narrow = narrow.view(*x.shape[:3], columns.shape[1])
        return torch.matmul(_exactly(rows)[:, None], narrow).to(x.dtype)


def blur_variant(x: Tensor, sigma: Tensor, size: int = 21, stride: int = 1) -> Tensor:
    r"""Blur each pixel with an isotropic Gaussian of its own width.

    .. math:: y(p) = \frac{\sum_u e^{-|u|^2 / 2 \sigma(s p)^2}\, x(s p + u)}{\sum_u e^{-|u|^2 / 2 \sigma(s p)^2}}

    CRL-SR, section 4.3. Exact: a sum of shifted images, weighted pixel by pixel, where the four images at the same
    distances along both axes share a weight; the (B, C k k, H, W) patches are never formed. If the width is the same
    down every column, rows and columns are blurred one after the other, which is exact then, and faster. Edges are
    mirrored, as in :func:`blur`. With a stride only the pixels that are kept are computed.

    Args:
        x: (B, C, H, W), each side larger than half the kernel.
        sigma: (B, 1, H, W) standard deviations in pixels, at least 0, or (B, 1, 1, W) if the width is the same down a
            column.
        size: pixels along each side of the kernels, odd.
        stride: pixels from one kept row or column to the next, starting with the first.

    Returns:
        (B, C, ceil(H / stride), ceil(W / stride)), in float32 for half precision.

    Raises:
        ConfigError: an even size.
        DataError: tensors of other shapes, or images not larger than half the kernel.

    Example:
        >>> width = torch.linspace(0.2, 4, 48).view(1, 1, 1, 48)  # from left to right
        >>> blur_variant(torch.rand(1, 3, 48, 48), width).shape
        torch.Size([1, 3, 48, 48])
    """
    check_kernel_size(size, "blur_variant(size)")
    check_shape(x, ("B", "C", "H", "W"), "x")
    check_shape(sigma, (x.shape[0], 1, "H or 1", x.shape[3]), "sigma")
    if sigma.shape[2] != 1:
        check_shape(sigma, (x.shape[0], 1, x.shape[2], x.shape[3]), "sigma")
    x = at_least_float32(x)
    sigma = sigma.to(x.dtype)[..., ::stride, ::stride]
    pixels = _CPU_PIXELS if x.device.type == "cpu" else _GPU_PIXELS
    images = max(1, pixels // (-(-x.shape[2] // stride) * sigma.shape[3]))
    parts = zip(x.split(images), sigma.split(images), strict=True)
    return torch.cat([_blur_images(_mirror(part, size // 2), width, size // 2, stride) for part, width in parts])


def _blur_images(padded: Tensor, sigma: Tensor, radius: int, stride: int) -> Tensor:
    """Blur padded images, a band of rows at a time where the width changes from row to row."""
    batch, _, height, width = sigma.shape
    if height == 1:
        weights = _profile(sigma, radius)
        return _weighted(_weighted(padded, weights, 3, stride), weights, 2, stride)
    rows = max(1, (_CPU_PIXELS if padded.device.type == "cpu" else _GPU_PIXELS) // (batch * width))
    bands = []
    for top in range(0, height, rows):
        weights = _profile(sigma[:, :, top : top + rows], radius)
        last = (top + weights[0].shape[2] - 1) * stride + 2 * radius
        bands.append(_blur_pixels(padded[:, :, top * stride : last + 1], weights, stride))
    return torch.cat(bands, 2)


def _profile(sigma: Tensor, radius: int) -> list[Tensor]:
    """Weights along one axis at the distances 0 to radius; those at -radius to radius sum to 1."""
    exponent = -0.5 / _width(sigma) ** 2
    weights = [_no_denormals(torch.exp(distance**2 * exponent)) for distance in range(radius + 1)]
    total = weights[0] + 2 * torch.stack(weights[1:]).sum(0)
    return [weight / total for weight in weights]


def _both_ways(padded: Tensor, distance: int, radius: int, dim: int, stride: int) -> Tensor:
    """The sum of the two pixels at a distance from each kept pixel along an axis, which is padded by radius."""
    length = padded.shape[dim] - 2 * radius

    def at(offset: int) -> Tensor:
        kept = [slice(None)] * padded.ndim
        kept[dim] = slice(radius + offset, radius + offset + length, stride)
        return padded[tuple(kept)]

    return at(0) if distance == 0 else at(distance) + at(-distance)


def _weighted(padded: Tensor, weights: list[Tensor], dim: int, stride: int) -> Tensor:
    """Weighted sum along one axis, padded there; each pixel has its own weights."""
    radius = len(weights) - 1
    out = _both_ways(padded, 0, radius, dim, stride) * weights[0]
    for distance in range(1, radius + 1):
        out.addcmul_(_both_ways(padded, distance, radius, dim, stride), weights[distance])
    return out


def _blur_pixels(padded: Tensor, weights: list[Tensor], stride: int) -> Tensor:
    """Weighted sum along both axes; each pixel has its own weights."""
    radius = len(weights) - 1
    out: Tensor | None = None
    for distance, weight in enumerate(weights):
        row = _weighted(_both_ways(padded, distance, radius, 2, stride), weights, 3, stride)
        out = row * weight if out is None else out.addcmul_(row, weight)
    assert out is not None
    return out


def stretch(control: Tensor, size: tuple[int, int], smooth: bool = True) -> Tensor:
    r"""A field over an image from a few values spread evenly over it, the first and last at its edges.

    .. math:: f(p) = (1 - w)\, c_i + w\, c_{i + 1}, \quad w = t^2 (3 - 2 t) \text{ or } t

    along each axis, where t goes from 0 at one value to 1 at the next. The field passes through the values and stays
    between the smallest and the largest.

    Args:
        control: (B, 1, h, w) values. Along an axis with a single value the field does not vary and keeps the size 1.
        size: (H, W) of the image.
        smooth: whether the slope is continuous too; otherwise the values are joined by straight lines.

    Returns:
        (B, 1, H, W), or 1 in place of H or W.

    Raises:
        DataError: a tensor of another shape.

    Example:
        >>> stretch(torch.tensor([[[[5.0, 50.0]]]]), (8, 4), smooth=False)
        tensor([[[[ 5., 20., 35., 50.]]]])
    """
    check_shape(control, ("B", 1, "h", "w"), "control")
    for dim, length in zip((2, 3), size, strict=True):
        count = control.shape[dim]
        if count == 1:
            continue
        # whole numbers until the division: the last pixel lies on the last value to the last bit
        place = torch.arange(length, device=control.device) * (count - 1)
        steps = max(length - 1, 1)
        before = (place // steps).clamp_max(count - 2)
        way = (place - before * steps).to(control.dtype) / steps
        if smooth:
            way = way * way * (3 - 2 * way)
        way = way.view([-1 if axis == dim else 1 for axis in range(4)])
        control = torch.lerp(control.index_select(dim, before), control.index_select(dim, before + 1), way)
    return control


def _width(sigma: Tensor) -> Tensor:
    """Widths to divide by: with 0.01 the neighbour's weight already is 0 in float64."""
    return sigma.clamp_min(0.01)


def _no_denormals(weights: Tensor) -> Tensor:
    """Set weights to 0 that cannot change a sum, even in float64: numbers near 1e-40 make a CPU much slower."""
    return F.threshold(weights, 1e-17, 0.0)


def _mirror(x: Tensor, radius: int) -> Tensor:
    """Mirror the edges of (..., H, W) without repeating the edge pixel; faster than ``F.pad`` on a CPU."""
    height, width = x.shape[-2:]
    check_mirrored(min(height, width), radius)
    out = x.new_empty(*x.shape[:-2], height + 2 * radius, width + 2 * radius)
    middle = out[..., radius:-radius, :]
    middle[..., radius:-radius] = x
    middle[..., :radius] = x[..., 1 : radius + 1].flip(-1)
    middle[..., -radius:] = x[..., -radius - 1 : -1].flip(-1)
    out[..., :radius, :] = out[..., radius + 1 : 2 * radius + 1, :].flip(-2)
    out[..., -radius:, :] = out[..., -2 * radius - 1 : -radius - 1, :].flip(-2)
    return out


def check_mirrored(length: int, radius: int) -> None:
    """Require sides that can be mirrored.

    Raises:
        DataError: a side not longer than half the kernel.
    """
    if length <= radius:
        raise DataError(
            f"x: expected images with sides of more than {radius} pixels for kernels of {2 * radius + 1} x "
            f"{2 * radius + 1}, got {length}. Use larger images or a smaller kernel."
        )


def check_kernel_size(size: object, name: str) -> int:
    """Require an odd number of at least 3 and return it.

    Raises:
        ConfigError: anything else.
    """
    if check_count(size, name, at_least=3) % 2 == 0:
        raise ConfigError(f"{name}: expected an odd number of pixels, so that the kernel has a centre, got {size}.")
    assert isinstance(size, int)
    return size


def check_downsample(name: object, where: str) -> None:
    """Require the name of a way to downsample.

    Raises:
        ConfigError: another name.
    """
    if name not in get_args(Downsampling):
        raise ConfigError(f"{where}: {unknown('downsampling', name, list(get_args(Downsampling)))}")
