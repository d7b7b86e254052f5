"""training_mode and frozen hand a network back exactly as they found it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contrastive_sr.embeddings import HaarDiscriminator, frozen, training_mode
from contrastive_sr.embeddings.discriminator import Block


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    net[2].eval()
    net[0].bias.requires_grad_(False)
    return net


def state(net: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("mode", [True, False])
def test_training_mode_is_set_and_undone(mode: bool) -> None:
    net = network()
    before = state(net)
    with training_mode(net, mode):
        assert all(m.training is mode for m in net.modules())
    assert state(net) == before


def test_frozen_is_undone() -> None:
    net = network()
    before = state(net)
    with frozen(net):
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        x = torch.rand(1, 3, 2, 2, requires_grad=True)
        net(x).sum().backward()
        assert x.grad is not None
    assert state(net) == before
    assert all(p.grad is None for p in net.parameters())


def test_both_are_undone_after_an_error() -> None:
    net = network()
    before = state(net)
    with pytest.raises(ZeroDivisionError), frozen(net):
        raise ZeroDivisionError
    assert state(net) == before
    with pytest.raises(ZeroDivisionError), training_mode(net, True):
        raise ZeroDivisionError
    assert state(net) == before


def test_frozen_folds_batch_norm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = HaarDiscriminator(out_indices=(0, 1)).eval()
    folded = []
    compute = Block.computed_weights
    monkeypatch.setattr(Block, "computed_weights", lambda block: folded.append(block) or compute(block))
    images = torch.rand(1, 3, 32, 32)
    plain = embedding(images)
    assert len(folded) == 2
    with frozen(embedding):
        first = embedding(images)
        with frozen(embedding):
            embedding(images)
        assert all(torch.equal(x, y) for x, y in zip(plain, (*first[:1], *embedding(images)[1:]), strict=True))
    assert len(folded) == 4
    with torch.no_grad():
        embedding.blocks[0].conv.weight.mul_(2)
    with frozen(embedding):
        assert not torch.equal(embedding(images)[0], plain[0])
    assert len(folded) == 6
    assert all(block._kept is None for block in embedding.blocks)
