"""SRNCELoss: srnce over the positions of feature maps. What it shares with others is in test_position_losses.py."""

from __future__ import annotations

import itertools

import pytest
import torch
from nce_oracles import penalties, srnce_loops
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import srnce
from contrastive_sr.losses import SRNCELoss

VARIANTS = pytest.mark.parametrize("variant", ["tempered", "paper", "negative"])


def roles(*shape: int, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(device) for _ in range(3)]


def vectors(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


@VARIANTS
@pytest.mark.parametrize("penalty", [True, False])
def test_is_the_function_of_the_maps_positions(variant: str, penalty: bool, device: str) -> None:
    features = roles(2, 5, 3, 4, device=device)
    loss = SRNCELoss(temperature=0.2, variant=variant, penalty=penalty, positions=None)(*features)
    expected = srnce(*map(vectors, features), 0.2, variant, penalty=penalty)
    assert_close(loss, expected, "exact")
    images = [
        srnce_loops(h, s, low, 0.2, variant, penalties(h, low) if penalty else None).mean()
        for h, s, low in zip(*map(vectors, features), strict=True)
    ]
    assert_close(loss, torch.stack(images).mean(), dtype=torch.float64)


@VARIANTS
def test_gradient_reaches_the_sampled_sr_features_and_nothing_else(variant: str) -> None:
    hr, sr, lr = (x.requires_grad_() for x in roles(2, 5, 6, 7))
    SRNCELoss(variant=variant, positions=8)(hr, sr, lr, torch.Generator().manual_seed(0)).backward()
    assert hr.grad is None
    assert lr.grad is None
    assert sr.grad is not None
    reached = sr.grad.abs().sum(1).flatten(1) > 0
    assert reached.sum(1).tolist() == [8, 8]
    assert torch.equal(reached[0], reached[1])


@VARIANTS
def test_hr_and_lr_are_trained_if_told_to(variant: str) -> None:
    for detach_hr, detach_lr in itertools.product((True, False), repeat=2):
        hr, sr, lr = (x.requires_grad_() for x in roles(2, 5, 3, 4))
        SRNCELoss(variant=variant, detach_hr=detach_hr, detach_lr=detach_lr)(hr, sr, lr).backward()
        assert sr.grad is not None
        assert (hr.grad is None) == detach_hr
        assert (lr.grad is None) == detach_lr


@VARIANTS
@pytest.mark.parametrize("anchor_channels", [None, [5]])
def test_heads_learn_from_all_roles_also_where_features_are_detached(
    variant: str, anchor_channels: list[int] | None
) -> None:
    loss = SRNCELoss(
        temperature=0.3, variant=variant, channels=[5], anchor_channels=anchor_channels, dim=6, positions=None
    ).double()
    hr, sr, lr = (x.requires_grad_() for x in roles(2, 5, 3, 4))
    loss(hr, sr, lr).backward()
    assert hr.grad is None
    assert lr.grad is None
    head, own = loss.heads[0], loss.anchor_heads[0]
    assert (head is own) == (anchor_channels is None)
    projected = head(vectors(hr)), own(vectors(sr)), head(vectors(lr))
    plain = srnce(*projected, 0.3, variant, detach_hr=False, detach_lr=False)
    for parameter, expected in zip(loss.parameters(), torch.autograd.grad(plain, list(loss.parameters())), strict=True):
        assert_close(parameter.grad, expected, scale=0.1)
        assert expected.abs().sum() > 0


@VARIANTS
def test_metrics_for_logs(variant: str) -> None:
    hr, sr, lr = (x.requires_grad_() for x in roles(2, 5, 3, 4))
    loss = SRNCELoss(temperature=0.3, variant=variant, detach_hr=False, detach_lr=False, positions=None)
    contrast = loss.contrast(hr, sr, lr)
    assert torch.equal(contrast.loss, loss(hr, sr, lr))
    torch.testing.assert_close(contrast.metrics["positive_similarity"], torch.cosine_similarity(sr, hr).mean())
    torch.testing.assert_close(contrast.metrics["lr_similarity"], torch.cosine_similarity(sr, lr).mean())
    assert not contrast.metrics["positive_similarity"].requires_grad
    assert contrast.metrics["lr_similarity"] is not None
    assert not contrast.metrics["lr_similarity"].requires_grad


def test_roles_are_named_in_errors() -> None:
    hr, sr, lr = roles(2, 5, 3, 4)
    with pytest.raises(DataError, match=r"SRNCELoss\(sr\[0\]\): expected maps of a batch of 2"):
        SRNCELoss()(hr, sr[:1], lr)
    with pytest.raises(DataError, match=r"SRNCELoss: expected as many layers, .* hr, sr, lr; got .*'lr': 2"):
        SRNCELoss()([hr], [sr], [lr, lr])
    with pytest.raises(DataError, match=r"got \{'hr': 5, 'sr': 5, 'lr': 4\}"):
        SRNCELoss()(hr, sr, lr[:, :4])


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"SRNCELoss\(variant\): expected one of negative, tempered, paper, got 'eq4'"
    ):
        SRNCELoss(variant="eq4")
