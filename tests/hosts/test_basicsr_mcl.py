"""MCL in BasicSR's own trainer: pasts of the network are saved and resumed bit for bit, and begin as loaded weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from same import assert_same

from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from tests.hosts.basicsr_options import load, write_options

pytestmark = pytest.mark.basicsr

NAME = "demo_pcl_edsr"
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 4}
METHOD = {
    "type": "MCL",
    "loss_share": 0.2,
    "embedding": {"type": "HaarDiscriminator", "out_indices": [0]},
    "negatives": [{"type": "PastOutput", "decay": [0.9, 0.1], "interval": [1, 3]}],
}


def one_image(demo_data: Path, folder: Path) -> Path:
    """A part of one pair of the demo's data: with all of it as crop, all batches are the same."""
    for part in ("train", "val"):
        for kind, side in (("HR", 48), ("LRx4", 12)):
            (folder / part / kind).mkdir(parents=True)
            image = min((demo_data / part / kind).iterdir())
            Image.open(image).crop((0, 0, side, side)).save(folder / part / kind / image.name)
    return folder


def test_four_steps_equal_two_and_two(demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    torch.manual_seed(3)
    start = import_basicsr("basicsr.archs").build_network(dict(EDSR)).state_dict()
    torch.save({"params": start}, tmp_path / "start.pth")
    options = {
        "network_g": EDSR,
        "methods": [METHOD],
        "path:pretrain_network_g": str(tmp_path / "start.pth"),
        "train:total_iter": 4,
        "datasets:train:gt_size": 48,
        "datasets:train:batch_size_per_gpu": 1,
        "datasets:train:use_hflip": False,
        "datasets:train:use_rot": False,
        "val:val_freq": 4,
        "logger:print_freq": 1,
        "logger:save_checkpoint_freq": 2,
        "logger:use_tb_logger": False,
    }

    def train(total: int, *arguments: str) -> Path:
        path = write_options(tmp_path, NAME, data, {**options, "train:total_iter": total})
        runner.train(path, list(arguments))
        return tmp_path / "experiments" / NAME

    data = one_image(demo_data, tmp_path / "data")
    whole = train(4).rename(tmp_path / "whole")
    train(2)
    halves = train(4, "--auto_resume")
    assert_same(load(whole / "models/net_g_4.pth"), load(halves / "models/net_g_4.pth"), "net_g")
    state, other = load(whole / "training_states/4.state"), load(halves / "training_states/4.state")
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)
    pasts = [
        {name.removeprefix(prefix): value for name, value in state["methods"].items() if name.startswith(prefix)}
        for prefix in (f"mcl.samples.0.pasts.{index}." for index in range(2))
    ]
    now = load(whole / "models/net_g_4.pth")["params"]
    first = load(whole / "training_states/2.state")["methods"]
    for past in pasts:
        assert set(past) == set(start) == set(now)
    name = "conv_last.weight"
    assert torch.equal(first[f"mcl.samples.0.pasts.1.{name}"], start[name])  # as loaded, until its third step
    assert not torch.equal(pasts[1][name], start[name])
    assert not torch.equal(pasts[0][name], now[name])
