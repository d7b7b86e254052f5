"""Cria-CL's network: features of stock trunks, equation 10, weights, and what cannot be split."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.networks import CRLSR, NETWORKS, CriteriaBranches
from contrastive_sr.networks.criteria_branches import Trunk

# One small trunk of each kind, and at which module its upsampling begins.
BASICSR: dict[str, tuple[dict[str, Any], str]] = {
    "rrdb": ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4}, ""),
    "edsr": ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2}, "upsample"),
    "rcan": (
        {
            "type": "RCAN",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 16,
            "num_group": 1,
            "num_block": 2,
            "img_range": 2.0,
        },
        "upsample",
    ),
}
BASICSR["rrdb_x2"] = ({**BASICSR["rrdb"][0], "scale": 2}, "")
BASICSR["rrdb_x1"] = ({**BASICSR["rrdb"][0], "scale": 1}, "")
RRDB = BASICSR["rrdb"][0]
SWIN = {"type": "SwinIR", "img_size": 16, "window_size": 4, "embed_dim": 12, "depths": [1], "num_heads": [2]}
MMAGIC: dict[str, tuple[dict[str, Any], str]] = {
    "rrdb": ({"type": "RRDBNet", "in_channels": 3, "out_channels": 3, "mid_channels": 8, "num_blocks": 2}, ""),
    "edsr": (
        {
            "type": "EDSRNet",
            "in_channels": 3,
            "out_channels": 3,
            "mid_channels": 8,
            "num_blocks": 2,
            "rgb_std": [0.5, 0.25, 1.0],
        },
        "upsample",
    ),
    "rcan": ({"type": "RCAN", "num_feat": 16, "num_group": 1, "num_block": 2}, "upsample"),
}
MMAGIC["rrdb_x2"] = ({**MMAGIC["rrdb"][0], "upscale_factor": 2}, "")


def use(host: str) -> None:
    """Let the names of configs be those of a host."""
    if host == "basicsr":
        import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    else:
        import contrastive_sr.hosts.mmagic as mmagic

        mmagic.registry.use_names()


def small(trunk: dict[str, Any] | None = None, seed: int = 0, **arguments: Any) -> CriteriaBranches:
    """A network on BasicSR's RRDBNet."""
    use("basicsr")
    torch.manual_seed(seed)
    return CriteriaBranches(trunk or RRDB, **arguments)


def stock(host: str, config: dict[str, Any]) -> nn.Module:
    use(host)
    config = dict(config)
    net: nn.Module = NETWORKS.of_host()[config.pop("type")](**config)
    return net


def features_of(net: nn.Module, upsample: str, lr: Tensor) -> Tensor:
    """What the stock network's upsampling gets."""
    seen: list[Tensor] = []
    if upsample:
        net.get_submodule(upsample).register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].clone()))
        net(lr)
        return seen[0]
    # RRDBNet enlarges by hand: what its first convolution there gets is enlarged to twice the size by then.
    net.get_submodule("conv_up1").register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0][:, :, ::2, ::2]))
    net(lr)
    return seen[0]


CASES = [
    *(
        pytest.param("basicsr", *case, id=f"basicsr_{name}", marks=pytest.mark.basicsr)
        for name, case in BASICSR.items()
    ),
    *(pytest.param("mmagic", *case, id=f"mmagic_{name}", marks=pytest.mark.mmagic) for name, case in MMAGIC.items()),
]


@pytest.mark.parametrize(("host", "config", "upsample"), CASES)
def test_features_are_the_stock_network_s(host: str, config: dict[str, Any], upsample: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = stock(host, config)
    lr = torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        want = features_of(net, upsample, lr)
        torch.testing.assert_close(Trunk(copy.deepcopy(net))(lr), want)
        # by name, with the weights of a file
        torch.save({"params": net.state_dict()}, tmp_path / "stock.pth")
        use(host)
        scale = 1 if want.shape[-1] == 3 else 2
        branches = CriteriaBranches(config, scale=scale, trunk_weights=tmp_path / "stock.pth")
        torch.testing.assert_close(branches.trunk(lr), want)
        assert branches(lr).shape == (2, 3, 8 * scale, 12 * scale)
    branches(lr).mean().backward()
    # parameters that are not used would stop DistributedDataParallel
    assert all(p.grad is not None for p in branches.parameters())


@pytest.mark.basicsr
def test_images_are_brought_back_into_their_range() -> None:
    """Of zero features EDSR makes its mean colour, whatever its range of values."""
    net = small(BASICSR["edsr"][0])
    for branch in (net.align, net.uniformity):
        nn.init.zeros_(branch.upsample[-1].weight)
        nn.init.constant_(branch.upsample[-1].bias, 25.5)
    want = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None].expand(3, 16, 16) + 0.1
    torch.testing.assert_close(net(torch.rand(1, 3, 4, 4))[0].detach(), want)


@pytest.mark.basicsr
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_sr_is_both_images_by_their_masks(scale: int) -> None:
    net = small(scale=scale).double()
    lr = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    assert torch.equal(net.masks(lr), torch.full((2, 2, 5 * scale, 7 * scale), 0.5, dtype=torch.float64))
    nn.init.normal_(net.masks.last.weight)
    features = net.trunk(lr)
    scores = net.masks.last(net.masks.blocks(net.masks.first(lr)))
    scores = F.interpolate(scores, size=(5 * scale, 7 * scale), mode="bilinear", align_corners=False)
    share = 1 / (1 + (scores[:, 1:] - scores[:, :1]).exp())
    masks = net.masks(lr)
    torch.testing.assert_close(masks[:, :1], share)
    torch.testing.assert_close(masks.sum(1), torch.ones_like(masks[:, 0]))
    sr = net(lr)
    assert sr.shape == (2, 3, 5 * scale, 7 * scale)
    torch.testing.assert_close(sr, net.align(features) * share + net.uniformity(features) * (1 - share))


@pytest.mark.basicsr
def test_each_branch_has_three_residual_blocks_of_its_own() -> None:
    net = small()
    assert [len(branch.blocks) for branch in (net.align, net.uniformity, net.masks)] == [3, 3, 3]
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == len(set(names)) == len(net.state_dict())  # and no buffer
    assert {name.split(".")[0] for name in names} == {"trunk", "align", "uniformity", "masks"}
    assert {name.split(".")[1] for name in names if name.startswith("trunk")} == {"conv_first", "body", "conv_body"}


@pytest.mark.basicsr
def test_the_paper_s_size() -> None:
    use("basicsr")
    with torch.device("meta"):
        net = CriteriaBranches({**RRDB, "num_feat": 64, "num_block": 19, "num_grow_ch": 32})
    assert sum(p.numel() for p in net.parameters()) == 14_969_736  # within 1.2 % of Table VII's 14.8 M


@pytest.mark.basicsr
def test_weights_go_from_one_to_another() -> None:
    lr = torch.rand(1, 3, 6, 6)
    net, other = small(), small(seed=1)
    assert not torch.equal(net(lr), other(lr))
    other.load_state_dict(copy.deepcopy(net.state_dict()), strict=True)
    assert torch.equal(net(lr), other(lr))


@pytest.mark.basicsr
def test_a_built_trunk_is_taken_in_plain_pytorch() -> None:
    trunk = stock("basicsr", RRDB)
    net = CriteriaBranches(trunk)
    assert net.trunk.conv_first is trunk.conv_first


@pytest.mark.mmagic
@pytest.mark.parametrize("kind", ["stock", "methods", "average", "hook"])
def test_trunk_weights_of_an_mmagic_checkpoint(kind: str, tmp_path: Path) -> None:
    """Of MMagic's own models; with our hook's section, of the methods; with live and averaged weights; with EMAHook."""
    net = stock("mmagic", MMAGIC["rrdb"][0])
    prefix = "generator_ema." if kind == "average" else "generator."
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    content = {"meta": {}, "state_dict": {**state, "step_counter": torch.tensor(3)}}
    if kind == "methods":
        content["contrastive_sr"] = {"methods.cria.step.count": torch.tensor(3)}
    if kind == "average":
        live = {f"generator.{name}": torch.zeros_like(value) for name, value in net.state_dict().items()}
        content["state_dict"].update(live)
    if kind == "hook":
        live = {f"module.{name}": torch.zeros_like(value) for name, value in state.items()}
        content["ema_state_dict"] = {**live, "steps": torch.tensor(3)}
    torch.save(content, tmp_path / "iter_3.pth")
    branches = CriteriaBranches(MMAGIC["rrdb"][0], trunk_weights=tmp_path / "iter_3.pth")
    assert torch.equal(branches.trunk.conv_body.weight, net.conv_body.weight)


@pytest.mark.basicsr
@pytest.mark.parametrize(
    ("trunk", "arguments", "message"),
    [
        (SWIN, {}, "split behind its body, .*, got SwinIR. Take one such as RRDBNet, EDSR or RCAN"),
        (nn.Conv2d(3, 3, 3), {}, "got Conv2d"),
        (CRLSR(channels=4, encoder_blocks=2, decoder_blocks=1), {}, "got CRLSR"),
        ({"type": "RRDBnet"}, {}, "Did you mean 'RRDBNet'"),
        ({"num_feat": 8}, {}, "expected a mapping with `type`"),
        ({**RRDB, "num_in_ch": 1}, {}, "expected a network for RGB images, got a RRDBNet .* has 1 channels"),
        (RRDB, {"scale": 8}, r"CriteriaBranches\(scale\): expected a whole number from 1 to 4, got 8"),
        ({**RRDB, "scale": 2}, {}, "expected at most 2 with this RRDBNet, .* got 4. Give both the same"),
        (RRDB, {"trunk_weights": "nowhere.pth"}, "expected an existing file, got nowhere.pth"),
    ],
)
def test_what_cannot_be_built(trunk: Any, arguments: dict[str, Any], message: str) -> None:
    use("basicsr")
    with pytest.raises(ConfigError, match=message):
        CriteriaBranches(trunk, **arguments)


def test_a_name_without_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NETWORKS, "_host", "")
    with pytest.raises(ConfigError, match="RRDBNet is no network of ours, and no training framework is in use"):
        CriteriaBranches(RRDB)
    with pytest.raises(ConfigError, match=r"CriteriaBranches\(trunk\): does not know the type \['RRDBNet'\]"):
        CriteriaBranches({**RRDB, "type": ["RRDBNet"]})


@pytest.mark.basicsr
def test_weights_of_another_trunk(tmp_path: Path) -> None:
    torch.save({"params": stock("basicsr", {**RRDB, "num_feat": 4}).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"expected conv_first.weight of shape \(8, 3, 3, 3\), got \(4, 3, 3, 3\)"):
        CriteriaBranches(RRDB, trunk_weights=tmp_path / "other.pth")


@pytest.mark.basicsr
def test_images_that_cannot_be_taken() -> None:
    with pytest.raises(DataError, match=r"CriteriaBranches\(lr\): expected a non-empty tensor"):
        small()(torch.rand(3, 8, 8))
    with pytest.raises(DataError, match=r"multiples of 2 with this RRDBNet, got \(5, 8\)\. Pad the images"):
        small({**RRDB, "scale": 2}, scale=2)(torch.rand(1, 3, 5, 8))


@pytest.mark.basicsr
def test_runs_under_autocast() -> None:
    net, lr = small(), torch.rand(1, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = net(lr)
    torch.testing.assert_close(sr.float(), net(lr), rtol=0.1, atol=0.1)
