"""DualContrastiveLoss in one process; tests/test_distributed.py has it in two."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import dual_loops

from contrastive_sr.errors import DataError
from contrastive_sr.losses import DualContrastiveLoss


@pytest.mark.parametrize("gather", [False, True])
def test_equals_equation_7(gather: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    assert DualContrastiveLoss(gather)(real, fake).item() == pytest.approx(dual_loops(real, fake), rel=1e-13)


@pytest.mark.parametrize("gather", [False, True])
def test_gradients(gather: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(DualContrastiveLoss(gather), (real, fake))


def test_an_undecided_discriminator_pays_two_log_of_one_plus_n() -> None:
    loss = DualContrastiveLoss()(torch.zeros(4, 16), torch.zeros(4, 16))
    assert loss.item() == pytest.approx(2 * math.log(65))


@pytest.mark.parametrize("gather", [False, True])
def test_wrong_logits_are_refused(gather: bool) -> None:
    loss = DualContrastiveLoss(gather)
    with pytest.raises(DataError, match=r"real_logits.*non-empty floating-point tensor of logits"):
        loss(torch.zeros(0, 16), torch.zeros(4, 16))
    with pytest.raises(DataError, match=r"fake_logits.*non-empty floating-point tensor of logits"):
        loss(torch.zeros(4, 16), torch.zeros(4, 16, dtype=torch.long))
