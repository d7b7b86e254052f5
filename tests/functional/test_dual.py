"""dual_contrastive_loss against eq. 7 logit by logit."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import dual_loops
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.functional import dual_contrastive_loss


def logits(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.mark.parametrize(("real", "fake"), [((1,), (1,)), ((3, 4), (3, 4)), ((5,), (2, 3)), ((2, 1, 2), (7,))])
def test_equals_equation_7(real: tuple[int, ...], fake: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    r, f = logits(*real, seed=1).to(device, dtype), logits(*fake, seed=2).to(device, dtype)
    assert_close(dual_contrastive_loss(r, f), dual_loops(r, f), "exact", dtype=dtype)


def test_is_not_symmetric_and_swaps_to_the_generator_form() -> None:
    r, f = logits(3, 2, seed=1), logits(3, 2, seed=2)
    swapped = dual_contrastive_loss(f, r).item()
    assert abs(swapped - dual_contrastive_loss(r, f).item()) > 0.1
    # non-saturating generator form: each fake logit as if it were real, each negated real one as if it were fake
    generator_form = sum(math.log(1 + sum(math.exp(x - y) for x in r.flatten().tolist())) for y in f.flatten().tolist())
    generator_form += sum(
        math.log(1 + sum(math.exp(x - y) for y in f.flatten().tolist())) for x in r.flatten().tolist()
    )
    assert_close(swapped, generator_form / 6)


def test_learns_in_the_right_direction() -> None:
    real, fake = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    dual_contrastive_loss(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()  # a step against it raises real logits
    assert (fake.grad > 0).all()


def test_extreme_logits_stay_finite() -> None:
    real = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = dual_contrastive_loss(real, torch.tensor([-1e4, 1e4]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert real.grad is not None
    assert torch.isfinite(real.grad).all()


def test_half_precision_is_computed_in_float32() -> None:
    r, f = (logits(2, 8, seed=s).half() * 10 for s in (1, 2))
    loss = dual_contrastive_loss(r, f)
    assert loss.dtype == torch.float32
    assert_close(loss, dual_loops(r, f), dtype=torch.float32)


def test_gradients(device: str) -> None:
    r, f = (logits(*shape, seed=3).to(device).requires_grad_() for shape in ((2, 2), (3,)))
    assert torch.autograd.gradcheck(dual_contrastive_loss, (r, f))
    assert torch.autograd.gradgradcheck(dual_contrastive_loss, (r, f))


@pytest.mark.parametrize("wrong", [torch.zeros(0), torch.zeros(3, dtype=torch.long), None, [0.0]])
def test_wrong_input_is_refused(wrong: object) -> None:
    with pytest.raises(DataError, match=r"real_logits\): expected a non-empty floating-point tensor of logits"):
        dual_contrastive_loss(wrong, torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"fake_logits\): expected a non-empty floating-point tensor of logits"):
        dual_contrastive_loss(torch.zeros(3), wrong)  # type: ignore[arg-type]
