"""Cria-CL in BasicSR's own trainer, on pairs, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run_python
from PIL import Image
from same import assert_same

from contrastive_sr.criteria import CriteriaByName
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import psnr_rgb, ssim_rgb
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.networks import CriteriaBranches
from tests.hosts.basicsr_options import PROJECT, load, read_options, write_options

pytestmark = pytest.mark.basicsr


@pytest.mark.parametrize("name", ["cria_rrdb_x4", "demo_cria_rrdb_x4"])
def test_validated_on_rgb_as_evaluate_measures_it(name: str) -> None:
    sr, hr = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
    measured = read_options(name)["val"]["metrics"]
    calculate = import_basicsr("basicsr.metrics").calculate_metric
    bgr = {"img": sr[..., ::-1], "img2": hr[..., ::-1]}
    assert calculate(bgr, measured["psnr"]) == pytest.approx(psnr_rgb(sr, hr))
    assert calculate(bgr, measured["ssim"]) == pytest.approx(ssim_rgb(sr, hr))


NAME = "demo_cria_rrdb_x4"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
SHORT: dict[str, Any] = {
    "train:total_iter": 2,
    "val:val_freq": 2,
    "logger:print_freq": 1,
    "logger:save_checkpoint_freq": 2,
    "logger:use_tb_logger": False,
    "network_g": {"type": "CriteriaBranches", "scale": 4, "trunk": RRDB},
}


def methods(**changes: Any) -> list[dict[str, Any]]:
    (method,) = read_options(NAME)["methods"]
    return [{**method, **changes}]


@pytest.fixture(scope="module")
def one(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one pair, whose crops are the whole of it: every batch of a training is the same."""
    folder = tmp_path_factory.mktemp("one")
    for part in ("train/HR", "train/LRx4", "val/HR", "val/LRx4"):
        (folder / part).mkdir(parents=True)
        source, side = min((demo_data / part).iterdir()), 16 if part.endswith("LRx4") else 64
        with Image.open(source) as image:
            image.crop((0, 0, side, side)).save(folder / part / source.name)
    return folder


WHOLE = {"datasets:train:gt_size": 64, "datasets:train:use_hflip": False, "datasets:train:use_rot": False}


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: Path) -> Callable[..., Path]:
    """Train in this process through our runner, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(*arguments: str, **options: Any) -> Path:
        path = write_options(tmp_path, NAME, one, {**SHORT, **options.pop("options", {})})
        runner.train(path, list(arguments))
        return tmp_path / "experiments" / NAME

    return train


def test_stock_trainer_trains_the_demo(one: Path, tmp_path: Path) -> None:
    """A checkout of BasicSR, and its own ``basicsr/train.py``; TensorBoard, validation, EMA."""
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, tmp_path / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    options = write_options(tmp_path, NAME, one, {**SHORT, "logger:use_tb_logger": True})
    done = subprocess.run(
        [sys.executable, "basicsr/train.py", "-opt", str(options)],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-4000:]
    for key in (
        "l_pix",
        "l_cria_align",
        "l_cria_uniformity",
        "l_cria_adversarial",
        "cria_align_ssim_push",
        "cria_uniformity_mask",
    ):
        assert printed.count(f" {key}: ") == 2, key
    assert "Best: " in printed
    assert list((tmp_path / "tb_logger").rglob("events.out.tfevents.*"))

    content = load(tmp_path / f"experiments/{NAME}/models/net_g_latest.pth")
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    net = CriteriaBranches(RRDB)
    net.load_state_dict(content["params_ema"], strict=True)
    assert net.eval()(torch.rand(1, 3, 12, 12)).shape == (1, 3, 48, 48)
    assert any(not torch.equal(content["params"][name], value) for name, value in content["params_ema"].items())
    assert (tmp_path / f"experiments/{NAME}/models/cria_adversarial_discriminator_2.pth").is_file()


def test_four_steps_equal_two_and_two(train_here: Callable[..., Path]) -> None:
    # BasicSR draws other crops after it has resumed.
    same = {**WHOLE, "train:total_iter": 4, "methods": methods(normalize=True), "val": None}
    folder = train_here(options=same)
    whole = folder.rename(folder.with_name("whole"))
    train_here(options={**same, "train:total_iter": 2})
    halves = train_here("--auto_resume", options=same)
    assert_same(load(whole / "models/net_g_4.pth"), load(halves / "models/net_g_4.pth"), "net_g")
    state, other = load(whole / "training_states/4.state"), load(halves / "training_states/4.state")
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)
    assert state["methods"]["cria.losses.align.scales.means"].min() > 0
    assert len(state["optimizers"]) == 2


def test_two_processes_hold_one_state(one: Path, tmp_path: Path) -> None:
    """Branches, masks and the trunk all take part, or DistributedDataParallel would stop."""
    changes = {**SHORT, "datasets:train:gt_size": 64, "methods": methods(normalize=True), "val": None}
    options = write_options(tmp_path, NAME, one, changes)
    script = Path(__file__).with_name("basicsr_rank_script.py")
    done = run_python([script, options, "--launcher", "pytorch"], tmp_path, ENVIRONMENT, world=2)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (first, images), (second, others) = (load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert not torch.equal(images, others)
    # BatchNorm's statistics are those of each rank's own images until the next SR step averages them
    same = {name for name in first if "running" not in name}
    assert_same(*({name: state[name] for name in same} for state in (first, second)))


@pytest.mark.parametrize(
    ("network", "method"),
    [
        (RRDB, {"variant": 5}),
        (RRDB, {"variant": 1}),
        (None, {"variant": 6}),
        (
            None,
            {"positives": [{"type": "CharbonnierLoss", "reduction": "none", "eps": 1e-3}], "negatives": ["MSELoss"]},
        ),
    ],
    ids=["stock", "plain", "projection", "host"],
)
def test_other_rows_and_losses_of_the_host(
    network: dict[str, Any] | None, method: dict[str, Any], train_here: Callable[..., Path]
) -> None:
    options = {"methods": methods(**method), "train:total_iter": 1, "logger:save_checkpoint_freq": 1, "val": None}
    folder = train_here(options={**options, **({} if network is None else {"network_g": network})})
    assert load(folder / "training_states/1.state")["methods"]["step.count"] == 1


def test_an_adversarial_criterion_goes_with_the_host_s_gan(train_here: Callable[..., Path]) -> None:
    """Eq. 11's adversarial loss may be BasicSR's relativistic one; then there are no ``sr_criteria``."""
    gan = read_options("demo_pcl_gan_rrdb")
    options = {
        "model_type": "ContrastiveESRGANModel",
        "network_d": {**gan["network_d"], "num_feat": 4},
        **{f"train:{key}": gan["train"][key] for key in ("optim_d", "gan_opt")},
        "methods": methods(sr_criteria=[]),
        "val": None,
    }
    assert (train_here(options=options) / "models/net_d_2.pth").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": methods(anchor="SSIM", positives=["SSIM"])}, "'ssim', which is the anchor too"),
        (
            {"methods": methods(positives=["CharbonierLoss"])},
            r"Did you mean .CharbonnierLoss.\?.*registered ones of BasicSR",
        ),
        ({"methods": methods(positives=["GANLoss"])}, "GANLoss needs the key 'gan_type'"),
        ({"methods": methods(vgg_weights="nowhere.pth")}, "expected an existing file, got nowhere.pth"),
        ({"datasets:train:gt_size": 8}, "SSIM: expected HR patches of at least 11 x 11 pixels, got 8 x 8"),
        (
            {"methods": methods(positives=[{"type": "L1Loss", "reduction": "median"}])},
            r"positives\[0\]: L1Loss cannot be built with these arguments \(ValueError: Unsupported reduction mode",
        ),
    ],
)
def test_methods_are_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, train_here: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train_here(options=changes)
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network_g": RRDB},
            "variant 7 needs an SR network with the modules align, uniformity, masks; RRDBNet has no",
        ),
        (
            {"methods": methods(variant=2)},
            "variant 2 has no branches and masks, but the SR network, CriteriaBranches, has",
        ),
        (
            {"network_g": {"type": "CriteriaBranches", "trunk": {"type": "MSRResNet"}}},
            r"got MSRResNet. Take one such as RRDBNet, EDSR or RCAN",
        ),
    ],
)
def test_networks_are_refused_before_training(
    changes: dict[str, Any], message: str, train_here: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_here(options=changes)


def test_losses_of_the_host_are_known_by_name() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    criteria = CriteriaByName()
    name = criteria.add({"type": "L1Loss", "loss_weight": 0.5}, "here")
    sr, hr = torch.rand(2, 2, 3, 8, 8).unbind()
    assert name == "l1"
    assert criteria[name](sr, hr).item() == pytest.approx(0.5 * (sr - hr).abs().mean().item())


def test_a_loss_that_cannot_download_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torch.hub.urlopen", fail)
    with pytest.raises(ConfigError, match=r"here: PerceptualLoss cannot .*no route.*VGG takes them from a local file"):
        CriteriaByName().add({"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1.0}}, "here")


def test_full_and_demo_options_say_the_same() -> None:
    """But for what a short training without VGG needs."""
    full, demo = (read_options(f) for f in ("cria_rrdb_x4", NAME))
    (method,), (small,) = full["methods"], demo["methods"]
    assert {key for key in method if method[key] != small.get(key)} == {
        "vgg_weights",
        "align_weight",
        "uniformity_weight",
    }
    for options in (full, demo):
        assert options["network_g"]["type"] == "CriteriaBranches"
        assert options["model_type"] == "ContrastiveSRModel"
    # the paper's setting
    assert (method["variant"], method["anchor"], method["exponent"], method["t"]) == (7, "Pixel", 2, 2)
    assert method["align_weight"] == method["uniformity_weight"] == full["train"]["pixel_opt"]["loss_weight"] == 0.01
    assert full["train"]["scheduler"]["milestones"] == [200_000, 400_000, 600_000, 800_000]
    assert (full["train"]["total_iter"], full["datasets"]["train"]["batch_size_per_gpu"]) == (1_000_000, 16)
    assert full["train"]["ema_decay"] == 0
    assert full["train"]["optim_g"]["lr"] == 1e-4
