"""training_mode and frozen hand a network back exactly as they found it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contrastive_sr.embeddings import frozen, training_mode


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
