"""DASR's degradation encoder: its layers, its size, its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close
from torch import nn

from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks import DASR


def test_size_is_the_paper_s() -> None:
    encoder = DegradationEncoder()
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(1.3e6, rel=0.02)
    assert sum(p.numel() for p in encoder.head.parameters()) == 2 * (256 * 256 + 256)


def test_values_are_those_of_the_layers_one_by_one() -> None:
    torch.manual_seed(0)
    encoder = DegradationEncoder().double().train()
    images = torch.rand(3, 3, 13, 10, dtype=torch.float64)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 64, 128, 128, 256, 256]
    x = images
    for convolution, stride in zip(convolutions, (1, 1, 2, 1, 2, 1), strict=True):
        x = F.conv2d(x, convolution.weight, None, stride, padding=1)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.1 * x)
    want = x.mean((2, 3))
    assert_close(encoder(images), want, scale=1)
    first, first_bias, last, last_bias = encoder.head.parameters()
    hidden = want @ first.T + first_bias
    assert_close(encoder.head(want), torch.where(hidden > 0, hidden, 0.1 * hidden) @ last.T + last_bias, scale=1)


def test_a_head_with_relu_does_not_carry_over(tmp_path: Path) -> None:
    former = {
        name.replace("head.0.", "head.hidden.").replace("head.2.", "head.out."): value
        for name, value in DegradationEncoder().state_dict().items()
    }
    torch.save(former, tmp_path / "former.pth")
    with pytest.raises(ConfigError, match=r"DegradationEncoder\(weights\)"):
        DegradationEncoder(weights=tmp_path / "former.pth")


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (48, 48)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    encoder = DegradationEncoder().eval()
    assert encoder(torch.rand(2, 3, *size)).shape == (2, 256)


def test_all_but_the_head_makes_r() -> None:
    encoder = DegradationEncoder()
    encoder(torch.rand(2, 3, 12, 12)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith("head"), name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("of_network", [False, True])
def test_weights_from_a_file(of_network: bool, tmp_path: Path) -> None:
    net = DASR(channels=4, groups=1, blocks=1)
    assert net.encoder is not None
    torch.save({"params": (net if of_network else net.encoder).state_dict()}, tmp_path / "net.pth")
    encoder = DegradationEncoder(weights=tmp_path / "net.pth")
    for name, value in net.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)


def test_the_encoder_in_a_checkpoint_of_a_training(tmp_path: Path) -> None:
    """The averaged network's; not the momentum encoder of the method beside it."""
    net, average, momentum = (DASR(channels=4, groups=1, blocks=1) for _ in range(3))
    assert average.encoder is not None
    assert momentum.encoder is not None
    content = {
        "meta": {"cfg": "text"},
        "state_dict": {
            **{f"generator.{name}": value for name, value in net.state_dict().items()},
            **{f"generator_ema.{name}": value for name, value in average.state_dict().items()},
        },
        "contrastive_sr": {
            f"methods.dasr.loss.key_encoder.encoder.{name}": value
            for name, value in momentum.encoder.state_dict().items()
        },
    }
    torch.save(content, tmp_path / "iter_3.pth")
    encoder = DegradationEncoder(tmp_path / "iter_3.pth")
    for name, value in average.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)
    torch.save(content["contrastive_sr"], tmp_path / "momentum.pth")
    with pytest.raises(ConfigError, match=r"got a momentum encoder's alone, under methods\.dasr\.loss\.key_encoder"):
        DegradationEncoder(tmp_path / "momentum.pth")


def test_the_last_convolution_is_the_one_before_the_mean() -> None:
    encoder = DegradationEncoder()
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    assert encoder.last_convolution is convolutions[-1]
    assert list(encoder.body.parameters())[-3] is encoder.last_convolution.weight  # and BatchNorm's two behind it


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(
        ConfigError,
        match=r"net\.pth was expected to hold the weights of one DegradationEncoder, got none .* 'oracle' has no",
    ):
        DegradationEncoder(weights=tmp_path / "net.pth")


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 4, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"DegradationEncoder\(images\): expected a non-empty tensor \(B, 3, h, w\)"):
        DegradationEncoder()(torch.rand(shape))
