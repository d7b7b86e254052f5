"""MPF-Net in BasicSR's own trainer: both phases, a teacher from a checkpoint, resuming, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from same import assert_same

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.networks import MPFNet
from tests.hosts.basicsr_options import PROJECT, load, read_options, write_options

pytestmark = pytest.mark.basicsr

NAME = "demo_mpf_net_x4"
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 4}
SHORT: dict[str, Any] = {
    "network_g": {"type": "MPFNet", "scale": 4, "channels": 4, "blocks": 1},
    "train:total_iter": 4,
    "val:val_freq": 4,
    "logger:print_freq": 1,
    "logger:save_checkpoint_freq": 2,
    "logger:use_tb_logger": False,
}


def methods(**changes: Any) -> list[dict[str, Any]]:
    """The ``methods:`` of the demo, with the second phase from the third step on, and changes."""
    (method,) = read_options(NAME)["methods"]
    return [{**method, "embedding": {"type": "SNResNet18", "out_indices": [0]}, "warmup_steps": 2, **changes}]


@pytest.fixture(scope="module")
def data(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of one pair of the demo's data: with all of it as crop, all batches are the same."""
    folder = tmp_path_factory.mktemp("data")
    for part in ("train", "val"):
        for kind in ("HR", "LRx4"):
            (folder / part / kind).mkdir(parents=True)
            image = min((demo_data / part / kind).iterdir())
            side = 48 if kind == "HR" else 12
            Image.open(image).crop((0, 0, side, side)).save(folder / part / kind / image.name)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A stock EDSR and the file of its weights, as BasicSR saves them."""
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    torch.manual_seed(3)
    network = import_basicsr("basicsr.archs").build_network(dict(EDSR))
    path = tmp_path_factory.mktemp("teacher") / "net_g_latest.pth"
    torch.save({"params": network.state_dict()}, path)
    return {"network": EDSR, "weights": str(path)}


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Train in this process through our runner, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(data: Path, *arguments: str, **options: Any) -> Path:
        path = write_options(tmp_path, NAME, data, {**SHORT, **options.pop("options", {})})
        runner.train(path, list(arguments))
        return tmp_path / "experiments" / NAME

    return train


def test_four_steps_equal_two_and_two_across_the_phases(
    train_here: Callable[..., Path], data: Path, teacher: dict[str, Any]
) -> None:
    """With a stock teacher, which is in no file."""
    whole_image = {"datasets:train:use_hflip": False, "datasets:train:use_rot": False, "datasets:train:gt_size": 48}
    same = {**whole_image, "methods": methods(teacher=teacher, warmup_steps=1), "datasets:train:batch_size_per_gpu": 1}
    folder = train_here(data, options=same)
    whole = folder.rename(folder.with_name("whole"))
    train_here(data, options={**same, "train:total_iter": 2})
    halves = train_here(data, "--auto_resume", options=same)
    network = load(whole / "models/net_g_4.pth")
    assert_same(network, load(halves / "models/net_g_4.pth"), "net_g")
    MPFNet(channels=4, blocks=1).load_state_dict(network["params_ema"], strict=True)
    state, other = load(whole / "training_states/4.state"), load(halves / "training_states/4.state")
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)
    assert state["methods"]["step.count"] == 4
    assert any(name.endswith("_u") for name in state["methods"])
    assert not [name for name in state["methods"] if "body" in name or "upconv" in name]
    embedding = load(whole / "models/mpf_embedding_4.pth")["params"]
    assert len(embedding) == 88


def test_the_stock_trainer_runs_the_demo_s_phases(data: Path, tmp_path: Path) -> None:
    """A checkout of BasicSR, and its own ``basicsr/train.py``."""
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, tmp_path / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    options = write_options(tmp_path, NAME, data, {**SHORT, "methods": methods(embedding_training="contrad")})
    python_path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, "basicsr/train.py", "-opt", str(options)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-4000:]
    assert "there is no teacher, so that there are 4 positives" in printed
    assert "# psnr:" in printed
    for key in ("l_pix", "l_mpf_contrastive", "mpf_contrastive_share", "mpf_positive_similarity"):
        assert printed.count(f" {key}: ") == 4, key
    for key in ("l_mpf_simclr", "l_mpf_fake_contrast"):
        assert printed.count(f" {key}: ") == 2, key
    weights = [f"mpf_contrastive_weight: {value}" in printed for value in ("0.0000e+00", "1.0000e+00")]
    assert weights == [True, True]


@pytest.mark.parametrize("variant", [1, 4])
def test_a_stock_network_under_rows_of_table_vii(variant: int, train_here: Callable[..., Path], data: Path) -> None:
    options = {"network_g": EDSR, "methods": methods(variant=variant, warmup_steps=0), "train:total_iter": 1}
    folder = train_here(data, options={**options, "logger:save_checkpoint_freq": 1})
    state = load(folder / "training_states/1.state")
    assert len(state["optimizers"]) == (1 if variant == 1 else 2)
    keys = load(folder / "models/net_g_1.pth")["params"]
    assert set(keys) == set(import_basicsr("basicsr.archs").build_network(dict(EDSR)).state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"network": {**EDSR, "upscale": 2}, "weights": "x2"}}, r"from the teacher, EDSR, got .* scale\?"),
        ({"teacher": {"network": EDSR}}, "expected the file of a trained network, got none"),
        ({"teacher": {"network": EDSR, "weights": "nowhere.pth"}}, "expected an existing file, got nowhere.pth"),
        (
            {"teacher": {"network": {**EDSR, "num_feat": 8}, "weights": "x4"}},
            "Give `network` the settings it was trained",
        ),
        ({"teacher": {"network": {**EDSR, "type": "EDSRR"}, "weights": "x4"}}, "Did you mean 'EDSR'"),
        ({"variant": 0}, "variant: expected one of 1, 2, 3, 4, 5, 6, 7, got 0"),
        ({"embedding": {"type": "SNResNet"}}, "Did you mean 'SNResNet18'"),
        ({"patch": 12}, "at least 16 x 16 pixels, got 12 x 12"),
        ({"variant": 4, "images": 1}, "expected a batch of 2 or more images for each process, got 1"),
    ],
)
def test_what_is_refused_before_anything_is_written(
    changes: dict[str, Any],
    message: str,
    train_here: Callable[..., Path],
    data: Path,
    teacher: dict[str, Any],
    tmp_path: Path,
) -> None:
    patch, images = changes.pop("patch", 32), changes.pop("images", 2)
    wanted = changes.get("teacher", {}).get("weights")
    if wanted == "x4":
        changes["teacher"]["weights"] = teacher["weights"]
    if wanted == "x2":
        network = import_basicsr("basicsr.archs").build_network(dict(changes["teacher"]["network"]))
        torch.save({"params": network.state_dict()}, tmp_path / "x2.pth")
        changes["teacher"]["weights"] = str(tmp_path / "x2.pth")
    options = {"datasets:train:gt_size": patch, "datasets:train:batch_size_per_gpu": images}
    with pytest.raises((ConfigError, DataError), match=rf"(?s){message}"):
        train_here(data, options={**options, "methods": methods(**changes)})
    assert not (tmp_path / "experiments").exists()


def test_full_and_demo_options_say_the_same() -> None:
    """But for what a short training on a few images needs."""
    full, demo = (read_options(name) for name in ("mpf_net_x4", NAME))
    (ours,), (small,) = full["methods"], demo["methods"]
    for method in (ours, small):
        for key in ("warmup_steps", "embedding_warmup_steps", "teacher", "embedding"):
            method.pop(key, None)
    assert ours == small
    assert full["model_type"] == demo["model_type"]
    train = full["datasets"]["train"]
    assert (train["gt_size"], train["batch_size_per_gpu"]) == (192, 32)
    assert full["train"]["scheduler"]["periods"] == [500_000] == [full["train"]["total_iter"]]
    assert full["train"]["optim_g"]["lr"] == 1e-4
    assert full["train"]["ema_decay"] == 0
    assert full["datasets"]["val"]["dataroot_lq"] == "datasets/RealSR_x4/test/LR"
    (ours,) = read_options("mpf_net_x4")["methods"]
    assert ours["warmup_steps"] == 200_000
    assert ours["embedding_warmup_steps"] < 200_000
