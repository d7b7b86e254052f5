"""Kernels, blur, downsampling and fields against pixel loops in float64, and against BasicSR's imresize."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from degradation_oracles import (
    bicubic_loops,
    blur_loops,
    field_loops,
    gaussian_loops,
)
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.degradations import (
    bicubic_downsample,
    bicubic_upsample,
    blur,
    blur_variant,
    functional,
    gaussian_kernels,
)
from contrastive_sr.degradations.functional import blur_bicubic_downsample, stretch
from contrastive_sr.errors import ConfigError, DataError


def images(
    batch: int,
    height: int,
    width: int,
    channels: int = 3,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Tensor:
    generator = torch.Generator().manual_seed(batch * 1000 + height * 10 + width)
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64).to(device, dtype)


def some_kernels(batch: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Without any symmetry, so that a flip would show."""
    kernels = torch.rand(batch, size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return (kernels / kernels.sum((1, 2), keepdim=True)).to(dtype)


# ------------------------------------------------------------------------------------------------------ kernels


@pytest.mark.parametrize("size", [3, 7, 21])
def test_kernels_are_the_density_at_the_pixels(size: int) -> None:
    sigma = torch.tensor([[0.4, 0.4], [1.3, 3.7], [4.0, 0.5], [6.0, 2.0]], dtype=torch.float64)
    angle = torch.tensor([0.0, 0.3, 1.2, 2.9], dtype=torch.float64)
    kernels = gaussian_kernels(sigma, angle, size)
    expected = [gaussian_loops(*s, a, size) for s, a in zip(sigma.tolist(), angle.tolist(), strict=True)]
    assert_close(kernels, torch.tensor(expected, dtype=torch.float64), scale=0.001)


def test_the_first_width_lies_from_left_to_right_and_turns_downwards() -> None:
    wide = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    flat, upright = (
        gaussian_kernels(wide, torch.tensor([angle], dtype=torch.float64))[0] for angle in (0, math.pi / 2)
    )
    assert flat[10].count_nonzero() == 21  # a row, from left to right
    assert flat[10, 13] > flat[13, 10]
    assert_close(upright, flat.T, "loose", scale=1e-05)
    diagonal = gaussian_kernels(wide, torch.tensor([math.pi / 4], dtype=torch.float64))[0]
    assert diagonal[13, 13] > diagonal[13, 7]  # down and to the right
    assert torch.allclose(diagonal, diagonal.flip(0, 1))


def test_width_zero_is_no_blur() -> None:
    kernels = gaussian_kernels(torch.zeros(1, 2), torch.zeros(1), 5)
    expected = torch.zeros(5, 5)
    expected[2, 2] = 1
    assert torch.equal(kernels[0], expected)
    x = images(1, 12, 12, dtype=torch.float32)
    assert torch.equal(blur(x, kernels), x)
    assert torch.equal(blur_variant(x, torch.zeros(1, 1, 12, 12), 5), x)


def test_kernels_hold_no_denormals() -> None:
    kernels = gaussian_kernels(torch.tensor([[0.2, 0.2], [0.3, 4.0]]), torch.tensor([0.0, 0.7]))
    assert kernels[kernels > 0].min() > torch.finfo(torch.float32).tiny
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2))


# --------------------------------------------------------------------------------------------------------- blur


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_blur_is_each_image_with_its_kernel(size: int, stride: int, dtype: torch.dtype, device: str) -> None:
    x, kernels = images(2, 12, 9, dtype=dtype, device=device), some_kernels(2, size)
    full = blur_loops(x, lambda b, i, j: kernels[b].tolist())
    assert_close(blur(x, kernels.to(x), stride), full[..., ::stride, ::stride], "exact", dtype=dtype, scale=1)


def test_blur_with_a_kernel_of_21_is_that_of_a_loop(dtype: torch.dtype, device: str) -> None:
    x, kernel = (
        images(1, 14, 21, channels=1, dtype=dtype, device=device),
        gaussian_kernels(torch.tensor([[1.1, 3.5]]), torch.tensor([0.6])),
    )
    expected = blur_loops(x, lambda b, i, j: kernel[0].tolist())
    assert_close(blur(x, kernel.to(device)), expected, "exact", dtype=dtype, scale=1)


def test_planes_that_do_not_fill_a_call_are_filtered_too() -> None:
    x, kernels = images(7, 8, 8), some_kernels(7, 3)
    together = blur(x, kernels)
    for b in range(7):
        assert_close(together[b], blur(x[b : b + 1], kernels[b : b + 1])[0], "exact", scale=1)


def test_the_fourier_way_of_gpus_is_the_same() -> None:
    x, kernels = images(1, 15, 22, channels=4)[0], some_kernels(4, 7)
    ways = functional._filter_by_fft(x, kernels), functional._filter_by_convolution(x, kernels, 1)
    assert_close(*ways, "exact", scale=1)


# ------------------------------------------------------------------------------------------------ downsampling


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_is_that_of_a_loop(scale: int, dtype: torch.dtype, device: str) -> None:
    for height, width in ((2 * scale, 3 * scale), (24, 48)):
        x = images(2, height, width, channels=2, dtype=dtype, device=device)
        assert_close(bicubic_downsample(x, scale), bicubic_loops(x, scale), "exact", dtype=dtype, scale=1)


@pytest.mark.basicsr
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_matlab_s_imresize_as_basicsr_has_it(scale: int) -> None:
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    imresize = import_basicsr("basicsr.utils.matlab_functions").imresize
    for height, width in ((24, 36), (60, 96)):
        x = images(1, height, width, dtype=torch.float32)
        assert_close(bicubic_downsample(x, scale)[0], imresize(x[0], 1 / scale), "exact", scale=1)


def test_an_image_of_one_row_is_enlarged_as_if_it_were_repeated() -> None:
    row = torch.rand(1, 3, 1, 9, dtype=torch.float64)
    assert_close(bicubic_upsample(row, 4), bicubic_upsample(row.expand(1, 3, 5, 9), 4)[:, :, :4], "exact", scale=1)
    pixel = row[..., :1]
    assert_close(bicubic_upsample(pixel, 3), pixel.expand(1, 3, 3, 3), "exact", scale=1)


def test_bicubic_is_as_exact_at_the_end_of_a_long_image() -> None:
    x = images(1, 8, 3000, channels=1)
    single, double = bicubic_downsample(x.float(), 4), bicubic_downsample(x, 4)
    assert_close(single, double, "exact", dtype=torch.float32, scale=1, times=0.5)
    assert_close(double.flip(3), bicubic_downsample(x.flip(3), 4), "exact", scale=1)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_blur_and_bicubic_in_one_are_the_two_in_turn(scale: int, dtype: torch.dtype, device: str) -> None:
    x, lines = images(2, 12, 24, dtype=dtype, device=device), some_kernels(2, 7).sum(1)  # not symmetric
    blurred = blur_loops(x, lambda b, i, j: (lines[b][:, None] * lines[b]).tolist())
    both = blur_bicubic_downsample(x, lines.to(device), scale)
    assert_close(both, bicubic_loops(blurred, scale), "exact", dtype=dtype, scale=1)


# ------------------------------------------------------------------------------------------ a width each pixel


def variant_loops(x: Tensor, sigma: Tensor, size: int) -> Tensor:
    widths = sigma.expand(-1, -1, x.shape[2], -1)[:, 0].clamp_min(0.01).tolist()
    return blur_loops(x, lambda b, i, j: gaussian_loops(widths[b][i][j], widths[b][i][j], 0, size))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", ["all alike", "different"])
def test_each_pixel_is_blurred_with_its_own_width(stride: int, rows: str, dtype: torch.dtype, device: str) -> None:
    x = images(2, 9, 12, channels=2, dtype=dtype, device=device)
    sigma = 0.1 + 3.9 * images(2, 1 if rows == "all alike" else 9, 12, channels=1)
    expected = variant_loops(x, sigma, 7)[..., ::stride, ::stride]
    assert_close(blur_variant(x, sigma.to(device), 7, stride), expected, "exact", dtype=dtype, scale=1)


def test_kernels_of_21_per_pixel(dtype: torch.dtype, device: str) -> None:
    x, sigma = images(1, 13, 14, channels=1, dtype=dtype, device=device), 0.2 + 3.8 * images(1, 13, 14, channels=1)
    expected = variant_loops(x, sigma, 21)
    assert_close(blur_variant(x, sigma.to(device)), expected, "exact", dtype=dtype, scale=1)


def test_one_width_everywhere_is_the_ordinary_blur() -> None:
    x, width = images(1, 24, 22), torch.full((1, 1, 24, 22), 1.7, dtype=torch.float64)
    kernel = gaussian_kernels(width[:, 0, 0, :2], torch.zeros(1, dtype=torch.float64))
    assert_close(blur_variant(x, width), blur(x, kernel), "exact", scale=1)
    assert_close(blur_variant(x, width[:, :, :1]), blur(x, kernel), "exact", scale=1)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("rows", [1, 17])
def test_bands_of_rows_and_parts_of_a_batch_make_no_difference(
    stride: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, sigma = images(5, 17, 11), 4 * images(5, rows, 11, channels=1)
    whole = blur_variant(x, sigma, 5, stride)
    for pixels in (1, 30, 2 * 17 * 11):
        monkeypatch.setattr(functional, "_CPU_PIXELS", pixels)
        assert torch.equal(blur_variant(x, sigma, 5, stride), whole)


# ------------------------------------------------------------------------------------------------------- fields


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("shape", [(4, 4), (1, 2), (2, 3), (1, 1)])
def test_fields_pass_through_their_values(smooth: bool, shape: tuple[int, int], device: str) -> None:
    control = images(2, *shape, channels=1, device=device)
    field = stretch(control, (10, 13), smooth)
    assert field.shape == (2, 1, *(1 if count == 1 else length for count, length in zip(shape, (10, 13), strict=True)))
    for b in range(2):
        expected = torch.tensor(field_loops(control[b, 0].tolist(), 10, 13, smooth), dtype=torch.float64)
        assert_close(field[b, 0].expand(10, 13), expected, "exact", dtype=torch.float64, scale=1)
    assert torch.equal(field[..., 0, 0], control[..., 0, 0])
    assert torch.equal(field[..., -1, -1], control[..., -1, -1])
    assert field.min() >= control.min()
    assert field.max() <= control.max()


def test_a_smooth_field_has_no_kinks() -> None:
    field = stretch(images(1, 1, 4, channels=1), (1, 3001))[0, 0, 0]
    assert field.diff().diff().abs().max() < 0.01 * field.diff().abs().max()
    straight = stretch(images(1, 1, 4, channels=1), (1, 3001), smooth=False)[0, 0, 0]
    assert straight.diff().diff().abs().max() > 0.1 * straight.diff().abs().max()


# ------------------------------------------------------------------------------------------ precision, gradient

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "blur": lambda x: blur(x, some_kernels(x.shape[0], 3).to(x.device)),
    "blur, strided": lambda x: blur(x, some_kernels(x.shape[0], 3).to(x.device), 2),
    "bicubic": lambda x: bicubic_downsample(x, 2),
    "blur and bicubic": lambda x: blur_bicubic_downsample(x, some_kernels(x.shape[0], 3).to(x.device).sum(1), 2),
    "variant": lambda x: blur_variant(x, 0.3 + images(x.shape[0], *x.shape[2:], channels=1).to(x.device), 3),
    "variant, columns": lambda x: blur_variant(x, 0.3 + images(x.shape[0], 1, x.shape[3], channels=1).to(x.device), 3),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name: str, device: str) -> None:
    x = images(1, 4, 6, channels=2, device=device).requires_grad_()
    assert torch.autograd.gradcheck(CALLS[name], (x,))
    assert torch.autograd.gradgradcheck(CALLS[name], (x,))


@pytest.mark.parametrize("name", CALLS)
def test_half_precision_is_computed_in_float32_and_autocast_changes_nothing(name: str, device: str) -> None:
    x = images(2, 8, 8, dtype=torch.float32, device=device)
    expected = CALLS[name](x)
    assert expected.dtype == torch.float32
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(CALLS[name](x), expected)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(CALLS[name](x.to(dtype)), CALLS[name](x.to(dtype).float()))


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bicubic_downsample(torch.rand(1, 3, 32, 30), 4),
            r"x: expected .* multiples of the scale 4, got 32 x 30",
        ),
        (lambda: bicubic_downsample(torch.rand(1, 3, 32, 30), 4), r"Crop to 32 x 28: x\[\.\.\., :32, :28\]"),
        (lambda: bicubic_downsample(torch.rand(1, 3, 4, 32), 4), r"sides of at least 8 pixels for scale 4, got 4 x 32"),
        (lambda: bicubic_downsample(torch.rand(3, 32, 32), 4), r"Add a batch dimension"),
        (
            lambda: blur(torch.rand(1, 3, 10, 32), some_kernels(1, 21)),
            r"more than 10 pixels for kernels of 21 x 21, got 10",
        ),
        (lambda: blur(torch.rand(2, 3, 9, 9), some_kernels(1, 3)), r"kernels: expected .*\(2, k, k\)"),
        (
            lambda: blur(torch.rand(1, 3, 9, 9), torch.rand(1, 4, 4)),
            r"k odd, got a float32 tensor of shape \(1, 4, 4\)",
        ),
        (lambda: blur_variant(torch.rand(1, 3, 9, 9), torch.rand(1, 1, 8, 9), 3), r"sigma: expected .*\(1, 1, 9, 9\)"),
        (lambda: blur_variant(torch.rand(1, 3, 9, 9), torch.rand(1, 1, 1, 8), 3), r"sigma: expected .*H or 1, 9\)"),
        (lambda: gaussian_kernels(torch.rand(2, 1), torch.rand(2)), r"sigma: expected .*\(B, 2\)"),
        (lambda: gaussian_kernels(torch.rand(2, 2), torch.rand(3)), r"angle: expected .*\(2\)"),
        (lambda: blur_bicubic_downsample(torch.rand(1, 3, 8, 8), torch.rand(1, 4), 2), r"lines: .*k odd"),
        (lambda: stretch(torch.rand(1, 2, 4, 4), (9, 9)), r"control: expected"),
    ],
)
def test_tensors_that_do_not_fit(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_kernels(torch.rand(1, 2), torch.rand(1), 4), r"an odd number of pixels.*got 4"),
        (lambda: gaussian_kernels(torch.rand(1, 2), torch.rand(1), 1), r"whole number of at least 3, got 1"),
        (lambda: bicubic_downsample(torch.rand(1, 3, 8, 8), 1), r"scale: expected a whole number of at least 2, got 1"),
    ],
)
def test_arguments_that_make_no_sense(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
