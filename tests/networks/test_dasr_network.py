"""The DASR network: sizes, what adapts to the degradation, and the ablations' variants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks import DASR
from contrastive_sr.networks.dasr import (
    ConcatenatedConvolution,
    DegradationAwareConvolution,
    depthwise_per_image,
)
from contrastive_sr.networks.parts import ColourMean


def small(seed: int = 0, **arguments: Any) -> DASR:
    torch.manual_seed(seed)
    return DASR(**{"channels": 8, "groups": 2, "blocks": 1, **arguments})


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


# Sizes


def test_parameters_are_as_many_as_the_paper_s() -> None:
    net = DASR(scale=4)
    assert net.encoder is not None
    encoder = count(net.encoder)
    assert encoder == pytest.approx(1.3e6, rel=0.02)
    assert count(net) - encoder == pytest.approx(4.7e6, rel=0.02)


@pytest.mark.parametrize("variant", ["unmodulated", "concatenated", "oracle"])
def test_ablations_have_comparable_sizes(variant: str) -> None:
    net, full = DASR(variant=variant), DASR()
    encoders = [m.encoder if m.encoder is not None else m.kernel_layers for m in (net, full)]
    assert count(net) - count(encoders[0]) == pytest.approx(count(full) - count(encoders[1]), rel=0.02)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("variant", ["full", "unmodulated", "concatenated"])
def test_sr_has_the_scale_s_size(scale: int, variant: str) -> None:
    assert small(scale=scale, variant=variant)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


# Values


def test_one_grouped_convolution_is_that_of_image_after_image() -> None:
    torch.manual_seed(0)
    x, kernels = torch.randn(3, 4, 6, 5, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1))
    want = torch.zeros_like(x)
    for b in range(3):
        for c in range(4):
            for i in range(6):
                for j in range(5):
                    want[b, c, i, j] = (padded[b, c, i : i + 3, j : j + 3] * kernels[b, c]).sum()
    torch.testing.assert_close(depthwise_per_image(x, kernels), want)


@pytest.mark.parametrize("modulation", [True, False])
def test_degradation_aware_convolution_is_fig_2c(modulation: bool) -> None:
    torch.manual_seed(0)
    part = DegradationAwareConvolution(16, modulation).double()
    x, r = torch.randn(2, 16, 6, 5, dtype=torch.float64), torch.randn(2, 64, dtype=torch.float64)
    weights = dict(part.named_parameters())
    want = []
    for b in range(2):
        kernel = (weights["kernel.2.weight"] @ leaky(weights["kernel.0.weight"] @ r[b])).view(16, 1, 3, 3)
        filtered = leaky(F.conv2d(x[b : b + 1], kernel, padding=1, groups=16))[0]
        out = torch.einsum("oc,chw->ohw", weights["pointwise.weight"][:, :, 0, 0], filtered)
        out = out + weights["pointwise.bias"][:, None, None]
        if modulation:
            logits = weights["modulation.2.weight"] @ leaky(weights["modulation.0.weight"] @ r[b])
            out = out + x[b] / (1 + (-logits).exp())[:, None, None]
        want.append(out)
    torch.testing.assert_close(part(x, r), torch.stack(want))
    assert ("modulation.0.weight" in weights) == modulation
    if modulation:
        assert weights["modulation.0.weight"].shape == (2, 64)  # reduction 8


def test_concatenated_convolution_sees_r_everywhere() -> None:
    part = ConcatenatedConvolution(5)
    x, r = torch.randn(2, 5, 4, 4), torch.randn(2, 64)
    joined = torch.cat((x, r.view(2, 64, 1, 1).repeat(1, 1, 4, 4)), 1)
    torch.testing.assert_close(part(x, r), F.conv2d(joined, part.conv.weight, part.conv.bias, padding=1))


def test_the_network_is_rcan_s_structure() -> None:
    """Blocks, groups and the whole once more, as sums of their parts."""
    net = small(groups=2, blocks=2).double().eval()
    lr = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    r = leaky(net.encode(lr) @ net.compress[0].weight.T)
    first = x = net.first((lr - net.colour.mean) * 255)
    for group in net.groups:
        inner = x
        for block in group.blocks:
            out = leaky(block.conv1(leaky(block.aware1(inner, r))))
            inner = inner + block.conv2(leaky(block.aware2(out, r)))
        x = x + group.conv(inner)
    want = net.upsample(first + net.after_groups(x)) / 255 + net.colour.mean
    torch.testing.assert_close(net(lr), want)


def test_images_in_0_to_255_inside() -> None:
    colour = ColourMean(gain=255.0).double()
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).double().view(3, 1, 1)
    torch.testing.assert_close(colour(images), 255 * images - 255 * mean)
    torch.testing.assert_close(colour.undo(colour(images)), images)


@pytest.mark.parametrize("variant", ["full", "unmodulated", "concatenated"])
def test_images_of_a_batch_do_not_see_each_other(variant: str) -> None:
    net = small(variant=variant).double().eval()
    lr = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(lr), torch.cat([net(image[None]) for image in lr]))


# Representation


@pytest.mark.parametrize("variant", ["full", "unmodulated", "concatenated"])
def test_r_can_come_from_other_images(variant: str) -> None:
    net = small(variant=variant).double().eval()
    lr, other = torch.rand(2, 3, 8, 8).double(), torch.randn(2, 256).double()
    torch.testing.assert_close(net(lr, representation=net.encode(lr)), net(lr))
    assert (net(lr, representation=other) - net(lr)).abs().max() > 1e-6


@pytest.mark.parametrize("variant", ["full", "unmodulated", "concatenated"])
def test_sr_trains_the_encoder_through_r_and_not_its_head(variant: str) -> None:
    net = small(variant=variant)
    net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    for name, parameter in net.named_parameters():
        if name.startswith("encoder.head"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_oracle_reads_the_true_kernel() -> None:
    net = small(variant="oracle", kernel_size=5)
    assert net.encoder is None
    assert sum(isinstance(m, nn.Linear) for m in net.kernel_layers) == 5
    lr, kernel = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 5)
    sr = net(lr, kernel=kernel)
    assert (net(lr, kernel=kernel.flip(0)) - sr).abs().max() > 1e-6
    sr.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_checkpoints_hold_no_constants() -> None:
    assert not [name for name in small().state_dict() if "colour" in name]


# Precision


def test_mixed_precision_is_finite_and_near_float32() -> None:
    net = small()
    lr = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(lr)
    torch.testing.assert_close(half.float(), net(lr), rtol=0.05, atol=0.1)
    half.float().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, r"DASR\(scale\): expected a whole number from 2 to 4, got 5"),
        ({"scale": 1}, r"DASR\(scale\): expected a whole number from 2 to 4, got 1"),
        ({"variant": "ful"}, r"DASR\(variant\): expected one of full, unmodulated, concatenated, oracle, got 'ful'"),
        ({"channels": 0}, r"DASR\(channels\): expected a whole number of at least 1"),
        ({"groups": 0}, r"DASR\(groups\)"),
        ({"blocks": 0}, r"DASR\(blocks\)"),
        ({"kernel_size": 0}, r"DASR\(kernel_size\)"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**arguments)


def test_impossible_tensors_are_refused() -> None:
    net, oracle = small(), small(variant="oracle")
    lr = torch.rand(2, 3, 8, 8)
    with pytest.raises(DataError, match=r"DASR\(lr\): expected a non-empty tensor \(B, 3, h, w\).*x\[None\]"):
        net(lr[0])
    with pytest.raises(DataError, match=r"DASR\(representation\): expected a non-empty tensor \(2, 256\)"):
        net(lr, representation=torch.rand(1, 256))
    with pytest.raises(DataError, match="variant 'full' encodes the LR image; only 'oracle' reads kernels"):
        net(lr, kernel=torch.rand(2, 21, 21))
    with pytest.raises(ConfigError, match=r"variant 'oracle' has no encoder; it reads the true kernel.*TrueKernel"):
        oracle(lr)
    with pytest.raises(DataError, match=r"DASR\(kernel\): expected a non-empty tensor \(2, 21, 21\)"):
        oracle(lr, kernel=torch.rand(2, 15, 15))
