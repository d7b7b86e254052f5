"""info_nce and bidirectional_nce against CRL-SR's eq. 2 and 3, vector by vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nce_oracles import KINDS, bidirectional_nce_loops, extreme_vectors, info_nce_loops
from oracles import relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import bidirectional_nce, info_nce, set_tiling

SEVERAL = settings(max_examples=25, deadline=None, derandomize=True, database=None)
TEMPERATURES = [0.005, 0.02, 0.07, 1.0, 10.0]
BOTH = pytest.mark.parametrize("loss", [info_nce, bidirectional_nce])
SIZES = pytest.mark.parametrize("size", [None, 4])  # dense and tiled
ORACLES: dict[Callable[..., Tensor], Callable[[Tensor, Tensor, float], Tensor]] = {
    info_nce: info_nce_loops,
    bidirectional_nce: bidirectional_nce_loops,
}


def pair(*leading: int, count: int = 9, dim: int = 5, seed: int = 0, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, *leading, count, dim, generator=generator, dtype=torch.float64).to(device)
    return a, b


@BOTH
@SIZES
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (7, 4), (13, 5)])
def test_equals_the_equation(
    loss: Callable[..., Tensor], size: int | None, temperature: float, shape: tuple[int, int], device: str
) -> None:
    a, b = pair(count=shape[0], dim=shape[1], device=device)
    with set_tiling(size=size):
        values = loss(a, b, temperature, reduction="none")
    assert_close(values, ORACLES[loss](a, b, temperature), dtype=torch.float64)


@BOTH
def test_the_default_temperature_and_reductions(loss: Callable[..., Tensor]) -> None:
    a, b = pair()
    values = ORACLES[loss](a, b, 0.07)
    torch.testing.assert_close(loss(a, b), values.mean())
    torch.testing.assert_close(loss(a, b, reduction="sum"), values.sum())
    torch.testing.assert_close(loss(a, b, reduction="none"), values)


def test_raw_vectors() -> None:
    a, b = pair()
    values = info_nce(a, b, 0.9, "none", normalize=False)
    assert_close(values, info_nce_loops(a, b, 0.9, normalize=False))
    backward = info_nce_loops(b, a, 0.9, normalize=False)
    torch.testing.assert_close(bidirectional_nce(a, b, 0.9, "none", normalize=False), values + backward)


def test_both_directions_are_those_of_info_nce_and_one_is_not_the_other() -> None:
    a, b = pair()
    forth, back = info_nce(a, b, reduction="none"), info_nce(b, a, reduction="none")
    torch.testing.assert_close(bidirectional_nce(a, b, reduction="none"), forth + back)
    assert (forth - back).abs().min() > 1e-3
    torch.testing.assert_close(bidirectional_nce(b, a), bidirectional_nce(a, b))


@BOTH
@SIZES
@SEVERAL
@given(data=st.data())
def test_order_does_not_matter(loss: Callable[..., Tensor], size: int | None, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 11))
    order = data.draw(st.permutations(range(count)))
    a, b = pair(count=count)
    with set_tiling(size=size):
        assert_close(loss(a[order], b[order], reduction="none"), loss(a, b, reduction="none")[order], scale=0.01)


def test_which_candidate_is_the_positive_does_matter() -> None:
    a, b = pair()
    assert (info_nce(a, b, reduction="none") - info_nce(a, b.roll(1, 0), reduction="none")).abs().min() > 0.1


@BOTH
@SIZES
@SEVERAL
@given(exponents=st.lists(st.integers(-6, 6), min_size=18, max_size=18))
def test_lengths_do_not_matter(loss: Callable[..., Tensor], size: int | None, exponents: list[int]) -> None:
    a, b = pair()
    lengths = 10.0 ** torch.tensor(exponents, dtype=torch.float64)[:, None]
    with set_tiling(size=size):
        assert_close(loss(lengths[:9] * a, lengths[9:] * b), loss(a, b))


@BOTH
@SIZES
@SEVERAL
@given(leading=st.lists(st.integers(1, 3), max_size=3), count=st.integers(1, 9))
def test_images_do_not_see_each_other(
    loss: Callable[..., Tensor], size: int | None, leading: list[int], count: int
) -> None:
    a, b = pair(*leading, count=count)
    with set_tiling(size=size):
        together = loss(a, b, reduction="none")
        alone = [loss(x, y, reduction="none") for x, y in zip(a.view(-1, count, 5), b.view(-1, count, 5), strict=True)]
    assert together.shape == (*leading, count)
    assert_close(together, torch.stack(alone).view(*leading, count), scale=0.01)


@BOTH
@SIZES
@SEVERAL
@given(seed=st.integers(0, 1000), temperature=st.sampled_from(TEMPERATURES))
def test_float32_is_close_to_float64(
    loss: Callable[..., Tensor], size: int | None, seed: int, temperature: float, device: str
) -> None:
    a, b = (x.float().requires_grad_() for x in pair(seed=seed, device=device))
    exact = [x.detach().double().requires_grad_() for x in (a, b)]
    with set_tiling(size=size):
        single, double = loss(a, b, temperature), loss(*exact, temperature)
    assert single.dtype == torch.float32
    # an error of 1e-7 in a cosine is one of 1e-7 / temperature in a logit, and so in the softmax
    assert_close(single, double, "exact", dtype=torch.float32, times=2 / min(temperature, 1))
    for got, expected in zip(torch.autograd.grad(single, (a, b)), torch.autograd.grad(double, exact), strict=True):
        assert relative_distance(got, expected) < 2 * tolerance(torch.float32, "exact") / min(temperature, 1)


@BOTH
@SIZES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, False])
def test_value_and_gradient_are_finite(
    loss: Callable[..., Tensor], size: int | None, kind: str, normalize: bool
) -> None:
    for temperature in TEMPERATURES:
        a, b = extreme_vectors(kind, 2)
        with set_tiling(size=size):
            value = loss(a, b, temperature, normalize=normalize)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value), temperature
        assert value >= 0, temperature
        for x in (a, b):
            assert x.grad is not None
            assert torch.isfinite(x.grad).all(), temperature


@BOTH
@SIZES
def test_features_small_and_large_lose_nothing(loss: Callable[..., Tensor], size: int | None) -> None:
    for kind in ("small", "large"):
        a, b = extreme_vectors(kind, 2)
        with set_tiling(size=size):
            value = loss(a, b)
        assert_close(value, ORACLES[loss](a, b, 0.07).mean().item(), dtype=torch.float32)


@SIZES
@pytest.mark.parametrize("kind", ["identical", "zero"])
def test_vectors_that_cannot_be_told_apart_give_log_of_their_number(kind: str, size: int | None) -> None:
    for temperature in TEMPERATURES:
        with set_tiling(size=size):
            assert_close(info_nce(*extreme_vectors(kind, 2), temperature), math.log(9), dtype=torch.float32)


@SIZES
def test_zero_vectors_get_no_gradient_and_leave_that_of_others_finite(size: int | None) -> None:
    a, b = extreme_vectors("one zero", 2)
    with set_tiling(size=size):
        info_nce(a, b).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad[0] == 0).all()
    assert (b.grad[1] == 0).all()
    assert a.grad[1:].abs().sum(1).min() > 0


@BOTH
def test_one_vector_has_nothing_to_be_told_from(loss: Callable[..., Tensor]) -> None:
    a, b = extreme_vectors("single", 2)
    value = loss(a, b)
    (gradient,) = torch.autograd.grad(value, a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), a)
    assert value.item() == 0
    assert (gradient == 0).all()
    assert (second == 0).all()


@SIZES
def test_small_losses_keep_their_digits_in_float32(size: int | None) -> None:
    a = torch.eye(8, requires_grad=True)
    b = torch.eye(8)
    with set_tiling(size=size):
        loss = info_nce(a, b, 0.02)  # 7 exp(-50), far below float32's resolution at 1
    loss.backward()
    assert_close(loss, 7 * math.exp(-50), "loose", dtype=torch.float32)
    assert a.grad is not None
    off = ~torch.eye(8, dtype=torch.bool)
    assert_close(a.grad[off], torch.full((56,), math.exp(-50) / 0.02 / 8), "loose")


@BOTH
@SIZES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(
    loss: Callable[..., Tensor], size: int | None, dtype: torch.dtype, device: str
) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in pair(device=device))
    with set_tiling(size=size):
        value = loss(a, b, 0.02)  # exp(1 / 0.02) is infinite in float16
        expected = loss(a.detach().float(), b.detach().float(), 0.02)
    assert torch.equal(value, expected)
    assert torch.autograd.grad(value, a)[0].dtype == dtype


@BOTH
@SIZES
def test_autocast_changes_nothing(loss: Callable[..., Tensor], size: int | None, device: str) -> None:
    a, b = (x.float().requires_grad_() for x in pair(device=device))
    with set_tiling(size=size):
        expected = loss(a, b)
        with torch.autocast(device, torch.bfloat16):
            value = loss(a, b)
    assert torch.equal(value, expected)
    for got, wanted in zip(torch.autograd.grad(value, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        assert torch.equal(got, wanted)


@BOTH
@SIZES
def test_gradient_and_second_gradient(loss: Callable[..., Tensor], size: int | None, device: str) -> None:
    a, b = (x.requires_grad_() for x in pair(2, count=5, dim=3, device=device))
    with set_tiling(size=size):
        assert torch.autograd.gradcheck(lambda x, y: loss(x, y, 0.3), (a, b))
        assert torch.autograd.gradgradcheck(lambda x, y: loss(x, y, 0.3), (a, b))


@BOTH
def test_gradient_reaches_both_sides_and_each_alone(loss: Callable[..., Tensor]) -> None:
    a, b = pair()
    for x, y in ((a.clone().requires_grad_(), b), (b.clone().requires_grad_(), a)):
        (gradient,) = torch.autograd.grad(loss(x, y), x)
        assert gradient.abs().sum(1).min() > 0
        (gradient,) = torch.autograd.grad(loss(y, x), x)
        assert gradient.abs().sum(1).min() > 0


def test_a_step_against_the_gradient_brings_pairs_together() -> None:
    a, b = (x.requires_grad_() for x in pair())
    (gradient,) = torch.autograd.grad(info_nce(a, b), a)
    moved = a - 0.05 * gradient / gradient.norm(dim=1, keepdim=True)
    before, after = (torch.cosine_similarity(x, b, dim=1).mean() for x in (a, moved))
    assert after > before + 0.005


@BOTH
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.rand(3), torch.rand(3), r"expected a floating-point tensor \(\.\.\., M, D\), got .*x\.flatten\(2\)"),
        ([[1.0]], torch.rand(1, 1), r"expected a floating-point tensor \(\.\.\., M, D\), got \[\[1\.0\]\] \(list\)"),
        (torch.ones(3, 2, dtype=torch.long), torch.rand(3, 2), "floating-point.*int64"),
        (torch.rand(0, 2), torch.rand(0, 2), "expected a non-empty tensor"),
        (torch.rand(2, 4, 0), torch.rand(2, 4, 0), r"expected a non-empty tensor \(N0, M, D\)"),
        (torch.rand(4, 2), torch.rand(5, 2), r"expected a non-empty tensor \(4, 2\), got .*\(5, 2\)"),
        (torch.rand(4, 2), torch.rand(4, 3), r"expected a non-empty tensor \(4, 2\), got .*\(4, 3\)"),
        (torch.rand(2, 4, 2), torch.rand(4, 2), r"expected a non-empty tensor \(2, 4, 2\), got .*x\[None\]"),
        (torch.rand(4, 2), None, r"expected a floating-point tensor \(4, 2\), got None"),
    ],
)
def test_wrong_vectors_are_refused(loss: Callable[..., Tensor], a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loss(a, b)
    names = ("anchor", "candidates") if loss is info_nce else ("a", "b")
    assert str(caught.value).startswith(tuple(f"{loss.__name__}({name}): " for name in names))


@BOTH
@pytest.mark.parametrize("temperature", [0, -0.07, float("nan"), float("inf"), True, None])
def test_impossible_temperatures_are_refused(loss: Callable[..., Tensor], temperature: object) -> None:
    with pytest.raises(ConfigError, match=rf"{loss.__name__}\(temperature\): expected a number above 0, got"):
        loss(*pair(), temperature)


@BOTH
def test_unknown_reduction_is_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ConfigError, match="one of mean, sum, none, got 'batchmean'"):
        loss(*pair(), reduction="batchmean")
