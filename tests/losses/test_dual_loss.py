"""DualContrastiveLoss in one process; tests/test_distributed.py has it in two."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import dual_loops
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import DualContrastiveLoss


@pytest.mark.parametrize("gather", [False, True])
def test_equals_equation_7(gather: bool, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(3, 4, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    assert_close(DualContrastiveLoss(gather=gather)(real, fake), dual_loops(real, fake), "exact", dtype=torch.float64)


@pytest.mark.parametrize("gather", [False, True])
def test_gradients(gather: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(DualContrastiveLoss(gather=gather), (real, fake))


def test_an_undecided_discriminator_pays_two_log_of_one_plus_n() -> None:
    loss = DualContrastiveLoss()(torch.zeros(4, 16), torch.zeros(4, 16))
    assert loss.item() == pytest.approx(2 * math.log(65))


@pytest.mark.parametrize("gather", [False, True])
def test_wrong_logits_are_refused(gather: bool) -> None:
    loss = DualContrastiveLoss(gather=gather)
    with pytest.raises(DataError, match=r"real_logits.*non-empty floating-point tensor of logits"):
        loss(torch.zeros(0, 16), torch.zeros(4, 16))
    with pytest.raises(DataError, match=r"fake_logits.*non-empty floating-point tensor of logits"):
        loss(torch.zeros(4, 16), torch.zeros(4, 16, dtype=torch.long))


def test_reductions_and_metrics() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    contrast = DualContrastiveLoss(reduction="none").contrast(real, fake)
    of_real, of_fake = contrast.loss.split((15, 15))
    torch.testing.assert_close(DualContrastiveLoss()(real, fake), of_real.mean() + of_fake.mean())
    torch.testing.assert_close(DualContrastiveLoss(reduction="sum")(real, fake), contrast.loss.sum())
    torch.testing.assert_close(of_real[7], dual_value(real[1, 2], fake))
    torch.testing.assert_close(of_fake[7], dual_value(-fake[1, 2], -real))
    assert contrast.metrics["real_logit"].item() == pytest.approx(real.mean().item())
    assert contrast.metrics["fake_logit"].item() == pytest.approx(fake.mean().item())
    with pytest.raises(ConfigError, match=r"DualContrastiveLoss\(reduction\): expected one of mean, sum, none"):
        DualContrastiveLoss(reduction="max")  # type: ignore[arg-type]


def dual_value(logit: Tensor, others: Tensor) -> Tensor:
    """Cross entropy of one logit against all of the other side."""
    return -torch.log(logit.exp() / (logit.exp() + others.exp().sum()))


FUZZ = {
    "DualContrastiveLoss": lambda source: DualContrastiveLoss()(*source.vectors(2))
}  # for tests/test_fuzz_losses.py
