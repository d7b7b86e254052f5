"""queue_nce against DASR's eq. 3."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_oracles import queue_loops
from oracles import relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor
from versions import autocast_to_float16

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import queue_nce


def vectors(
    batch: int = 3, size: int = 5, dim: int = 4, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2 * batch + size, dim, generator=generator, dtype=torch.float64).to(device)
    query, key, queue = rows.split((batch, batch, size))
    return query.clone().requires_grad_(), key, queue


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 4), (4, 2, 7)])
@pytest.mark.parametrize("temperature", [0.07, 1.0, 10.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_equation_3(sizes: tuple[int, int, int], temperature: float, normalize: bool, device: str) -> None:
    query, key, queue = vectors(*sizes, device=device)
    values = queue_nce(query, key, queue, temperature, reduction="none", normalize=normalize)
    expected = queue_loops(query, key, queue, temperature, normalize=normalize)
    assert_close(values, expected, "loose", dtype=torch.float64, scale=1e-4)


def test_masked_slots_do_not_count(device: str) -> None:
    query, key, queue = vectors(size=6, device=device)
    valid = torch.tensor([True, False, True, True, False, False], device=device)
    values = queue_nce(query, key, queue, 0.3, valid=valid, reduction="none").detach()
    assert_close(values, queue_loops(query, key, queue, 0.3, valid), dtype=torch.float64)
    assert_close(values, queue_nce(query, key, queue[valid], 0.3, reduction="none").detach())
    assert not torch.allclose(values.cpu(), queue_loops(query, key, queue, 0.3))


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
def test_masked_slots_may_hold_anything(junk: float) -> None:
    query, key, queue = vectors(size=4)
    valid = torch.tensor([True, True, False, True])
    (expected,) = torch.autograd.grad(queue_nce(query, key, queue, 0.3, valid=valid), query)
    dirty = queue.masked_fill(~valid[:, None], junk)
    loss = queue_nce(query, key, dirty, 0.3, valid=valid)
    (gradient,) = torch.autograd.grad(loss, query)
    assert torch.equal(gradient, expected)


def test_without_a_valid_slot_the_loss_is_a_differentiable_zero() -> None:
    query, key, queue = vectors()
    loss = queue_nce(query, key, queue, valid=torch.zeros(5, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, query, create_graph=True)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(query))
    assert torch.isfinite(torch.autograd.grad(gradient.sum(), query)[0]).all()


def test_reductions() -> None:
    problem = vectors()
    values = queue_loops(*problem, 0.07)
    torch.testing.assert_close(queue_nce(*problem).detach(), values.mean())
    torch.testing.assert_close(queue_nce(*problem, reduction="sum").detach(), values.sum())


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients(normalize: bool, device: str) -> None:
    query, key, queue = vectors(2, 3, 3, device=device)
    valid = torch.tensor([True, False, True], device=device)

    def loss(q: Tensor) -> Tensor:
        return queue_nce(q, key, queue, 0.5, valid=valid, normalize=normalize)

    assert torch.autograd.gradcheck(loss, query)
    assert torch.autograd.gradgradcheck(loss, query)


def test_gradient_reaches_the_queries_and_nothing_else() -> None:
    query, key, queue = vectors()
    key.requires_grad_()
    queue.requires_grad_()
    queue_nce(query, key, queue).backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert queue.grad is None


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.floats(0.005, 10), st.floats(1e-6, 1e6), st.randoms()
)
def test_order_of_the_queue_and_scale_of_the_vectors_do_not_matter(
    batch: int, size: int, dim: int, temperature: float, scale: float, random: object
) -> None:
    query, key, queue = vectors(batch, size, dim, seed=size)
    order = list(range(size))
    random.shuffle(order)  # type: ignore[attr-defined]
    expected = queue_nce(query, key, queue, temperature, reduction="none")
    got = queue_nce(scale * query, key / scale, scale * queue[order], temperature, reduction="none")
    assert_close(got, expected, "loose", scale=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.02, 10), st.floats(1e-5, 1e6))
def test_float32_is_close_to_float64(batch: int, size: int, temperature: float, scale: float) -> None:
    query, key, queue = vectors(batch, size, seed=7)
    exact = queue_nce(query, key, queue, temperature)
    single = (scale * query.detach()).float().requires_grad_()
    loss = queue_nce(single, key.float(), queue.float(), temperature)
    assert loss.dtype == torch.float32
    assert_close(loss, exact, "loose", scale=0.001, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(loss, single)
    (expected,) = torch.autograd.grad(exact, query)
    if expected.norm() > 1e-6:  # below, rounding of the logits is all there is
        assert relative_distance(scale * gradient.double(), expected) < tolerance(torch.float32, "loose")


@pytest.mark.parametrize("temperature", [0.005, 0.07, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["identical", "zero", "opposite", "tiny", "large"])
def test_is_finite(case: str, dtype: torch.dtype, temperature: float) -> None:
    largest = 1e4 if dtype == torch.float16 else 1e6
    value = {"identical": 1.0, "zero": 0.0, "opposite": 1.0, "tiny": 1e-6, "large": largest}[case]
    query = torch.full((2, 3), value, dtype=dtype, requires_grad=True)
    key = query.detach() * (-1 if case == "opposite" else 1)
    loss = queue_nce(query, key, query.detach()[:1], temperature)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert query.grad is not None
    assert torch.isfinite(query.grad).all()
    expected = 2 / temperature if case == "opposite" else 0.0  # softplus of the logits' difference
    assert loss.item() == pytest.approx(max(expected, math.log1p(math.exp(expected))) if expected < 50 else expected)


def test_tiny_losses_keep_their_digits_in_float32() -> None:
    key = torch.tensor([[1.0, 0.0]])
    query = key.clone().requires_grad_()
    loss = queue_nce(query, key, -key, 0.07)
    assert_close(loss, math.log1p(math.exp(-2 / 0.07)), "loose", dtype=torch.float32)
    assert 0 < loss.item() < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=autocast_to_float16)])
def test_is_float32_under_autocast(dtype: torch.dtype, device: str) -> None:
    query, key, queue = (x.detach().float() for x in vectors(device=device))
    with torch.autocast(device, dtype):
        assert (query @ queue.T).dtype == dtype  # autocast is at work
        loss = queue_nce(query, key, queue, 0.02)
    torch.testing.assert_close(loss, queue_nce(query, key, queue, 0.02))
    assert loss.dtype == torch.float32


def test_compiles_without_graph_breaks() -> None:
    query, key, queue = vectors()
    valid = torch.tensor([True, False, True, True, True])
    compiled = torch.compile(queue_nce, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(query, key, queue, 0.07, valid=valid), queue_nce(query, key, queue, 0.07, valid=valid)
    )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4,), (4,), (5, 4)], r"query\): expected .*\(B, D\)"),
        ([(3, 4), (2, 4), (5, 4)], r"key\): expected .*\(3, 4\), got .*\(2, 4\)"),
        ([(3, 4), (3, 4), (5, 6)], r"queue\): expected .*\(K, 4\), got .*\(5, 6\)"),
        ([(3, 4), (3, 4), (0, 4)], r"queue\): expected a non-empty"),
    ],
)
def test_wrong_shapes_are_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        queue_nce(*(torch.rand(shape) for shape in shapes))  # type: ignore[misc]


@pytest.mark.parametrize("valid", [torch.ones(5), torch.ones(4, dtype=torch.bool), [True] * 5])
def test_wrong_masks_are_refused(valid: object) -> None:
    with pytest.raises(DataError, match=r"valid\): expected a bool tensor \(5,\), got"):
        queue_nce(*vectors(), valid=valid)  # type: ignore[arg-type]


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"temperature\): expected a number above 0, got 0"):
        queue_nce(*vectors(), temperature=0)
    with pytest.raises(ConfigError, match="one of mean, sum, none, got 'average'"):
        queue_nce(*vectors(), reduction="average")
