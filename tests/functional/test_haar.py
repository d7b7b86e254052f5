"""haar_high_bands against a float64 loop over blocks."""

from __future__ import annotations

import pytest
import torch
from oracles import haar_loops
from tolerances import assert_close

from contrastive_sr.errors import DataError
from contrastive_sr.functional import haar_high_bands


def image(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 6, 4), (1, 2, 4, 10)])
def test_equals_the_definition(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x = image(*shape, dtype=dtype).to(device)
    assert_close(haar_high_bands(x), haar_loops(x), "exact", dtype=dtype, scale=1)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 6, 4), (1, 2, 5, 7)])
def test_undecimated_has_the_block_of_every_pixel(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x = image(*shape, dtype=dtype).to(device)
    bands = haar_high_bands(x, decimated=False)
    assert bands.shape == (shape[0], 3 * shape[1], *shape[2:])
    height, width = (side // 2 * 2 for side in shape[-2:])
    for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
        bottom, right = top + (height - top) // 2 * 2, left + (width - left) // 2 * 2
        if bottom > top and right > left:
            block = haar_loops(x[..., top:bottom, left:right])
            assert_close(bands[..., top:bottom:2, left:right:2], block, "exact", dtype=dtype, scale=1)
    edges = torch.cat((x, x[..., -1:, :]), 2)
    edges = torch.cat((edges, edges[..., -1:]), 3)  # at the edges the last row and column twice
    last = haar_loops(edges[..., -2:, -2:])
    assert_close(bands[..., -1:, -1:], last, "exact", dtype=dtype, scale=1)


def test_undecimated_moves_with_the_image() -> None:
    x = image(1, 3, 12, 14)
    moved = haar_high_bands(x[..., 1:, 1:], decimated=False)
    assert torch.equal(moved, haar_high_bands(x, decimated=False)[..., 1:, 1:])


def test_each_band_answers_to_its_own_pattern() -> None:
    rows = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    for position, pattern in enumerate((rows, rows.T, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))):
        bands = haar_high_bands(pattern.expand(1, 1, 2, 2))
        expected = torch.zeros(3)
        expected[position] = 2.0
        assert torch.equal(bands.flatten(), expected)


def test_is_orthonormal() -> None:
    x = image(2, 3, 8, 6)
    low = torch.nn.functional.avg_pool2d(x, 2) * 2
    energy = low.square().sum() + haar_high_bands(x).square().sum()
    assert_close(energy, x.square().sum(), "exact")


def test_constants_vanish() -> None:
    assert haar_high_bands(torch.full((1, 3, 8, 8), 0.37)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = image(1, 3, 4, 6, dtype=dtype)
    bands = haar_high_bands(x)
    assert bands.dtype == dtype
    assert_close(bands, haar_loops(x), "exact", dtype=dtype, scale=1)


def test_gradients() -> None:
    x = image(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(haar_high_bands, x)
    assert torch.autograd.gradgradcheck(haar_high_bands, x)


@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_odd_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"expected even H and W, got {size[0]} x {size[1]}.*multiple of 2"):
        haar_high_bands(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(3, 8, 8), r"\(B, C, H, W\).*\(3, 8, 8\).*x\[None\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating-point tensor.*uint8"),
        (torch.zeros(0, 3, 8, 8), "non-empty"),
        ([1.0], "floating-point tensor.*list"),
    ],
)
def test_wrong_input_is_refused(x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        haar_high_bands(x)  # type: ignore[arg-type]
