"""The sums and gradients of :mod:`~contrastive_sr.functional.logsumexp` as fused kernels; needs Triton.

A program takes some rows of the logits and goes along them, block by block, keeping the largest exponent so far; no
logit is ever written to memory. Sums over columns are those over the rows of the transpose, and the gradient at the
candidates is that at the anchors with the two exchanged: so there are two kernels, nothing is added by several programs
at once, and the same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

if int(triton.__version__.split(".")[0]) < 3:
    raise ImportError(f"Triton {triton.__version__} has no `input_precision`")

WIDEST = 512  # features of a vector; a gradient of more would not fit into a program's registers
# Compiled for sm_80 and sm_90 such blocks need at most 64 KiB of shared memory and, but for some bytes, only registers.
SUM_BLOCK = {"block_rows": 64, "block_columns": 32, "block_features": 32}
OPTIONS = {"num_warps": 8, "num_stages": 2}
_NONE = (None, None)


@triton.jit
def _logits(
    a, b, rows, columns, row_count, column_count, width, scale, block_features: tl.constexpr, precision: tl.constexpr
):
    """A block of logits, -inf where there is a positive or no candidate."""
    x = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, width, block_features):
        features = start + tl.arange(0, block_features)
        inside = features < width
        left = tl.load(
            a + rows[:, None] * width + features[None, :],
            mask=(rows < row_count)[:, None] & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            b + columns[None, :] * width + features[:, None],
            mask=(columns < column_count)[None, :] & inside[:, None],
            other=0.0,
        )
        x = tl.dot(left, right, x, input_precision=precision)
    left_out = (rows[:, None] == columns[None, :]) | (columns >= column_count)[None, :]
    return tl.where(left_out, float("-inf"), x * scale)


@triton.jit
def sum_rows(
    a,
    b,
    total_out,
    shift_out,
    row_count,
    column_count,
    width,
    scale,
    blocks,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_features: tl.constexpr,
    precision: tl.constexpr,
):
    """For each row of the logits its largest and, in float64, the sum of the exponentials of all less that."""
    image = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * block_rows + tl.arange(0, block_rows)
    a += image * row_count * width
    b += image * column_count * width
    shift = tl.full((block_rows,), float("-inf"), tl.float32)
    total = tl.zeros((block_rows,), tl.float64)
    for first in range(0, column_count, block_columns):
        columns = first + tl.arange(0, block_columns)
        x = _logits(a, b, rows, columns, row_count, column_count, width, scale, block_features, precision)
        largest = tl.maximum(shift, tl.max(x, 1))
        safe = tl.where(largest == float("-inf"), 0.0, largest)  # nothing but a positive so far
        terms = tl.sum(tl.exp(x - safe[:, None]), 1)
        total = total * tl.exp((shift - safe).to(tl.float64)) + terms
        shift = largest
    at = image * row_count + rows
    tl.store(total_out + at, total, mask=rows < row_count)
    tl.store(shift_out + at, shift.to(tl.float64), mask=rows < row_count)


@triton.jit
def spread_rows(
    a,
    b,
    gradient_out,
    positive,
    of_rows,
    row_shift,
    of_columns,
    column_shift,
    row_count,
    column_count,
    positives,
    width,
    scale,
    blocks,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_features: tl.constexpr,
    held: tl.constexpr,
    precision: tl.constexpr,
):
    """The gradient at ``a``: the slopes of a row of logits times ``b``.

    Row i of the slopes is ``of_rows[i] * exp(x - row_shift[i]) + of_columns * exp(x - column_shift)``, as far as these
    are there, and ``positive[i]`` at the positive.
    """
    image = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * block_rows + tl.arange(0, block_rows)
    there = rows < row_count
    a += image * row_count * width
    b += image * column_count * width
    own = tl.load(positive + image * positives + rows, mask=rows < positives, other=0.0)
    if of_rows is not None:
        row_factor = tl.load(of_rows + image * row_count + rows, mask=there, other=0.0)
        row_exponent = tl.load(row_shift + image * row_count + rows, mask=there, other=0.0)
    features = tl.arange(0, held)
    gradient = tl.zeros((block_rows, held), tl.float32)
    for first in range(0, column_count, block_columns):
        columns = first + tl.arange(0, block_columns)
        inside = columns < column_count
        x = _logits(a, b, rows, columns, row_count, column_count, width, scale, block_features, precision)
        slopes = tl.zeros((block_rows, block_columns), tl.float32)
        if of_rows is not None:
            slopes += row_factor[:, None] * tl.exp(x - row_exponent[:, None])
        if of_columns is not None:
            column_factor = tl.load(of_columns + image * column_count + columns, mask=inside, other=0.0)
            column_exponent = tl.load(column_shift + image * column_count + columns, mask=inside, other=0.0)
            slopes += column_factor[None, :] * tl.exp(x - column_exponent[None, :])
        slopes = tl.where(rows[:, None] == columns[None, :], own[:, None], slopes)
        vectors = tl.load(
            b + columns[:, None] * width + features[None, :],
            mask=inside[:, None] & (features < width)[None, :],
            other=0.0,
        )
        gradient = tl.dot(slopes, vectors, gradient, input_precision=precision)
    tl.store(
        gradient_out + image * row_count * width + rows[:, None] * width + features[None, :],
        gradient,
        mask=there[:, None] & (features < width)[None, :],
    )


def spread_block(width: int) -> dict[str, int]:
    """The block of :func:`spread_rows` for vectors of this many features."""
    held = max(16, triton.next_power_of_2(width))
    rows, columns = (64, 32) if held <= 128 else (32, 32) if held <= 256 else (32, 16)
    return {"block_rows": rows, "block_columns": columns, "block_features": 32, "held": held}


def takes(vectors: Tensor) -> bool:
    """Whether the kernels take such vectors (B, M, D): in float32, not too wide, on a GPU.

    In Triton's interpreter, which is for tests, on a CPU.
    """
    there = vectors.is_cuda or not isinstance(sum_rows, triton.JITFunction)
    return there and vectors.dtype == torch.float32 and vectors.shape[-1] <= WIDEST


def sum_up(a: Tensor, b: Tensor, scale: float, total: Tensor, shift: Tensor) -> None:
    """Sums of exponentials over each row's negatives, of ``scale * a @ b.mT``.

    Args:
        a: (B, M, D) contiguous.
        b: (B, K, D) contiguous; those of one index are positives.
        scale: one over the temperature.
        total: (B, M) contiguous, in float64. The sums become ``total * e ** shift``.
        shift: as ``total``.
    """
    blocks = triton.cdiv(a.shape[1], SUM_BLOCK["block_rows"])
    sizes = (a.shape[1], b.shape[1], a.shape[2], scale, blocks)
    with torch.cuda.device_of(a):
        sum_rows[(len(a) * blocks,)](a, b, total, shift, *sizes, precision=_precision(), **SUM_BLOCK, **OPTIONS)


def spread(
    a: Tensor,
    b: Tensor,
    scale: float,
    gradient: Tensor,
    positive: Tensor,
    of_rows: tuple[Tensor, Tensor] | None,
    of_columns: tuple[Tensor, Tensor] | None,
) -> None:
    """The gradient of the sums.

    Args:
        a: (B, M, D) contiguous.
        b: (B, K, D) contiguous; those of one index are positives.
        scale: one over the temperature.
        gradient: (B, M, D) contiguous; becomes the slopes times ``b``.
        positive: (B, min(M, K)) slopes at the positives.
        of_rows: (B, M) twice, factor and exponent: the slope at a negative x is ``factor * e ** (x - exponent)``.
        of_columns: (B, K) twice; added to that.
    """
    block = spread_block(a.shape[2])
    blocks = triton.cdiv(a.shape[1], block["block_rows"])
    factors = [
        part if part is None else part.contiguous() for parts in (of_rows, of_columns) for part in parts or _NONE
    ]
    sizes = (a.shape[1], b.shape[1], positive.shape[1], a.shape[2], scale, blocks)
    with torch.cuda.device_of(a):
        spread_rows[(len(a) * blocks,)](
            a, b, gradient, positive.contiguous(), *factors, *sizes, precision=_precision(), **block, **OPTIONS
        )


def _precision() -> str:
    """Precision of the products: TF32 where torch may use it, else three such products, about as good as float32."""
    matmul = torch.backends.cuda.matmul
    coarse = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if coarse else "tf32x3"
