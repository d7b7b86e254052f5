"""BasicSR's own trainer with our plugin: train, validate, stop, resume, and what the files are good for."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_python
from PIL import Image
from same import assert_same

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.export import export
from contrastive_sr.hosts.basicsr.host import import_basicsr
from tests.hosts.basicsr_options import PROJECT, forget_log, load, read_options, write_options

pytestmark = pytest.mark.basicsr

TERMS = ("l_pix", "l_pcl_contrastive", "l_pcl_discriminator")
FIGURES = (
    "pcl_contrastive_raw",
    "pcl_positive_similarity",
    "pcl_negative_similarity",
    "pcl_contrastive_weight",
    "pcl_contrastive_share",
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def run(command: list[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run_own(options: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`contrastive-sr train` in the option file's folder."""
    return run_python(["-m", "contrastive_sr.cli", "train", options, *arguments], options.parent, ENVIRONMENT)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, after a success."""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def scalars(folder: Path) -> dict[str, list[int]]:
    """Steps of every scalar in the TensorBoard events below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def one_pair(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose every batch is the same, so that two trainings see the same batches: one pair, HR of 64 x 64."""
    folder = tmp_path_factory.mktemp("one_pair")
    for kind, side in (("HR", 64), ("LRx4", 16)):
        source = min((demo_data / "train" / kind).iterdir())
        for part in ("train", "val"):
            (folder / part / kind).mkdir(parents=True)
            with Image.open(source) as image:
                image.crop((0, 0, side, side)).save(folder / part / kind / source.name)
    return folder


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Train in this process through our runner, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(name: str, data: Path, *arguments: str, **changes: Any) -> Path:
        short = {"train:total_iter": 2, "val:val_freq": 2, "logger:print_freq": 1, "logger:save_checkpoint_freq": 2}
        options = write_options(tmp_path, name, data, {**short, **changes.pop("options", {})})
        forget_log()
        runner.train(options, list(arguments))
        return tmp_path / "experiments" / read_options(name)["name"]

    return train


@pytest.fixture(scope="module")
def stock(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A checkout of BasicSR, trained by its own ``basicsr/train.py``, then resumed; and what was printed."""
    checkout = tmp_path_factory.mktemp("BasicSR")
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, checkout / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    changes: dict[str, Any] = {
        "train:total_iter": 4,
        "val:val_freq": 2,
        "logger:print_freq": 1,
        "logger:save_checkpoint_freq": 2,
        "val:metrics:jaggedness": {"type": "calculate_jaggedness", "scale": 4, "better": "lower"},
    }
    options = write_options(checkout, "demo_pcl_edsr", demo_data, changes)
    command: list[str | Path] = [sys.executable, "basicsr/train.py", "-opt", options]
    python_path = os.pathsep.join([str(checkout), str(PROJECT)])
    first = succeed(run(command, checkout, PYTHONPATH=python_path))
    write_options(checkout, "demo_pcl_edsr", demo_data, {**changes, "train:total_iter": 6})
    second = succeed(run([*command, "--auto_resume"], checkout, PYTHONPATH=python_path))
    return checkout, first, second


def test_stock_trainer_logs_every_figure(stock: tuple[Path, str, str]) -> None:
    checkout, printed, _ = stock
    for key in (*TERMS, *FIGURES):
        assert printed.count(f" {key}: ") == 4, key
    logged = scalars(checkout / "tb_logger" / "demo_pcl_edsr")
    for tag in (*(f"losses/{key}" for key in TERMS), *FIGURES):
        assert logged[tag][:4] == [1, 2, 3, 4], tag
    for metric in ("psnr", "pattern", "jaggedness"):
        assert logged[f"metrics/held-out/{metric}"][:2] == [2, 4]
    # an untrained network ends in a pixel shuffle of noise
    first = float(printed.partition(" # pattern: ")[2].split()[0])
    assert first > 0.5
    assert f"Validation held-out, pattern: periodic dots, {first:.2f} grey levels above HR's own" in printed
    jagged = float(printed.partition(" # jaggedness: ")[2].split()[0])
    assert jagged > 0.04
    assert f"Validation held-out, jaggedness: jagged edges, {jagged:.3f} above bicubic enlargement's" in printed


def test_stock_trainer_validates_and_keeps_the_best(stock: tuple[Path, str, str]) -> None:
    checkout, printed, _ = stock
    assert "Best: " in printed
    images = sorted((checkout / "experiments/demo_pcl_edsr/visualization").rglob("*_4.png"))
    assert len(images) == 2
    with Image.open(images[0]) as image:
        assert image.size == (256, 256)


def test_stock_trainer_resumes_on_a_cpu(stock: tuple[Path, str, str]) -> None:
    checkout, _, printed = stock
    assert "Resuming training from epoch: 0, iter: 4." in printed
    state = load(checkout / "experiments/demo_pcl_edsr/training_states/6.state")
    assert state["methods"]["step.count"] == 6


def test_checkpoint_is_that_of_the_stock_model(stock: tuple[Path, str, str]) -> None:
    checkout, _, _ = stock
    content = load(checkout / "experiments/demo_pcl_edsr/models/net_g_latest.pth")
    assert set(content) == {"params", "params_ema"}
    network = import_basicsr("basicsr.archs.edsr_arch").EDSR(3, 3, 32, 6, 4)
    network.load_state_dict(content["params"], strict=True)
    network.load_state_dict(content["params_ema"], strict=True)


def test_stock_model_goes_on_from_the_checkpoint(
    stock: tuple[Path, str, str], train_here: Callable[..., Path], demo_data: Path
) -> None:
    checkpoint = stock[0] / "experiments/demo_pcl_edsr/models/net_g_latest.pth"
    options = {"model_type": "SRModel", "methods": None, "path:pretrain_network_g": str(checkpoint)}
    folder = train_here("demo_pcl_edsr", demo_data, options=options)
    assert "methods" not in load(folder / "training_states/2.state")


def test_twenty_steps_equal_ten_and_ten(one_pair: Path, tmp_path: Path) -> None:
    def train(folder: Path, *arguments: str, total: int) -> Path:
        folder.mkdir(exist_ok=True)
        changes = {
            "train:total_iter": total,
            "val:val_freq": 20,
            "logger:save_checkpoint_freq": 10,
            "logger:print_freq": 5,
            "train:scheduler:milestones": [5, 15],
            "methods": [{"type": "PCL", "every": 1, "loss_share": 0.05, "share_interval": 5}],
            "datasets:train:gt_size": 64,
            "datasets:train:use_hflip": False,
            "datasets:train:use_rot": False,
            "network_g:num_feat": 8,
            "network_g:num_block": 2,
        }
        options = write_options(folder, "demo_pcl_edsr", one_pair, changes)
        succeed(run_own(options, *arguments))
        return folder / "experiments/demo_pcl_edsr"

    whole = train(tmp_path / "whole", total=20)
    train(tmp_path / "halves", total=10)
    halves = train(tmp_path / "halves", "--auto_resume", total=20)
    for file in ("models/net_g_20.pth", "models/pcl_embedding_20.pth"):
        assert_same(load(whole / file), load(halves / file), file)
    state, other = load(whole / "training_states/20.state"), load(halves / "training_states/20.state")
    assert len(state["optimizers"]) == 2
    assert len(state["schedulers"]) == 1
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)


@pytest.mark.parametrize(("name", "network"), [("demo_pcl_rcan", "RCAN"), ("demo_pcl_rrdb", "RRDBNet")])
def test_spandrel_loads_the_network(
    name: str, network: str, train_here: Callable[..., Path], demo_data: Path, tmp_path: Path
) -> None:
    from spandrel import ImageModelDescriptor, ModelLoader

    checkpoint = train_here(name, demo_data) / "models/net_g_2.pth"
    assert export(checkpoint, tmp_path / "exported.pth") == network
    model = ModelLoader().load_from_file(tmp_path / "exported.pth")
    assert isinstance(model, ImageModelDescriptor)
    assert model.scale == 4
    options = dict(read_options(name)["network_g"])
    stock = import_basicsr("basicsr.archs").build_network(options)
    stock.load_state_dict(load(checkpoint)["params_ema"], strict=True)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(image.clone()), stock(image).clamp(0, 1), atol=1e-4, rtol=0)


def test_spandrel_loads_an_rrdb_checkpoint_as_it_is(train_here: Callable[..., Path], demo_data: Path) -> None:
    from spandrel import ModelLoader

    content = load(train_here("demo_pcl_rrdb", demo_data) / "models/net_g_2.pth")
    model = ModelLoader().load_from_state_dict(dict(content["params"]))
    assert model.architecture.name == "ESRGAN"


def test_export_refuses_other_networks(stock: tuple[Path, str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected an RCAN or RRDBNet"):
        export(stock[0] / "experiments/demo_pcl_edsr/models/net_g_latest.pth", tmp_path / "out.pth")
    with pytest.raises(ConfigError, match=r"out.safetensors: expected a file to write that ends in .pth or .pt"):
        export(stock[0] / "experiments/demo_pcl_edsr/models/net_g_latest.pth", tmp_path / "out.safetensors")


def test_gan_and_contrast_together(train_here: Callable[..., Path], demo_data: Path, tmp_path: Path) -> None:
    folder = train_here("demo_pcl_gan_rrdb", demo_data)
    logged = scalars(tmp_path / "tb_logger" / "demo_pcl_gan_rrdb")
    for key in ("l_g_pix", "l_g_gan", "l_d_real", "l_d_fake", "l_pcl_contrastive", "l_pcl_discriminator"):
        assert logged[f"losses/{key}"] == [1, 2], key
    assert load(folder / "models/net_d_2.pth")["params"]
    assert len(load(folder / "training_states/2.state")["optimizers"]) == 3


def test_frozen_embedding_of_an_earlier_run(
    stock: tuple[Path, str, str], train_here: Callable[..., Path], demo_data: Path
) -> None:
    weights = stock[0] / "experiments/demo_pcl_edsr/models/pcl_embedding_6.pth"
    method = {
        "type": "PCL",
        "every": 1,
        "loss_weight": 0.0004,
        "train_embedding": False,
        "embedding": {"type": "HaarDiscriminator", "weights": str(weights)},
    }
    folder = train_here("demo_pcl_edsr", demo_data, options={"methods": [method]})
    state = load(folder / "training_states/2.state")
    assert len(state["optimizers"]) == 1
    prefix = "pcl.loss.embedding."
    kept = {key.removeprefix(prefix): value for key, value in state["methods"].items() if key.startswith(prefix)}
    assert_same(kept, dict(load(weights)["params"]))


def test_lmdb(train_here: Callable[..., Path], demo_data: Path, tmp_path: Path) -> None:
    make_lmdb = import_basicsr("basicsr.utils.lmdb_util").make_lmdb_from_imgs
    options: dict[str, Any] = {"datasets:train:io_backend": {"type": "lmdb"}, "datasets:train:filename_tmpl": None}
    for kind, key in (("HR", "dataroot_gt"), ("LRx4", "dataroot_lq")):
        files = sorted((demo_data / "train" / kind).glob("*.png"))[:4]
        (tmp_path / kind).mkdir()
        files = [Path(shutil.copy(file, tmp_path / kind / f"my {file.name}")) for file in files]
        database = tmp_path / f"{kind}.lmdb"
        make_lmdb(str(tmp_path / kind), str(database), [f.name for f in files], [f.stem for f in files])
        options[f"datasets:train:{key}"] = str(database)
    folder = train_here("demo_pcl_edsr", demo_data, options=options)
    assert (folder / "models/net_g_2.pth").is_file()


def test_two_processes_train_as_one_model(one_pair: Path, tmp_path: Path) -> None:
    changes = {
        "train:total_iter": 3,
        "logger:save_checkpoint_freq": 3,
        "logger:print_freq": 1,
        "methods": [{"type": "PCL", "every": 1, "loss_share": 0.05, "share_interval": 2}],
    }
    changes["datasets:train:gt_size"] = 32  # a part of the image, another one on each rank
    options = write_options(tmp_path, "demo_pcl_edsr", one_pair, changes)
    script = Path(__file__).with_name("basicsr_rank_script.py")
    printed = succeed(run_python([script, options, "--launcher", "pytorch"], tmp_path, ENVIRONMENT, world=2))
    assert "pcl_contrastive_share: 5.0000e-02" in printed  # at the first step, where nothing is smoothed yet
    assert load(tmp_path / "experiments/demo_pcl_edsr/training_states/3.state")["methods"]["step.count"] == 3
    (first, images), (second, others) = (load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert not torch.equal(images, others)
    # BatchNorm's statistics are those of each rank's own images until the next SR step averages them
    same = {name for name in first if "running" not in name}
    assert_same(*({name: state[name] for name in same} for state in (first, second)))


def test_a_forced_seed_seeds_the_whole_training(train_here: Callable[..., Path], demo_data: Path) -> None:
    def trained(seed: int, *arguments: str) -> Any:
        name = f"seed_{seed}_{len(arguments)}"
        experiment = train_here("demo_pcl_edsr", demo_data, *arguments, options={"manual_seed": seed, "name": name})
        return load(experiment.with_name(name) / "models/net_g_latest.pth")["params"]

    of_file, of_other, forced = trained(7), trained(8), trained(8, "--force_yml", "manual_seed=7")
    assert_same(forced, of_file)
    assert any(not torch.equal(of_other[key], value) for key, value in of_file.items())


def test_a_validation_that_would_not_notice_dots_says_so(train_here: Callable[..., Path], demo_data: Path) -> None:
    psnr = {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}}
    jaggedness = {"jaggedness": {"type": "calculate_jaggedness", "scale": 4, "better": "lower"}}
    dots = "`pattern: {type: calculate_pattern, period: 4, better: lower}`"
    teeth = "`jaggedness: {type: calculate_jaggedness, scale: 4, better: lower}`"

    for name, metrics in (("both", psnr), ("one", psnr | jaggedness)):
        train_here("demo_pcl_edsr", demo_data, options={"val:metrics": metrics, "name": name})
    logs = (next(Path("experiments", name).glob("train_*.log")).read_text() for name in ("both", "one"))
    both, one = (re.search("Validation does not measure .*", log)[0] for log in logs)
    assert "measure periodic dots and jagged edges, which" in both
    assert both.endswith(f"add {dots} and {teeth} to `val: metrics:`.")
    assert "measure periodic dots, which" in one
    assert one.endswith(f"add {dots} to `val: metrics:`.")


def test_misspelt_key(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        train_here("demo_pcl_edsr", demo_data, options={"methods": [{"type": "PCL", "temprature": 1.0}]})


def test_no_methods(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="needs `methods:`"):
        train_here("demo_pcl_edsr", demo_data, options={"methods": None})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "ContrastivSRModel", "model_type: BasicSR does not know .* Did you mean 'ContrastiveSRModel'"),
        ("network_g:type", "EDSSR", "network_g: BasicSR does not know the network .EDSSR.. Did you mean .EDSR."),
        ("scale", None, "expected the key 'scale'"),
        ("model_type", "SRModel", "model_type: SRModel does not train with `methods:`"),
        ("train:total_iter", None, "train: expected the key 'total_iter'"),
        ("train", {"total_iters": 4}, "got total_iters. Is 'total_iters' misspelt?"),
        ("network_g", "EDSR", "network_g: expected a mapping of keys to values, got 'EDSR'"),
        ("path", "experiments", "path: expected a mapping of keys to values"),
        ("train:pixel_opt", None, "train: expected pixel_opt, by which the methods enter the step, got ema_decay"),
        ("train:optim_g", {"type": "Adam", "lr": "1e-4"}, "optim_g: lr: expected a number .*!!float 1e-4"),
        ("path:pretrain_network_g", "nowhere.pth", "pretrain_network_g: expected an existing file, got nowhere.pth"),
        ("train:optim_methods", {"type": "Adam", "lr": "1e-4"}, "optim_methods: lr: expected a number, got .*!!float"),
        ("train:optim_methods", {"type": "Adam", "lr": 1e-4, "beta": [0.9, 0.99]}, "Did you mean 'betas'"),
        ("train:optim_methods", {"lr": 1e-4}, "optim_methods: expected {type: Adam"),
        ("datasets:train:io_backend", {"typ": "disk"}, "expected io_backend"),
        ("datasets:val:filename_tmpl", "{name}x4", "expected a template with {}"),
        ("datasets:train:dataroot_gt", None, "expected the key 'dataroot_gt'"),
        ("datasets:train:gt_size", None, "expected the key 'gt_size'"),
        ("datasets:train:gt_size", 90, "gt_size: expected a multiple of 4, the scale, got 90. Try 92."),
    ],
)
def test_options_that_cannot_be_used(
    path: str, value: Any, message: str, train_here: Callable[..., Path], demo_data: Path
) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        train_here("demo_pcl_edsr", demo_data, options={path: value})


def test_a_network_is_no_training_state(
    stock: tuple[Path, str, str], train_here: Callable[..., Path], demo_data: Path
) -> None:
    network = stock[0] / "experiments/demo_pcl_edsr/models/net_g_latest.pth"
    with pytest.raises(DataError, match=r"expected a .state file .*it has params.*pretrain_network_g"):
        train_here("demo_pcl_edsr", demo_data, options={"path:resume_state": str(network)})


def test_a_damaged_state_is_not_to_be_read_unsafely(
    train_here: Callable[..., Path], demo_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "10.state").write_bytes(b"no state at all")
    with pytest.raises(DataError, match=r"expected a \.state file") as caught:
        train_here("demo_pcl_edsr", demo_data, options={"path:resume_state": str(tmp_path / "10.state")})
    assert "weights_only" not in str(caught.value)


def test_validation_images_of_another_scale(train_here: Callable[..., Path], demo_data: Path) -> None:
    options = {"datasets:val:dataroot_lq": str(demo_data / "val/HR")}
    with pytest.raises(DataError, match="2 of 2 pairs cannot be used at scale 4"):
        train_here("demo_pcl_edsr", demo_data, options=options)


def test_no_optimizer_for_the_embedding(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="optim_methods"):
        train_here("demo_pcl_edsr", demo_data, options={"train:optim_methods": None})


def test_patch_too_small(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(DataError, match="at least 32 x 32"):
        train_here("demo_pcl_edsr", demo_data, options={"datasets:train:gt_size": 16})


def test_normalised_images(train_here: Callable[..., Path], demo_data: Path) -> None:
    options = {"datasets:train:mean": [0.5, 0.5, 0.5], "datasets:train:std": [0.5, 0.5, 0.5]}
    with pytest.raises(DataError, match=r"in \[0, 1\], got values from -"):
        train_here("demo_pcl_edsr", demo_data, options=options)


def test_missing_folder(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(DataError, match=r"datasets: train: dataroot_lq: expected an existing folder, got nowhere/LR"):
        train_here("demo_pcl_edsr", demo_data, options={"datasets:train:dataroot_lq": "nowhere/LR"})


def test_unequal_counts(train_here: Callable[..., Path], one_pair: Path, demo_data: Path) -> None:
    options = {"datasets:train:dataroot_lq": str(one_pair / "train/LRx4")}
    with pytest.raises(DataError, match=r"102 HR images .* 1 LR images"):
        train_here("demo_pcl_edsr", demo_data, options=options)


def test_wrong_scale(train_here: Callable[..., Path], one_pair: Path) -> None:
    with pytest.raises(DataError, match="cannot be used at scale 2"):
        train_here("demo_pcl_edsr", one_pair, options={"scale": 2, "network_g:upscale": 2})


def test_images_smaller_than_the_patch(train_here: Callable[..., Path], demo_data: Path) -> None:
    with pytest.raises(DataError, match="smaller than the patches of 160 x 160"):
        train_here("demo_pcl_edsr", demo_data, options={"datasets:train:gt_size": 160})


def test_a_file_that_is_no_image(train_here: Callable[..., Path], one_pair: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(one_pair, data)
    (data / "train/HR/notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt is none\. Move it away"):
        train_here("demo_pcl_edsr", data)


def test_a_share_above_one_is_in_the_log(demo_data: Path, tmp_path: Path) -> None:
    changes = {"train:total_iter": 2, "methods": [{"type": "PCL", "loss_weight": 10.0}]}
    options = write_options(tmp_path, "demo_pcl_edsr", demo_data, changes)
    succeed(run_own(options))
    (log,) = (tmp_path / "experiments/demo_pcl_edsr").glob("train_*.log")
    assert log.read_text().count("times that of the pixel loss (weight 10)") == 1
    assert log.read_text().count("Dataset [CheckedPairedImageDataset] - demo is built.") == 1
    assert "does not measure periodic dots" not in log.read_text()


def test_a_stopped_run_says_how_to_go_on(one_pair: Path, tmp_path: Path) -> None:
    changes = {"train:total_iter": 300, "logger:save_checkpoint_freq": 1, "logger:print_freq": 1}
    options = write_options(tmp_path, "demo_pcl_edsr", one_pair, changes)
    command = [sys.executable, "-m", "contrastive_sr.cli", "train", str(options)]
    states = tmp_path / "experiments/demo_pcl_edsr/training_states"
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what runs in the background with Ctrl-C ignored, and so would this be
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not list(states.glob("*.state")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate()
    assert process.returncode == 130
    assert "Stopped. --auto_resume goes on from the last checkpoint, if there is one." in printed
    assert "Traceback" not in printed


def test_a_key_that_stands_twice(demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = write_options(tmp_path, "demo_pcl_edsr", demo_data, {})
    options.write_text(options.read_text() + "scale: 2\n")
    with pytest.raises(ConfigError, match=r"lines \d+ and \d+ of the option file: the key 'scale' stands there twice"):
        runner.train(options, [])


def test_grey_images_train(train_here: Callable[..., Path], one_pair: Path, tmp_path: Path) -> None:
    data = tmp_path / "grey"
    shutil.copytree(one_pair, data)
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    assert (train_here("demo_pcl_edsr", data) / "models/net_g_2.pth").is_file()


def test_state_of_another_training(
    stock: tuple[Path, str, str], train_here: Callable[..., Path], demo_data: Path
) -> None:
    folder = train_here("demo_pcl_edsr", demo_data, options={"model_type": "SRModel", "methods": None})
    state = folder.rename(folder.with_name("before")) / "training_states/2.state"
    networks = folder / "models"
    networks.mkdir(parents=True)
    shutil.copy(state.parents[1] / "models/net_g_2.pth", networks)
    with pytest.raises(ConfigError, match=r"expected the state of the methods in .*got no such file.*pretrained"):
        train_here("demo_pcl_edsr", demo_data, options={"path:resume_state": str(state), "train:total_iter": 4})


def test_option_file_runs_no_code(demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = write_options(tmp_path, "demo_pcl_edsr", demo_data, {})
    options.write_text(options.read_text() + "trap: !!python/object/apply:os.mkdir ['trapped']\n")
    with pytest.raises(ConfigError, match="would run code"):
        runner.train(options, [])
    assert not (tmp_path / "trapped").exists()


# Contrast of positions, on the network's own layers and in an embedding


@pytest.mark.parametrize(
    ("name", "method", "figures"),
    [
        ("demo_nce_edsr", "nce", {"positive_similarity"}),
        ("demo_srnce_rcan", "srnce", {"positive_similarity", "lr_similarity"}),
    ],
)
def test_position_contrast_trains_and_leaves_a_stock_checkpoint(
    name: str, method: str, figures: set[str], train_here: Callable[..., Path], demo_data: Path, tmp_path: Path
) -> None:
    folder = train_here(name, demo_data)
    logged = scalars(tmp_path / "tb_logger" / name)
    losses = {f"losses/l_{method}_{key}" for key in ("contrastive", "contrast_head", "discriminator")}
    figures = {*figures, "contrastive_raw", "contrastive_weight", "contrastive_share"}
    for tag in (*losses, *(f"{method}_{key}" for key in figures)):
        assert logged[tag] == [1, 2], tag
    stock = import_basicsr("basicsr.archs").build_network(dict(read_options(name)["network_g"]))
    stock.load_state_dict(load(folder / "models/net_g_2.pth")["params_ema"], strict=True)
    state = load(folder / "training_states/2.state")
    assert f"{method}.loss.heads.0.out.bias" in state["methods"]
    assert len(state["optimizers"][1]["state"]) == len(state["optimizers"][1]["param_groups"][0]["params"])
    assert (folder / f"models/{method}_embedding_2.pth").is_file()


@pytest.mark.parametrize("name", ["demo_nce_edsr", "demo_srnce_rcan"])
def test_position_contrast_resumes_bit_for_bit(name: str, train_here: Callable[..., Path], one_pair: Path) -> None:
    """Four steps equal two and two."""
    same = {
        "train:total_iter": 4,
        "datasets:train:gt_size": 64,
        "datasets:train:use_hflip": False,
        "datasets:train:use_rot": False,
        "network_g:num_feat": 8,
    }
    folder = train_here(name, one_pair, options=same)
    whole = folder.rename(folder.with_name("whole"))
    train_here(name, one_pair, options={**same, "train:total_iter": 2})
    halves = train_here(name, one_pair, "--auto_resume", options=same)
    assert_same(load(whole / "models/net_g_4.pth"), load(halves / "models/net_g_4.pth"), "net_g")
    state, other = load(whole / "training_states/4.state"), load(halves / "training_states/4.state")
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)


def test_layers_with_a_gan(train_here: Callable[..., Path], demo_data: Path, tmp_path: Path) -> None:
    method = {
        "type": "BidirectionalNCE",
        "loss_weight": 0.001,
        "layers": ["conv_body"],
        "embedding": {"type": "HaarDiscriminator", "out_indices": [0]},
    }
    train_here("demo_pcl_gan_rrdb", demo_data, options={"methods": [method]})
    logged = scalars(tmp_path / "tb_logger" / "demo_pcl_gan_rrdb")
    for key in ("l_g_gan", "l_nce_contrastive", "l_nce_contrast_head"):
        assert logged[f"losses/{key}"] == [1, 2], key


def test_two_processes_contrast_over_the_whole_batch(one_pair: Path, tmp_path: Path) -> None:
    methods = read_options("demo_nce_edsr")["methods"]
    methods[0] |= {"negatives_from": "batch", "positions": 3, "temperature": 1000.0}
    changes = {"train:total_iter": 2, "logger:save_checkpoint_freq": 2, "logger:print_freq": 1, "methods": methods}
    changes["datasets:train:batch_size_per_gpu"] = 1
    options = write_options(tmp_path, "demo_nce_edsr", one_pair, changes)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "contrastive_sr.cli"]
    printed = succeed(run([sys.executable, *torchrun, "train", options, "--launcher", "pytorch"], tmp_path))
    # Where all vectors are about equally similar, each direction's loss is the logarithm of the number of candidates.
    of_both = pytest.approx(2 * math.log(2 * 3), rel=1e-2)
    assert [float(value) for value in re.findall(r"nce_contrastive_raw: (\S+)", printed)] == [of_both, of_both]
    state = load(tmp_path / "experiments/demo_nce_edsr/training_states/2.state")["methods"]
    assert state["step.count"] == 2
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_layer_that_is_not_there(train_here: Callable[..., Path], demo_data: Path) -> None:
    methods = read_options("demo_nce_edsr")["methods"]
    methods[0]["layers"] = ["body.2", "body.six"]
    with pytest.raises(ConfigError, match=r"EDSR does not know the layer 'body\.six'\. Did you mean 'body\.\d'"):
        train_here("demo_nce_edsr", demo_data, options={"methods": methods})


@pytest.mark.parametrize("name", ["pcl_edsr", "pcl_rcan", "pcl_rrdb", "pcl_swinir_light", "nce_edsr", "srnce_rcan"])
def test_full_and_demo_options_say_the_same_of_the_method(name: str) -> None:
    full, demo = ([dict(method) for method in read_options(f)["methods"]] for f in (name, f"demo_{name}"))
    assert [len(m.pop("layers", ())) for m in full] == [len(m.pop("layers", ())) for m in demo]  # of other depths
    assert full == demo
    assert read_options(name)["datasets"]["train"]["gt_size"] == 192
    assert read_options(name)["datasets"]["train"]["batch_size_per_gpu"] == 16


@pytest.mark.parametrize(
    "wrong",
    [
        {"methods": [{"type": "PCL", "loss_weight": 0.0004, "temprature": 1.0}]},
        {"datasets:train:dataroot_gt": "nowhere"},
    ],
)
def test_a_typing_error_does_not_move_an_earlier_run_away(
    wrong: dict[str, Any], train_here: Callable[..., Path], one_pair: Path, tmp_path: Path
) -> None:
    folder = train_here("demo_pcl_edsr", one_pair)
    with pytest.raises((ConfigError, DataError), match=r"temprature|dataroot_gt: expected an existing folder"):
        train_here("demo_pcl_edsr", one_pair, options=wrong)
    assert [path.name for path in folder.parent.iterdir()] == ["demo_pcl_edsr"]
    assert (folder / "training_states/2.state").is_file()
