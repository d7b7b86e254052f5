"""MPFNet against eq. 4 to 6 written out, its size against the paper's, and the flags of Tables V and VI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import cost
from contrastive_sr.networks import NETWORKS, MPFNet
from contrastive_sr.networks.mpf_net import PERCEPTIONS


def small(seed: int = 0, **arguments: Any) -> MPFNet:
    torch.manual_seed(seed)
    return MPFNet(**{"channels": 4, "blocks": 2, **arguments})


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sr_has_the_scale_s_size(scale: int) -> None:
    assert small(scale=scale)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def test_parameters_and_multiply_adds_are_the_paper_s() -> None:
    """Table IV: 5.95 M, and 327.15 G at 224 x 224."""
    counted = cost(MPFNet(), 224, 224)
    assert counted.parameters == pytest.approx(5.95e6, rel=0.05)
    assert counted.multiply_adds == pytest.approx(327.15e9, rel=0.1)
    assert (counted.parameters, counted.multiply_adds) == (5_847_243, 323_030_603_200)  # as docs/mpf_net.md says
    assert len(MPFNet().blocks) == 10


def block(part: nn.Module, x: Tensor) -> Tensor:
    """Convolution, SELU, convolution, SELU, squeeze and excitation, from the weights."""
    alpha, gain = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

    def selu(t: Tensor) -> Tensor:
        return gain * torch.where(t > 0, t, alpha * (t.exp() - 1))

    first, _, second, _, excitation = part
    x = selu(F.conv2d(selu(F.conv2d(x, first.weight, first.bias, padding=1)), second.weight, second.bias, padding=1))
    _, squeeze, _, excite = excitation.weigh
    mean = x.mean((2, 3))
    hidden = (mean @ squeeze.weight[..., 0, 0].T + squeeze.bias).clamp_min(0)
    weights = 1 / (1 + (-(hidden @ excite.weight[..., 0, 0].T + excite.bias)).exp())
    return x * weights[:, :, None, None]


@pytest.mark.parametrize("cross_fusion", [True, False])
def test_values_are_those_of_the_equations(cross_fusion: bool) -> None:
    net = small(cross_fusion=cross_fusion).double()
    lr = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64).view(1, 3, 1, 1)
    shallow = net.first(lr - mean)
    pairs = [(1, 1), (3, 1), (3, 3), (3, 6), (3, 9)]
    maps = {}
    for i, ((kernel, dilation), part) in enumerate(zip(pairs, net.perceptions, strict=True), start=1):
        assert part.weight.shape[-2:] == (kernel, kernel)
        pad = dilation if kernel == 3 else 0
        maps[i] = F.conv2d(shallow, part.weight, part.bias, padding=pad, dilation=dilation)

    def joined(own: Tensor, other: Tensor) -> Tensor:
        return torch.cat((own, other), 1) if cross_fusion else own

    for cpb in net.blocks:
        up = {5: maps[5]}
        for i in (4, 3, 2, 1):
            up[i] = block(cpb.up[i - 1], joined(maps[i], up[i + 1]))
        down = {1: up[1]}
        for i in (2, 3, 4, 5):
            down[i] = block(cpb.down[i - 2], joined(up[i], down[i - 1]))
        maps = {i: maps[i] + down[i] for i in maps}
    fused = net.fuse(torch.cat([maps[i] for i in range(1, 6)], 1))
    torch.testing.assert_close(net(lr), net.last(net.upsample(fused)) + mean)


def test_all_of_it_learns_also_under_autocast() -> None:
    net = small()
    with torch.autocast("cpu", torch.bfloat16):
        sr = net(torch.rand(1, 3, 12, 12))
    sr.float().abs().mean().backward()
    assert torch.isfinite(sr).all()
    # the first blocks' squeeze may be shut by its ReLU
    silent = [n for n, p in net.named_parameters() if p.grad is None or (not p.grad.any() and ".weigh." not in n)]
    assert not silent


def test_perceptions_of_tables_v_and_vi() -> None:
    assert PERCEPTIONS["2+3"] == PERCEPTIONS["mpfe"]
    for name, pairs in PERCEPTIONS.items():
        net = small(perceptions=name, blocks=1)
        pairs_of_net = [(part.kernel_size[0], part.dilation[0]) for part in net.perceptions]
        assert pairs_of_net == list(pairs)
        assert len(pairs_of_net) == 5
        if "+" in name:
            plain, dilated = map(int, name.split("+"))
            assert sum(dilation == 1 for _, dilation in pairs_of_net) == plain
            assert sum(dilation > 1 for _, dilation in pairs_of_net) == dilated
    assert set(PERCEPTIONS["vanilla"]) == {(3, 1)}
    three = small(perceptions=[[1, 1], [3, 2], [5, 1]])
    assert three(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    assert len(three.blocks[0].up) == len(three.blocks[0].down) == 2


def test_without_cross_fusion_maps_do_not_see_each_other() -> None:
    maps = [torch.rand(1, 4, 6, 6) for _ in range(5)]
    changed = [maps[0] + 1, *maps[1:]]
    for cross_fusion in (True, False):
        cpb = small(cross_fusion=cross_fusion).blocks[0]
        equal = [torch.equal(a, b) for a, b in zip(cpb(maps), cpb(changed), strict=True)]
        assert equal == ([False] * 5 if cross_fusion else [False, True, True, True, True])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 8}, r"MPFNet\(scale\): expected a whole number from 2 to 4, got 8"),
        ({"channels": 0}, r"MPFNet\(channels\)"),
        ({"blocks": "10"}, r"MPFNet\(blocks\)"),
        ({"cross_fusion": "no"}, r"MPFNet\(cross_fusion\): expected true or false"),
        ({"perceptions": "mfpe"}, "Did you mean 'mpfe'"),
        ({"perceptions": [[3, 1]]}, "two or more pairs of kernel and dilation"),
        ({"perceptions": [[3, 1], 3]}, "two or more pairs of kernel and dilation"),
        ({"perceptions": [[3, 1], [2, 1]]}, "expected odd kernels.*got 2"),
        ({"perceptions": [[3, 1], [3, 0]]}, "dilation: expected a whole number of at least 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MPFNet(**arguments)


def test_other_shapes_are_refused_and_it_is_known_by_name() -> None:
    with pytest.raises(DataError, match=r"MPFNet\(lr\): expected .*\(B, 3, h, w\)"):
        small()(torch.rand(1, 4, 8, 8))
    assert NETWORKS["MPFNet"] is MPFNet
