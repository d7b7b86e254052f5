"""pixel_cosine_similarity against a float64 loop over positions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import cosine_loops
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.functional import (
    bidirectional_nce,
    info_nce,
    pixel_cosine_similarity,
    queue_nce,
    srnce,
    supcon,
)


def maps(*shape: int, seed: int = 1, device: str = "cpu") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 4), (3, 2, 4, 1)])
def test_equals_the_definition(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x, y = (maps(*shape, seed=seed, device=device).to(dtype) for seed in (1, 2))
    similarity = pixel_cosine_similarity(x, y)
    assert similarity.dtype == dtype
    assert_close(similarity, cosine_loops(x.double(), y.double()), "exact", dtype=dtype, scale=1)


def test_is_a_mean_of_cosines_and_not_a_cosine_of_means() -> None:
    x = torch.tensor([[[[100.0, 1.0]], [[0.0, 0.0]]]])
    y = torch.tensor([[[[100.0, 0.0]], [[0.0, 1.0]]]])
    assert pixel_cosine_similarity(x, y).item() == pytest.approx(0.5)


def test_identity_and_opposite() -> None:
    x = maps(2, 4, 3, 3)
    torch.testing.assert_close(pixel_cosine_similarity(x, x), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(pixel_cosine_similarity(x, -x), -torch.ones(2, dtype=torch.float64))


def test_ignores_the_length_of_every_vector() -> None:
    x, y = maps(2, 4, 3, 3), maps(2, 4, 3, 3, seed=2)
    lengths = maps(2, 1, 3, 3, seed=3).exp()
    torch.testing.assert_close(pixel_cosine_similarity(lengths * x, y / lengths), pixel_cosine_similarity(x, y))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_float32_from_small_to_large_values(scale: float) -> None:
    x, y = (scale * maps(2, 8, 3, 3)).float(), (scale * maps(2, 8, 3, 3, seed=2)).float()
    assert_close(pixel_cosine_similarity(x, y), cosine_loops(x, y), "exact", scale=1, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, device: str) -> None:
    x, y = ((300 * maps(2, 8, 3, 3, seed=seed, device=device)).to(dtype) for seed in (1, 2))
    similarity = pixel_cosine_similarity(x, y)
    assert similarity.dtype == torch.float32
    assert_close(similarity, cosine_loops(x, y), "exact", scale=1, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_vectors_count_as_zero_with_a_finite_gradient(dtype: torch.dtype) -> None:
    x, y = maps(1, 4, 2, 2).to(dtype), maps(1, 4, 2, 2, seed=2).to(dtype)
    x[..., 0, 0] = 0
    y[..., 1, 1] = 0
    torch.testing.assert_close(pixel_cosine_similarity(x, y).double(), cosine_loops(x, y))
    for leaf in (x.requires_grad_(), y.requires_grad_()):
        (gradient,) = torch.autograd.grad(pixel_cosine_similarity(x, y).sum(), leaf)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
        # A zero vector has no direction to turn: 1 / eps as its gradient would throw a training off its course.
        assert gradient[..., 0, 0].abs().max() == 0
        assert gradient[..., 1, 1].abs().max() == 0
    nothing = torch.zeros(1, 4, 2, 2, dtype=dtype, requires_grad=True)
    similarity = pixel_cosine_similarity(nothing, nothing)
    assert similarity.item() == 0
    assert torch.autograd.grad(similarity.sum(), nothing)[0].abs().max() == 0


def test_gradients(device: str) -> None:
    x, y = (maps(1, 3, 2, 2, seed=seed, device=device).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(pixel_cosine_similarity, (x, y))
    assert torch.autograd.gradgradcheck(pixel_cosine_similarity, (x, y))


OTHERS, QUEUE = torch.eye(5, 8, dtype=torch.float64) + 0.1, torch.ones(7, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: queue_nce(x, OTHERS, QUEUE),
        lambda x: info_nce(x, OTHERS),
        lambda x: bidirectional_nce(x, OTHERS),
        lambda x: srnce(OTHERS, x, QUEUE[:5]),
        lambda x: supcon(x, x, torch.eye(5, dtype=torch.bool)[[1, 0, 3, 2, 4]], torch.eye(5, dtype=torch.bool)),
    ],
    ids=["queue", "info", "bidirectional", "srnce", "supcon"],
)
def test_a_vector_without_a_direction_has_second_derivatives_too(loss: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = 0
    x.requires_grad_()
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert first[0].abs().max() == 0
    assert second.isfinite().all()
    assert second[1:].abs().max() > 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(4, 3, 3), torch.rand(4, 3, 3), r"\(x\): expected .*\(B, C, H, W\)"),
        (torch.rand(1, 4, 3, 3), torch.rand(1, 4, 3, 2), r"\(y\): expected .*\(1, 4, 3, 3\), got .*\(1, 4, 3, 2\)"),
        (torch.rand(2, 4, 3, 3), torch.rand(1, 4, 3, 3), r"\(2, 4, 3, 3\)"),
        (torch.rand(1, 4, 3, 3), torch.ones(1, 4, 3, 3, dtype=torch.long), "floating-point.*int64"),
        (torch.zeros(1, 4, 0, 3), torch.zeros(1, 4, 0, 3), "non-empty"),
    ],
)
def test_wrong_input_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pixel_cosine_similarity(x, y)
