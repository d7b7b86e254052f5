"""criteria_alignment and criteria_uniformity against Cria-CL's eq. 8 and 9."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_oracles import alignment_loops, uniformity_loops
from oracles import relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import criteria_alignment, criteria_uniformity

SHAPE = torch.Size([2, 1, 3, 4])
BOTH = [criteria_alignment, criteria_uniformity]


def criteria(count: int = 3, kind: str = "maps", seed: int = 0) -> list[Tensor]:
    """An anchor and further criteria: maps, scalars, or a mixture."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64) * 2
    if kind == "scalars":
        return list(maps.mean((1, 2, 3, 4)))
    if kind == "mixture":
        return [maps[0], *(x.mean((1, 2, 3), keepdim=True) if i % 2 else x.mean() for i, x in enumerate(maps[1:]))]
    return list(maps)


@pytest.mark.parametrize("kind", ["maps", "scalars", "mixture"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("exponent", [1, 1.5, 2, 3])
def test_alignment_equals_equation_8(exponent: float, count: int, kind: str, dtype: torch.dtype, device: str) -> None:
    anchor, *others = (x.to(device, dtype) for x in criteria(count, kind))
    shape = anchor.shape
    expected = alignment_loops(anchor, others, exponent, shape)
    assert_close(criteria_alignment(anchor, others, exponent, reduction="none"), expected, dtype=dtype, scale=1)
    assert_close(criteria_alignment(anchor, others, exponent), expected.mean(), dtype=dtype, scale=1)
    assert_close(criteria_alignment(anchor, others, exponent, reduction="sum"), expected.sum(), dtype=dtype, scale=1)


@pytest.mark.parametrize("kind", ["maps", "scalars", "mixture"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("t", [0.5, 2])
def test_uniformity_equals_equation_9(t: float, count: int, kind: str, dtype: torch.dtype, device: str) -> None:
    anchor, *others = (x.to(device, dtype) for x in criteria(count, kind))
    shape = anchor.shape
    expected = uniformity_loops(anchor, others, t, shape)
    assert_close(criteria_uniformity(anchor, others, t, reduction="none"), expected, dtype=dtype, scale=1)
    assert_close(criteria_uniformity(anchor, others, t), expected.mean(), dtype=dtype, scale=1)
    assert_close(criteria_uniformity(anchor, others, t, reduction="sum"), expected.sum(), dtype=dtype, scale=1)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("kind", ["maps", "scalars"])
def test_mask_weights_the_elements(function: Callable[..., Tensor], kind: str) -> None:
    anchor, *others = criteria(kind=kind)
    mask = torch.rand(SHAPE, dtype=torch.float64)
    values = function(anchor, others, reduction="none") * mask
    torch.testing.assert_close(function(anchor, others, mask=mask, reduction="none"), values)
    torch.testing.assert_close(function(anchor, others, mask=mask), values.mean())
    torch.testing.assert_close(
        function(anchor, others, mask=mask) + function(anchor, others, mask=1 - mask), function(anchor, others)
    )


@pytest.mark.parametrize("exponent", [1, 2, 2.5, 3, 4])
def test_gradients_of_alignment(exponent: float, device: str) -> None:
    inputs = [criterion[0].to(device).requires_grad_() for criterion in criteria()]

    def loss(anchor: Tensor, *others: Tensor) -> Tensor:
        return criteria_alignment(anchor, others, exponent)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_gradients_of_uniformity(device: str) -> None:
    inputs = [criterion[0].to(device).requires_grad_() for criterion in criteria()]

    def loss(anchor: Tensor, *others: Tensor) -> Tensor:
        return criteria_uniformity(anchor, others)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_equal_criteria_have_the_second_derivative_of_a_square() -> None:
    anchor = torch.tensor(0.5, requires_grad=True)
    (first,) = torch.autograd.grad(criteria_alignment(anchor, [torch.tensor(0.5)]), anchor, create_graph=True)
    assert first == 0
    assert torch.autograd.grad(first, anchor)[0] == 2


def test_alignment_raises_an_anchor_below_its_positives() -> None:
    anchor, positive = torch.tensor([0.1, 0.9], requires_grad=True), torch.tensor([0.5, 0.5], requires_grad=True)
    criteria_alignment(anchor, [positive]).backward()
    assert anchor.grad is not None
    assert positive.grad is not None
    assert anchor.grad.sign().tolist() == [-1, 1]  # descent raises the first
    assert positive.grad.sign().tolist() == [1, -1]


def test_uniformity_lowers_all_criteria_and_the_least_negative_most() -> None:
    anchor, near, far = (torch.tensor(x, requires_grad=True) for x in (0.2, 0.3, 0.9))
    criteria_uniformity(anchor, [near, far]).backward()
    assert anchor.grad is not None
    assert near.grad is not None
    assert far.grad is not None
    assert anchor.grad > 0
    assert near.grad > far.grad > 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=6), st.floats(0, 3), st.floats(0.1, 4), st.randoms())
def test_uniformity_is_a_soft_minimum_whatever_the_order(
    negatives: list[float], anchor: float, t: float, random: object
) -> None:
    a, others = torch.tensor(anchor, dtype=torch.float64), list(torch.tensor(negatives, dtype=torch.float64))
    value = criteria_uniformity(a, others, t).item()
    least = min(t * (anchor + negative) ** 2 for negative in negatives)
    assert least - math.log(len(negatives)) - 1e-9 <= value <= least + 1e-9
    random.shuffle(others)  # type: ignore[attr-defined]
    assert_close(criteria_uniformity(a, others, t), value, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=4), st.floats(0, 1e4))
def test_float32_is_close_to_float64(others: list[float], anchor: float) -> None:
    values = torch.tensor([anchor, *others]).double()  # as float32 has them
    for function in BOTH:
        exact = values.clone().requires_grad_()
        single = values.float().requires_grad_()
        expected, loss = (function(x[0], list(x[1:].unbind())) for x in (exact, single))
        assert_close(loss, expected, scale=1, dtype=torch.float32)
        (gradient,), (wanted,) = torch.autograd.grad(loss, single), torch.autograd.grad(expected, exact)
        assert torch.isfinite(gradient).all()
        if function is criteria_alignment and wanted.norm() > 0:
            assert relative_distance(gradient, wanted) < tolerance(torch.float32)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1e-6, 7.5, 1e4])
def test_is_finite(function: Callable[..., Tensor], dtype: torch.dtype, value: float) -> None:
    anchor = torch.full((2, 2), value, dtype=dtype, requires_grad=True)
    others = [torch.full((2, 2), x, dtype=dtype, requires_grad=True) for x in (value, 0.0)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = function(anchor, others)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(loss)
    for criterion in (anchor, *others):
        assert criterion.grad is not None
        assert torch.isfinite(criterion.grad).all()


def test_the_printed_form_is_infinite_where_ours_is_not() -> None:
    anchor, negative = torch.tensor(4.0), torch.tensor(4.0)
    assert math.isinf(-torch.exp(-2 * (anchor + negative) ** 2).log())
    assert criteria_uniformity(anchor, [negative]) == 128


@pytest.mark.parametrize("function", BOTH)
def test_compiles_without_graph_breaks(function: Callable[..., Tensor]) -> None:
    anchor, *others = criteria()
    mask = torch.rand(SHAPE, dtype=torch.float64)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(anchor, others, 2.0, mask), function(anchor, others, 2.0, mask))


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(2), []), "expected a list of at least one criterion, got"),
        ((torch.rand(2), torch.rand(2)), "expected a list of at least one criterion, got a float32 tensor"),
        ((torch.rand(2), [0.5]), r"tives\[0\]\): expected a non-empty floating-point tensor.*0.5 \(float\)"),
        ((torch.ones(2, dtype=torch.long), [torch.rand(2)]), r"\(anchor\): expected .*int64"),
        ((torch.rand(2), [torch.rand(0)]), r"tives\[0\]\): expected a non-empty"),
        ((torch.rand(2), [torch.rand(3)]), r"broadcast with each other, got anchor \(2,\), .*tives\[0\] \(3,\)"),
        ((torch.rand(2), [torch.rand(2)], 2, torch.rand(3)), r"broadcast.* mask \(3,\)"),
        ((torch.rand(2), [torch.rand(2)], 2, 0.5), r"\(mask\): expected .*0.5 \(float\)"),
    ],
)
def test_wrong_criteria_are_refused(function: Callable[..., Tensor], arguments: tuple[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        function(*arguments)


def test_impossible_numbers_are_refused() -> None:
    anchor, *others = criteria()
    with pytest.raises(ConfigError, match=r"exponent\): expected a number of at least 1, got 0.5"):
        criteria_alignment(anchor, others, 0.5)
    with pytest.raises(ConfigError, match=r"t\): expected a number above 0, got 0"):
        criteria_uniformity(anchor, others, 0)
    with pytest.raises(ConfigError, match="one of mean, sum, none, got 'average'"):
        criteria_alignment(anchor, others, reduction="average")
