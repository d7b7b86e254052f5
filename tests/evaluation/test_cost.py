"""Parameters and multiply-adds against counts by hand."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from contrastive_sr.cli.cost import print_costs
from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation import Cost, cost
from contrastive_sr.networks import CRLSR


@pytest.mark.parametrize(
    ("layer", "parameters", "multiply_adds"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 3 * 9 + 8, 20 * 30 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, padding=1, bias=False), 8 * 3 * 9, 20 * 30 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 1, stride=2), 8 * 3 + 8, 10 * 15 * 8 * 3),
        (nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3), 6 * 9 + 6, 20 * 30 * 6 * 9),
        (nn.ConvTranspose2d(3, 8, 2, stride=2, bias=False), 3 * 8 * 4, 20 * 30 * 3 * 8 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(1800, 7)), 1800 * 7 + 7, 1800 * 7),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Upsample(scale_factor=3)), 0, 0),
        (nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(3, 3, 1)), 336 + 12, 216_000),
    ],
)
def test_equals_what_is_counted_by_hand(layer: nn.Module, parameters: int, multiply_adds: int) -> None:
    assert cost(layer, 20, 30) == Cost(parameters, multiply_adds)


def test_the_network_is_left_alone_and_nothing_is_computed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, lr: Tensor) -> Tensor:
            assert lr.device.type == "meta"
            out: Tensor = self.norm(self.conv(lr))
            return out

    net = Net()
    before = copy.deepcopy(net.state_dict())
    assert cost(net, 100_000, 100_000).multiply_adds == 9 * 10**10  # 240 GB of features
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"cost\(height\)"):
        cost(CRLSR(), 0, 10)
    with pytest.raises(ConfigError, match=r"Linear cannot be counted on an LR image of 20 x 30 \(.*Try another size"):
        cost(nn.Linear(7, 7), 20, 30)


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_the_command_counts_networks_of_both_hosts(project: Path) -> None:
    """EDSR, RCAN and ESRGAN have the figures of MPF-Net's Table IV, so that they are counted as there."""
    names = ["plugins/pcl_edsr.yml", "plugins/pcl_rcan.yml", "plugins/pcl_rrdb.yml", "plugins/mpf_net_x4.yml"]
    names += ["plugins/dasr_x4.yml", "plugins/crl_sr_x4.yml", "configs/pcl_edsr.py", "configs/mpf_net_x4.py"]
    console = Console(file=io.StringIO(), width=40)
    print_costs([project / name for name in names], "224", console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    rows = {line.split()[0].split("/")[-1]: line.split()[1:] for line in printed.splitlines() if "/" in line}
    assert "224 x 224" in printed
    assert rows["pcl_edsr.yml"] == ["EDSR", "1.52", "99.51"]  # 1.52, 99.51
    assert rows["pcl_rcan.yml"] == ["RCAN", "15.59", "798.69"]  # 15.59, 799.33
    assert rows["pcl_rrdb.yml"] == ["RRDBNet", "16.70", "899.50"]  # 16.70, 899.50
    assert rows["mpf_net_x4.yml"] == rows["mpf_net_x4.py"] == ["MPFNet", "5.85", "323.03"]
    assert rows["pcl_edsr.py"] == ["EDSRNet", "1.52", "99.51"]
    assert rows["dasr_x4.yml"][0] == "DASR"
    assert rows["crl_sr_x4.yml"][0] == "CRLSR"


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_the_command_s_sizes_and_errors(project: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    print_costs([project / "plugins/demo_mpf_net_x4.yml"], "32x16", console)
    assert "32 x 16" in console.file.getvalue()  # type: ignore[attr-defined]
    (tmp_path / "none.yml").write_text("scale: 4\n")
    (tmp_path / "wrong.yml").write_text("network_g: {type: MPFNet, channel: 4}\n")
    (tmp_path / "empty.yml").write_text("network_g: ~\n")
    stock = "num_in_ch: 3, num_out_ch: 3"
    (tmp_path / "negative.yml").write_text(f"network_g: {{type: RRDBNet, {stock}, num_feat: -1}}\n")
    (tmp_path / "scale.yml").write_text(f"network_g: {{type: EDSR, {stock}, upscale: 5}}\n")
    stock = "type='EDSRNet', in_channels=3, out_channels=3"
    (tmp_path / "negative.py").write_text(f"model = dict(type='X', generator=dict({stock}, mid_channels=-1))\n")
    (tmp_path / "scale.py").write_text(f"model = dict(type='X', generator=dict({stock}, upscale_factor=5))\n")
    (tmp_path / "word.py").write_text("model = dict(type='X', generator='EDSRNet')\n")
    (tmp_path / "none.py").write_text("model = dict(type='X')\n")
    (tmp_path / "wrong.py").write_text("model = dict(type='X', generator=dict(type='contrastive_sr.MPFNett'))\n")
    for file, size, message in (
        ("none.yml", "32x", "--size: expected a number such as 224"),
        ("nowhere.yml", "32", r"Expected the file .*nowhere\.yml"),
        ("none.yml", "32", "expected an option file with `network_g`"),
        ("wrong.yml", "32", r"wrong\.yml: network: MPFNet does not know the key 'channel'"),
        ("none.py", "32", "expected a model with a `generator`"),
        ("wrong.py", "32", r"its generator cannot be built \(KeyError"),
        ("empty.yml", "32", "expected an option file with `network_g`"),
        ("negative.yml", "32", r"its network_g cannot be built \(RuntimeError"),
        ("scale.yml", "32", r"its network_g cannot be built \(ValueError: scale 5"),
        ("negative.py", "32", r"its generator cannot be built \(RuntimeError"),
        ("scale.py", "32", r"its generator cannot be built \(ValueError"),
        ("word.py", "32", "expected a model with a `generator`"),
    ):
        with pytest.raises(ConfigError, match=message):
            print_costs([tmp_path / file], size, console)
