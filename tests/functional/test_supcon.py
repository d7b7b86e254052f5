"""supcon and the two losses of ContraD against plain loops in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import supcon
from contrastive_sr.losses import FakeContrastLoss, SimCLRLoss


def vectors(count: int, seed: int, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loops(anchors: Tensor, candidates: Tensor, positive: Any, same: Any, temperature: float) -> list[float]:
    """Khosla et al., eq. 2, anchor by anchor; `positive(i, k)` and `same(i, k)` are predicates."""
    values = []
    for i, a in enumerate(anchors):
        logits = {}
        for k, c in enumerate(candidates):
            if not same(i, k):
                dot = sum(x * y for x, y in zip(a.tolist(), c.tolist(), strict=True))
                logits[k] = dot / math.hypot(*a.tolist()) / math.hypot(*c.tolist()) / temperature
        total = math.log(sum(math.exp(x) for x in logits.values()))
        near = [total - x for k, x in logits.items() if positive(i, k)]
        values.append(sum(near) / len(near) if near else 0.0)
    return values


def masks(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    same = torch.eye(rows, columns, dtype=torch.bool)
    positive = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.4
    positive[0] = False  # an anchor without positives
    return positive & ~same, same


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_supcon_is_its_equation(temperature: float, device: str) -> None:
    candidates = vectors(7, 1).to(device)
    anchors = candidates[:4]
    positive, same = (mask.to(device) for mask in masks(4, 7, 2))
    want = loops(anchors, candidates, lambda i, k: positive[i, k], lambda i, k: same[i, k], temperature)
    got = supcon(anchors, candidates, positive, same, temperature, reduction="none")
    assert_close(got, want, dtype=torch.float64)
    assert got[0] == 0
    assert_close(supcon(anchors, candidates, positive, same, temperature), sum(want) / 4, dtype=torch.float64)
    total = supcon(anchors, candidates, positive, same, temperature, reduction="sum")
    assert_close(total, sum(want), dtype=torch.float64)


def test_supcon_gradients(device: str) -> None:
    a, c = (vectors(count, count).to(device).requires_grad_() for count in (3, 5))
    positive, same = (mask.to(device) for mask in masks(3, 5, 3))
    assert torch.autograd.gradcheck(lambda x, y: supcon(x, y, positive, same, 0.5), (a, c))
    assert torch.autograd.gradgradcheck(lambda x, y: supcon(x, y, positive, same, 0.5), (a, c))


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_simclr_finds_the_other_view_among_all(count: int, gather: bool) -> None:
    first, second = vectors(count, 1), vectors(count, 2)
    views = torch.cat((first, second))
    want = loops(views, views, lambda i, k: abs(i - k) == count, lambda i, k: i == k, 0.1)
    assert_close(SimCLRLoss(gather=gather)(first, second), sum(want) / len(want), dtype=torch.float64)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_fakes_are_one_class_against_all_real_views(count: int, gather: bool) -> None:
    fake, real = vectors(count, 1), vectors(6, 2)
    want = loops(fake, torch.cat((fake, real)), lambda i, k: k < count and k != i, lambda i, k: i == k, 0.1)
    assert_close(FakeContrastLoss(gather=gather)(fake, real), sum(want) / count, dtype=torch.float64)


@pytest.mark.parametrize("loss", [SimCLRLoss(temperature=0.5), FakeContrastLoss(temperature=0.5)])
def test_losses_gradients(loss: torch.nn.Module) -> None:
    a, b = vectors(3, 1).requires_grad_(), vectors(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))


def test_directions() -> None:
    """A step against the gradient draws views of one image together, and fakes away from real images."""
    first, second = vectors(4, 1).requires_grad_(), vectors(4, 2)
    SimCLRLoss()(first, second).backward()
    nearer = first.detach() - 0.1 * first.grad
    before, after = (torch.cosine_similarity(x, second).mean() for x in (first.detach(), nearer))
    assert after > before
    fake, real = vectors(4, 3).requires_grad_(), vectors(8, 4)
    FakeContrastLoss()(fake, real).backward()
    closest = [
        torch.cosine_similarity(x[:, None], real[None], dim=2).max(1).values.mean()
        for x in (fake.detach(), fake.detach() - 0.1 * fake.grad)
    ]
    assert closest[1] < closest[0]


def test_half_precision_and_zero_vectors() -> None:
    first, second = vectors(4, 1).half(), vectors(4, 2).half()
    loss = SimCLRLoss()(first, second)
    assert loss.dtype == torch.float32
    assert_close(loss, SimCLRLoss()(first.double(), second.double()).item(), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(SimCLRLoss()(first.float(), second.float()), loss.item(), dtype=torch.float32)
    zeros = torch.zeros(3, 5, requires_grad=True)
    SimCLRLoss()(zeros, zeros).backward()
    assert torch.isfinite(zeros.grad).all()


def test_wrong_input_is_refused() -> None:
    positive, same = masks(3, 5, 1)
    a, c = vectors(3, 1), vectors(5, 2)
    for arguments, message in (
        ((a[0], c, positive, same), r"supcon\(anchors\)"),
        ((a, c[:, :4], positive, same), r"supcon\(candidates\): expected .*\(K, 5\)"),
        ((a, c, positive.float(), same), r"supcon\(positive\): expected a boolean tensor \(3, 5\)"),
        ((a, c, positive, same.T), r"supcon\(same\): expected a boolean tensor \(3, 5\)"),
    ):
        with pytest.raises(DataError, match=message):
            supcon(*arguments)
    with pytest.raises(ConfigError, match=r"supcon\(temperature\)"):
        supcon(a, c, positive, same, 0)
    for kind in (SimCLRLoss, FakeContrastLoss):
        with pytest.raises(ConfigError, match=r"\(temperature\)"):
            kind(temperature=0)
        with pytest.raises(ConfigError, match=r"\(gather\): expected true or false"):
            kind(gather="no")
    with pytest.raises(DataError, match=r"SimCLRLoss\(second\)"):
        SimCLRLoss()(a, c)
    with pytest.raises(DataError, match=r"FakeContrastLoss\(real\)"):
        FakeContrastLoss()(a, vectors(2, 1, dim=4))


def test_an_anchor_is_no_positive_of_its_own() -> None:
    near, far = (torch.eye(3)[:, columns].bool() for columns in ([0, 1, 2], [1, 2, 0]))
    assert torch.equal(
        supcon(vectors(3, 0), vectors(3, 0), near | far, near), supcon(vectors(3, 0), vectors(3, 0), far, near)
    )
