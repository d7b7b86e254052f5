"""How close numbers must be that were computed in one precision; the one place where tests take tolerances from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Level = Literal["exact", "close", "loose"]
Numbers = Tensor | float | Sequence[float]

# exact: the rounding of a few operations; close: long sums in another order; loose: long chains, small differences
TOLERANCES: dict[torch.dtype, dict[Level, float]] = {
    torch.float64: {"exact": 5e-15, "close": 1e-12, "loose": 1e-10},
    torch.float32: {"exact": 5e-7, "close": 5e-6, "loose": 1e-4},
    torch.float16: {"exact": 1e-3, "close": 2e-3, "loose": 5e-3},
    torch.bfloat16: {"exact": 8e-3, "close": 1e-2, "loose": 1e-1},
}


def tolerance(dtype: torch.dtype, level: Level = "close") -> float:
    """The largest relative error that is allowed."""
    return TOLERANCES[dtype][level]


def assert_close(
    actual: Numbers,
    expected: Numbers,
    level: Level = "close",
    *,
    dtype: torch.dtype | None = None,
    scale: float = 0.0,
    times: float = 1.0,
) -> None:
    """Require ``|actual - expected| <= times * tolerance * (|expected| + scale)``: equal but for rounding.

    Args:
        actual: what was computed.
        expected: what it should be.
        level: how much rounding there may be.
        dtype: the precision in which the numbers were computed; they may then be of any dtype and on any device. None:
            that of the tensor ``actual``, which ``expected`` must share, and float64 for plain numbers.
        scale: the size of the numbers whose sum or difference a value is, where that may be far smaller than they are.
        times: how many times the table's tolerance is allowed, for errors that grow or shrink with something.
    """
    allowed = times * tolerance(dtype or (actual.dtype if isinstance(actual, Tensor) else torch.float64), level)
    if dtype is not None:
        actual, expected = (torch.as_tensor(x, dtype=torch.float64, device="cpu").detach() for x in (actual, expected))
    torch.testing.assert_close(actual, expected, rtol=allowed, atol=allowed * scale)
