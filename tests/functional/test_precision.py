"""at_least_float32, and how its gradient gets back into half precision."""

from __future__ import annotations

import pytest
import torch

from contrastive_sr.functional.precision import at_least_float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    x = torch.tensor([1.5, -2.0], dtype=dtype, requires_grad=True)
    y = at_least_float32(x)
    assert y.dtype == torch.promote_types(dtype, torch.float32)
    assert y.tolist() == [1.5, -2.0]
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([0.25, -3.0], dtype=y.dtype))
    assert gradient.dtype == dtype
    assert gradient.tolist() == [0.25, -3.0]


def test_float16_gradients_do_not_overflow() -> None:
    x = torch.zeros(3, dtype=torch.float16, requires_grad=True)
    (gradient,) = torch.autograd.grad(at_least_float32(x), x, torch.tensor([1e30, -1e30, 1.0]))
    largest = torch.finfo(torch.float16).max
    assert gradient.tolist() == [largest, -largest, 1.0]


def test_the_gradient_can_be_differentiated_again() -> None:
    x = torch.tensor([2.0], dtype=torch.float16, requires_grad=True)
    (gradient,) = torch.autograd.grad(at_least_float32(x).pow(3).sum(), x, create_graph=True)
    assert torch.autograd.grad(gradient.sum(), x)[0].item() == 12
