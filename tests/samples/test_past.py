"""PastOutput: the average by the formula, several pasts, what is not averaged, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from same import assert_same
from small_models import CountingNet, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples import PastOutput, draw


def move(net: nn.Module, seed: int) -> None:
    """As an optimizer does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator).to(p), alpha=0.1)


def new_net() -> CountingNet:
    torch.manual_seed(0)
    return CountingNet()


@pytest.mark.parametrize(
    ("decay", "interval"), [([0.9], [1]), ([0.0], [2]), ([0.5, 0.99], [1, 1]), ([0.1, 0.1, 0.1], [1, 2, 3])]
)
def test_pasts_are_the_averages_of_the_formula(decay: list[float], interval: list[int]) -> None:
    net, past = new_net(), PastOutput(decay=decay, interval=interval)
    past.attach(net)
    move(net, 0)  # a host loads weights
    want = [[p.detach().double() for p in net.parameters()] for _ in decay]
    for step in range(7):
        past.follow(net, step)
        for one, alpha, every in zip(want, decay, interval, strict=True):
            if step and step % every == 0:
                one[:] = [
                    alpha * p + (1 - alpha) * q.detach().double() for p, q in zip(one, net.parameters(), strict=True)
                ]
        for copied, one in zip(past.pasts, want, strict=True):
            for p, expected in zip(copied.parameters(), one, strict=True):
                assert_close(p, expected, "exact", dtype=torch.float32, scale=1)
        move(net, 1 + step)
    batch = images_batch()
    sample = past(batch)
    assert sample.shape == (2, len(decay), 3, 32, 32)
    for k, copied in enumerate(past.pasts):
        assert torch.equal(sample[:, k], copied(batch["lr"]))
    assert torch.equal(draw([past], batch), sample)


def test_a_past_begins_as_the_network() -> None:
    net, past = new_net(), PastOutput()
    past.attach(net)
    move(net, 0)
    past.follow(net, 0)
    batch = images_batch()
    assert torch.equal(past(batch)[:, 0], net(batch["lr"]))
    for p in past.parameters():
        assert not p.requires_grad
    assert past.count == 1


class Indexed(nn.Module):
    """BatchNorm, an index as Swin's, and something that is there once."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.index: Tensor
        self.register_buffer("index", torch.arange(3))
        self.scale = nn.Parameter(torch.ones(()))
        self.modes: list[Any] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled(), (self.scale * lr @ lr.mT).dtype))
        return nn.functional.interpolate(self.norm(lr)[:, self.index] * self.scale, scale_factor=4)


def test_statistics_are_averaged_and_indices_are_not() -> None:
    net, past = Indexed(), PastOutput(decay=0.999)
    past.attach(net)
    past.follow(net, 0)
    copied = past.pasts[0]
    assert isinstance(copied, Indexed)
    start = net.norm.running_mean.clone()  # type: ignore[union-attr]
    for step in range(1, 4):
        net(torch.rand(2, 3, 8, 8))
        past.follow(net, step)
    assert copied.index.tolist() == [0, 1, 2]
    assert copied.norm.num_batches_tracked == net.norm.num_batches_tracked == 3
    moved = (copied.norm.running_mean - start) / (net.norm.running_mean - start)  # type: ignore[operator]
    assert (moved > 0).all()
    assert (moved < 0.01).all()


def test_it_is_used_as_a_fixed_function_in_full_precision() -> None:
    net, past = Indexed().train(), PastOutput()
    past.attach(net)
    batch = {key: value.requires_grad_() for key, value in images_batch().items()}
    before = copy.deepcopy(past.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        sample = past(batch)
    (copied,) = past.pasts
    assert copied.modes == [(False, False, torch.float32)]
    assert net.modes == []
    assert not sample.requires_grad
    assert sample.dtype == torch.float32
    assert_same(before, past.state_dict())
    assert past({key: value.double() for key, value in images_batch().items()}).dtype == torch.float64


def test_a_network_in_half_precision_has_a_past_that_moves() -> None:
    net, past = new_net().bfloat16(), PastOutput(decay=0.999)
    past.attach(net)
    past.follow(net, 0)
    (start,) = (copy.deepcopy(p) for p in past.pasts)
    move(net, 0)
    past.follow(net, 1)
    for p, q, now in zip(past.parameters(), start.parameters(), net.parameters(), strict=True):
        assert p.dtype == torch.float32
        assert_close(p, 0.999 * q.double() + 0.001 * now.detach().double(), "close", dtype=torch.float32, scale=1)
    assert past({key: value.bfloat16() for key, value in images_batch().items()}).dtype == torch.bfloat16


def test_follows_a_network_that_was_moved(device: str) -> None:
    net, past = new_net(), PastOutput()
    past.attach(net)
    net.to(device)
    past.follow(net, 0)
    batch = {key: value.to(device) for key, value in images_batch().items()}
    assert past(batch).device == batch["hr"].device


class Conditioned(nn.Module):
    def forward(self, lr: Tensor, kernel: Tensor) -> Tensor:
        return lr


def test_what_it_cannot_do_is_refused() -> None:
    batch = images_batch()
    with pytest.raises(ConfigError, match=r"the SR network is not known yet.*Methods\.attach"):
        PastOutput()(batch)
    with pytest.raises(ConfigError, match=r"expected an nn\.Module as SR network"):
        PastOutput().attach(lambda lr: lr)  # type: ignore[arg-type]
    past = PastOutput()
    past.attach(Conditioned())
    with pytest.raises(DataError, match=r"Conditioned fails on LR images.*kernel.*such as kernels, cannot have"):
        past(batch)
    with pytest.raises(ConfigError, match="expected a new one for each list of samples"):
        past.attach(new_net())
    net = new_net()
    net.kept = net(batch["lr"])  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="CountingNet, cannot be copied"):
        PastOutput().attach(net)
    other = PastOutput()
    other.attach(CountingNet(scale=2))
    with pytest.raises(DataError, match=r"from the past, CountingNet, got \(2, 3, 16, 16\)"):
        other(batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1}, r"PastOutput\(decay\): expected a number below 1, got 1.0"),
        ({"decay": -0.1}, r"PastOutput\(decay\): expected a number of at least 0"),
        ({"decay": [0.9, "x"]}, r"PastOutput\(decay\)\[1\]: expected a number"),
        ({"decay": []}, r"PastOutput\(decay\): expected a number, or a list"),
        ({"decay": 0}, "a decay above 0, or an interval above 1, got a past that is the network itself"),
        ({"decay": [0.9, 0], "interval": [1, 1]}, "a decay above 0, or an interval above 1"),
        ({"interval": 0}, r"PastOutput\(interval\): expected a whole number"),
        (
            {"decay": [0.1, 0.2], "interval": [1, 2, 3]},
            r"PastOutput\(interval\): expected as many as decay has, 2, or one",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PastOutput(**settings)
