"""What authors released, in the command line and in trainings of both hosts; what has no network here is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import pytest
import released
import torch
from same import assert_same

from contrastive_sr.embeddings.tensor_file import read_file
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.trained import trained_network
from contrastive_sr.networks import DASR
from tests.hosts.basicsr_options import load, write_options

SMALL = {"channels": 16, "groups": 1, "blocks": 1}
SMALL_TEXT = "{type: DASR, channels: 16, groups: 1, blocks: 1}"


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.fixture
def model_600(tmp_path: Path) -> Path:
    return save(released.released_dasr(**SMALL).state_dict(), tmp_path / "model_600.pt")


def under_our_names(file: Path) -> dict[str, torch.Tensor]:
    net = DASR(**SMALL)
    net.load_state_dict(torch.load(file))
    return dict(net.state_dict())


# ------------------------------------------------------------------------------------------------- by the file alone


def test_dasr_is_found_by_its_weights(tmp_path: Path) -> None:
    theirs = released.released_dasr(3)
    found = trained_network(save(theirs.state_dict(), tmp_path / "model_600.pt"), None, 3)
    assert found.source == "DASR"
    lr = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(found.call(lr), theirs(lr * 255) / 255, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"expected a checkpoint for x2, got one for x3\. Take scale 3"):
        trained_network(tmp_path / "model_600.pt", None, 2)


def test_dasr_of_a_size_that_is_given(model_600: Path) -> None:
    assert_same(dict(trained_network(model_600, SMALL_TEXT, 4).module.state_dict()), under_our_names(model_600))
    with pytest.raises(ConfigError, match=r"model_600.pt does not fit the network DASR: it has .*, where DASR has"):
        trained_network(model_600, "DASR", 4)


@pytest.mark.basicsr
def test_realsr_ccl_is_found_by_its_weights(tmp_path: Path) -> None:
    theirs = released.ReleasedCria()
    found = trained_network(save(theirs.state_dict(), tmp_path / "RealSR-CCL.pth"), None, 4)
    lr = torch.rand(1, 3, 6, 5)
    with torch.inference_mode():
        torch.testing.assert_close(found.call(lr), theirs(lr), rtol=0, atol=1e-6)
    text = "{type: CriteriaBranches, trunk: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3}}"
    with pytest.raises(ConfigError, match=r"network of the paper's text, got that of RealSR-CCL"):
        trained_network(tmp_path / "RealSR-CCL.pth", text, 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_original_rcan_is_found_by_spandrel(scale: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = released.ReleasedRCAN(scale)
    found = trained_network(save(theirs.state_dict(), tmp_path / "RCAN.pt"), None, scale)
    assert found.source == "RCAN, found by spandrel"
    lr = torch.rand(1, 3, 16, 20)
    before = lr.clone()
    with torch.inference_mode():
        want = theirs(lr * 255) / 255
        torch.testing.assert_close(found.call(lr), want.clamp(0, 1), rtol=0, atol=1e-5)
    assert torch.equal(lr, before)


@pytest.mark.basicsr
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (released.edsr_state, r"It is of EDSR-PyTorch\. Take .* \(EDSR_\*_official-\*\.pth\), with --network"),
        (released.han_state, "It is of HAN's own code; neither spandrel nor BasicSR nor MMagic has that network"),
        (released.nlsn_state, "It is of NLSN's own code; neither"),
    ],
)
def test_what_has_no_network_here(state: Callable[[], dict[str, torch.Tensor]], message: str, tmp_path: Path) -> None:
    file = save(state(), tmp_path / "file.pt")
    with pytest.raises(ConfigError, match=f"spandrel does not know a network with these weights. {message}"):
        trained_network(file, None, 4)
    with pytest.raises(ConfigError, match=f"does not fit the network EDSR: .* {message}"):
        trained_network(file, "EDSR", 4)


# ------------------------------------------------------------------------------------------------------- in trainings


def trained_with_basicsr(folder: Path, data: Path, file: Path, *arguments: str, steps: int = 1, **path: Any) -> Path:
    """Steps that are too small to change a weight; the run's folder."""
    changes = {
        "network_g": {"type": "DASR", "scale": 4, **SMALL},
        "path": {"pretrain_network_g": str(file), "strict_load_g": True, "resume_state": None, **path},
        "train:total_iter": steps,
        "train:optim_g": {"type": "Adam", "lr": 1e-30},
        "logger:save_checkpoint_freq": 1,
        "logger:use_tb_logger": False,
    }
    runner.train(write_options(folder, "demo_dasr_x4", data, changes), list(arguments))
    return folder / "experiments" / "demo_dasr_x4"


def unmoved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without BatchNorm's statistics, which a step of any rate moves."""
    return {name: x for name, x in state.items() if "running" not in name and "num_batches" not in name}


@pytest.mark.basicsr
def test_basicsr_trains_on(model_600: Path, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = trained_with_basicsr(tmp_path, demo_data, model_600)
    content = load(folder / "models/net_g_latest.pth")
    want = unmoved(under_our_names(model_600))
    assert_same(unmoved(content["params"]), want)
    torch.testing.assert_close(unmoved(content["params_ema"]), want)  # the step's average rounds


@pytest.mark.basicsr
def test_basicsr_goes_on_whatever_the_first_file_s_key(
    model_600: Path, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a plain state dict it is `~`, and of this one `state_dict`; a training saves `params` and `params_ema`."""
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.pth"
    torch.save({"state_dict": under_our_names(model_600)}, own)
    for file, key in ((model_600, None), (own, "state_dict")):
        folder = trained_with_basicsr(tmp_path, demo_data, file, param_key_g=key)
        first = load(folder / "models/net_g_1.pth")
        trained_with_basicsr(tmp_path, demo_data, file, "--auto_resume", steps=2, param_key_g=key)
        second = load(folder / "models/net_g_2.pth")
        for averaged in ("params", "params_ema"):
            torch.testing.assert_close(unmoved(second[averaged]), unmoved(first[averaged]))


@pytest.mark.basicsr
def test_a_missing_key_is_named_before_a_training(
    model_600: Path, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"params": DASR(**SMALL).state_dict(), "more": {"x": torch.zeros(1)}}, tmp_path / "net_g.pth")
    message = r"path: param_key_g: expected what .*net_g\.pth holds, 'params', 'more', got None"
    with pytest.raises(ConfigError, match=message):
        trained_with_basicsr(tmp_path, demo_data, tmp_path / "net_g.pth", param_key_g=None)
    stock = {"model_type": "SRModel", "methods": None, "path:pretrain_network_g": str(model_600)}
    pairs = write_options(tmp_path, "demo_pcl_edsr", demo_data, stock)
    with pytest.raises(ConfigError, match=r"holds, a plain state dict, got 'params'\. Of a plain state dict it is `~`"):
        runner.train(pairs, [])
    assert not (tmp_path / "experiments").exists()


@pytest.mark.mmagic
@pytest.mark.parametrize("averaged", [False, True])
def test_mmagic_trains_on(averaged: bool, model_600: Path, tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    more = f"""
model = dict(generator=dict(channels=16, groups=1, blocks=1), is_use_ema={averaged})
optim_wrapper = dict(generator=dict(optimizer=dict(lr=0.0)))
load_from = {str(model_600)!r}
"""
    config = helpers.write_config(
        tmp_path / "small.py", "demo_dasr_x4", steps=1, save=1, more=more, template=helpers.SMALL_BLIND
    )
    helpers.train(config)
    state = read_file(tmp_path / "work_dirs/small/iter_1.pth")["state_dict"]
    for part in ("generator", "generator_ema")[: 1 + averaged]:
        got = {name.removeprefix(f"{part}."): x for name, x in state.items() if name.startswith(f"{part}.")}
        assert_same(unmoved(got), unmoved(under_our_names(model_600)))
