"""multi_positive_nce against eq. 8 as printed."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import nce_loops, relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import multi_positive_nce


def similarities(batch: int = 3, positives: int = 2, negatives: int = 4, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * 100 + positives * 10 + negatives)
    values = torch.rand(batch, positives + negatives, generator=generator, dtype=torch.float64).to(device) * 2 - 1
    return values[:, :positives], values[:, positives:]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 4), (2, 5, 1), (4, 1, 6)])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0, 10.0])
def test_equals_equation_8(sizes: tuple[int, int, int], temperature: float, device: str) -> None:
    # tiny losses of -log(1 - x) lose digits in the oracle, not in the loss: the absolute tolerance is the oracle's
    positive, negative = similarities(*sizes, device=device)
    values = multi_positive_nce(positive, negative, temperature, reduction="none")
    assert_close(values, nce_loops(positive, negative, temperature), dtype=torch.float64, scale=1e-3)


def test_reductions() -> None:
    positive, negative = similarities()
    values = nce_loops(positive, negative, 1.0)
    torch.testing.assert_close(multi_positive_nce(positive, negative), values.mean())
    torch.testing.assert_close(multi_positive_nce(positive, negative, reduction="mean"), values.mean())
    torch.testing.assert_close(multi_positive_nce(positive, negative, reduction="sum"), values.sum())


def test_order_of_positives_and_negatives_does_not_matter() -> None:
    positive, negative = similarities(3, 4, 5)
    shuffled = multi_positive_nce(positive[:, [2, 0, 3, 1]], negative[:, [4, 2, 0, 1, 3]], 0.1, "none")
    assert_close(shuffled, multi_positive_nce(positive, negative, 0.1, "none"), "exact")


def test_anchors_do_not_see_each_other() -> None:
    positive, negative = similarities(4)
    together = multi_positive_nce(positive, negative, reduction="none")
    alone = [multi_positive_nce(p[None], n[None]) for p, n in zip(positive, negative, strict=True)]
    assert_close(together, torch.stack(alone), "exact")


def test_grows_with_every_further_negative() -> None:
    positive, negative = similarities(2, 3, 20)
    losses = [multi_positive_nce(positive, negative[:, :count]).item() for count in range(1, 21)]
    assert losses == sorted(set(losses))


@pytest.mark.parametrize("count", [1, 4, 63, 1000])
@pytest.mark.parametrize("temperature", [0.005, 1.0])
def test_equal_similarities_give_log_of_one_plus_n(count: int, temperature: float) -> None:
    loss = multi_positive_nce(torch.full((2, 3), 0.4), torch.full((2, count), 0.4), temperature)
    assert_close(loss, math.log(1 + count), dtype=torch.float32)


@pytest.mark.parametrize("temperature", [0.005, 0.02, 0.07, 1.0, 10.0])
def test_float32_is_finite_and_exact_over_all_temperatures(temperature: float) -> None:
    extremes = torch.tensor([[1.0, -1.0, 0.3], [-1.0, 1.0, 1.0]])
    exact = extremes.double().requires_grad_()
    single = extremes.clone().requires_grad_()
    for negative in (torch.tensor([[-1.0, 0.9, 1.0, -0.3]] * 2), -torch.ones(2, 4)):
        loss = multi_positive_nce(single, negative, temperature)
        reference = multi_positive_nce(exact, negative.double(), temperature)
        assert_close(loss, reference.item(), dtype=torch.float32)
        assert_close(reference, nce_loops(exact, negative, temperature).mean(), "loose", scale=1e-05)
        (gradient,) = torch.autograd.grad(loss, single)
        (expected,) = torch.autograd.grad(reference, exact)
        assert torch.isfinite(gradient).all()
        assert relative_distance(gradient, expected) < tolerance(torch.float32)


def test_tiny_losses_keep_their_digits_in_float32() -> None:
    # at temperature 0.07 and a gap of 1.9 the loss is about 1.6e-12, far below float32's resolution at 1
    positive = torch.tensor([[0.95]], requires_grad=True)
    loss = multi_positive_nce(positive, torch.tensor([[-0.95]]), 0.07)
    gap = (float(torch.tensor(0.95)) * 2) / 0.07
    assert_close(loss, math.log1p(math.exp(-gap)), "loose", dtype=torch.float32)
    assert 0 < loss.item() < 1e-11
    loss.backward()
    assert positive.grad is not None
    assert_close(positive.grad.item(), -math.exp(-gap) / 0.07, "loose", dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, device: str) -> None:
    positive, negative = (s.to(dtype) for s in similarities(device=device))
    loss = multi_positive_nce(positive, negative, 0.02, "none")  # exp(1 / 0.02) is infinite in float16
    assert loss.dtype == torch.float32
    assert_close(loss, nce_loops(positive, negative, 0.02), dtype=torch.float32)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_gradients(temperature: float, device: str) -> None:
    positive, negative = (s.requires_grad_() for s in similarities(2, 2, 3, device=device))

    def loss(p: Tensor, n: Tensor) -> Tensor:
        return multi_positive_nce(p, n, temperature)

    assert torch.autograd.gradcheck(loss, (positive, negative))
    assert torch.autograd.gradgradcheck(loss, (positive, negative))


def test_is_not_supcon() -> None:
    positive, negative = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.0]])

    def supcon(p: Tensor, n: Tensor) -> float:
        return float((torch.logsumexp(torch.cat((p, n), 1), 1, keepdim=True) - p).mean())

    expected = (math.log1p(math.exp(-0.9)) + math.log1p(math.exp(-0.1))) / 2
    assert_close(multi_positive_nce(positive, negative), expected, "exact", dtype=torch.float32)
    assert abs(supcon(positive, negative) - multi_positive_nce(positive, negative).item()) > 0.4
    assert supcon(positive[:, :1], negative) == pytest.approx(multi_positive_nce(positive[:, :1], negative).item())


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        (torch.rand(2, 0), torch.rand(2, 3), r"positive_similarity\): expected a non-empty tensor \(B, P\)"),
        (torch.rand(2, 3), torch.rand(2, 0), r"negative_similarity\): expected a non-empty tensor \(B, N\)"),
        (torch.rand(2, 3), torch.rand(3, 3), "one batch size, got 2 rows of positives and 3 of negatives"),
        (torch.rand(3), torch.rand(1, 3), r"\(B, P\), got .*\(3,\)"),
        (torch.ones(2, 3, dtype=torch.long), torch.rand(2, 3), "floating-point.*int64"),
    ],
)
def test_wrong_similarities_are_refused(positive: Tensor, negative: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        multi_positive_nce(positive, negative)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan"), float("inf"), True, None])
def test_impossible_temperatures_are_refused(temperature: object) -> None:
    with pytest.raises(ConfigError, match=rf"temperature\): expected a number above 0, got {temperature}"):
        multi_positive_nce(*similarities(), temperature)  # type: ignore[arg-type]


def test_temperature_as_text_names_yaml() -> None:
    with pytest.raises(ConfigError, match=r"got '7e-2' \(str\)\. In YAML write `!!float"):
        multi_positive_nce(*similarities(), "7e-2")  # type: ignore[arg-type]


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of mean, sum, none, got 'average'"):
        multi_positive_nce(*similarities(), reduction="average")
