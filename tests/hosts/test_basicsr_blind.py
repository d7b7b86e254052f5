"""Blind SR in BasicSR's own trainer: DASR and CRL-SR on LR images made from HR images, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run_python
from PIL import Image
from same import assert_same

from contrastive_sr import networks
from contrastive_sr.data import pairs, write_degraded
from contrastive_sr.degradations import build_degradation
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from tests.hosts.basicsr_options import PROJECT, load, read_options, write_options

pytestmark = pytest.mark.basicsr

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
SHORT: dict[str, Any] = {
    "train:total_iter": 2,
    "val:val_freq": 4,
    "logger:print_freq": 1,
    "logger:save_checkpoint_freq": 2,
    "logger:use_tb_logger": False,
}
WHOLE = {"datasets:train:gt_size": 128, "datasets:train:use_hflip": False, "datasets:train:use_rot": False}
NETWORKS: dict[str, dict[str, Any]] = {
    "demo_dasr_x4": {"type": "DASR", "scale": 4, "channels": 4, "groups": 1, "blocks": 1},
    "demo_crl_sr_x4": {"type": "CRLSR", "scale": 4, "channels": 4, "encoder_blocks": 3, "decoder_blocks": 1},
}


def methods(name: str, **changes: Any) -> list[dict[str, Any]]:
    """The ``methods:`` of an option file, the first one with changes."""
    first, *others = read_options(name)["methods"]
    return [{**first, **changes}, *others]


@pytest.fixture(scope="module")
def data(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pairs of the demo's data; LR images of the training part are for pairs alone."""
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 3), ("val", 1)):
        for kind in ("HR", "LRx4"):
            (folder / part / kind).mkdir(parents=True)
            for file in sorted((demo_data / part / kind).iterdir())[:count]:
                shutil.copy(file, folder / part / kind)
    return folder


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one image; with the options ``WHOLE`` all HR batches of a training are the same."""
    folder = tmp_path_factory.mktemp("one")
    for part in ("train/HR", "val/HR", "val/LRx4"):
        (folder / part).mkdir(parents=True)
        shutil.copy(min((data / part).iterdir()), folder / part)
    return folder


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Train in this process through our runner, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(name: str, data: Path, *arguments: str, **options: Any) -> Path:
        network = {"network_g": dict(NETWORKS[name])} if name in NETWORKS else {}
        path = write_options(tmp_path, name, data, {**SHORT, **network, **options.pop("options", {})})
        runner.train(path, list(arguments))
        return tmp_path / "experiments" / read_options(name)["name"]

    return train


# ----------------------------------------------------------------------------------------------------- train, resume


def test_stock_trainer_trains_dasr_from_hr_images(data: Path, tmp_path: Path) -> None:
    """A checkout of BasicSR, and its own ``basicsr/train.py``."""
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, tmp_path / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    changes = {**SHORT, "val:val_freq": 2, "methods": methods("demo_dasr_x4", warmup_steps=1)}
    options = write_options(tmp_path, "demo_dasr_x4", data, changes)
    python_path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, "basicsr/train.py", "-opt", str(options)],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-4000:]
    for key in ("l_dasr_contrastive", "dasr_positive_similarity", "dasr_negative_similarity"):
        assert printed.count(f" {key}: ") == 2, key
    assert printed.count(" l_pix: ") == 1  # in the warm-up there is no SR image
    assert [f"dasr_host_factor: {factor}.0000e+00" in printed for factor in (0, 1)] == [True, True]
    assert "Best: " in printed

    content = load(tmp_path / "experiments/demo_dasr_x4/models/net_g_latest.pth")
    network = dict(read_options("demo_dasr_x4")["network_g"])
    assert network.pop("type") == "DASR"
    net = networks.DASR(**network)
    net.load_state_dict(content["params_ema"], strict=True)
    assert net.eval()(torch.rand(1, 3, 12, 12)).shape == (1, 3, 48, 48)
    # the averaged network's BatchNorm has the statistics of the live one
    statistics = [key for key in content["params"] if "running" in key]
    assert len(statistics) == 12
    for key in statistics:
        assert torch.equal(content["params"][key], content["params_ema"][key])
        assert content["params"][key].ne(float("var" in key)).any()
    assert load(tmp_path / "experiments/demo_dasr_x4/training_states/2.state")["methods"]["dasr.loss.fill"] == 4


@pytest.mark.parametrize(
    ("name", "change"), [("demo_dasr_x4", {"warmup_steps": 3}), ("demo_crl_sr_x4", {"warmup_steps": 3})]
)
def test_four_steps_equal_two_and_two(
    name: str, change: dict[str, Any], train_here: Callable[..., Path], one: Path
) -> None:
    """Queue, pointer, momentum encoder and the phase; degradations of step 3 and 4 are those of step 3 and 4."""
    # BasicSR draws other crops after it has resumed.
    same = {**WHOLE, "train:total_iter": 4, "methods": methods(name, **change)}
    folder = train_here(name, one, options=same)
    whole = folder.rename(folder.with_name("whole"))
    train_here(name, one, options={**same, "train:total_iter": 2})
    halves = train_here(name, one, "--auto_resume", options=same)
    assert_same(load(whole / "models/net_g_4.pth"), load(halves / "models/net_g_4.pth"), "net_g")
    state, other = load(whole / "training_states/4.state"), load(halves / "training_states/4.state")
    for key in ("optimizers", "schedulers", "methods", "iter"):
        assert_same(state[key], other[key], key)
    early = load(whole / "training_states/2.state")
    if name == "demo_dasr_x4":
        assert state["methods"]["dasr.loss.pointer"] == state["methods"]["dasr.loss.fill"] == 8
        queue = state["methods"]["dasr.loss.queue"]
        assert len({tuple(row.tolist()) for row in queue[:8]}) == 8  # of one image under eight degradations
        trained = [len(saved["optimizers"][0]["state"]) for saved in (early, state)]
        assert trained[0] < trained[1]  # Adam knew the encoder alone, and then all
    else:
        assert "crl_sr.places.heads.0.out.bias" in state["methods"]
        assert len(state["optimizers"]) == 2


@pytest.mark.parametrize("model", ["ContrastiveSRModel", "ContrastiveESRGANModel"])
def test_the_warm_up_trains_the_encoder_alone(model: str, train_here: Callable[..., Path], data: Path) -> None:
    options: dict[str, Any] = {
        "methods": methods("demo_dasr_x4", warmup_steps=2),
        "model_type": model,
        "train:total_iter": 3,
        "logger:save_checkpoint_freq": 1,
        "train:ema_decay": 0.5,
    }
    if model == "ContrastiveESRGANModel":
        gan = read_options("demo_pcl_gan_rrdb")
        options.update({"network_d": {**gan["network_d"], "num_feat": 4}})
        options.update({f"train:{key}": gan["train"][key] for key in ("optim_d", "gan_opt")})
    folder = train_here("demo_dasr_x4", data, options=options)
    first, second, third = (load(folder / f"models/net_g_{step}.pth")["params"] for step in (1, 2, 3))
    moved = [
        {name.split(".")[0] for name in after if "running" not in name and not torch.equal(after[name], before[name])}
        for before, after in ((first, second), (second, third))
    ]
    assert moved[0] == {"encoder"}
    assert moved[1] >= {"encoder", "first", "groups", "upsample", "compress"}
    if model == "ContrastiveESRGANModel":
        discriminators = [load(folder / f"models/net_d_{step}.pth")["params"] for step in (1, 2, 3)]
        learnt = [any(not torch.equal(old[key], x) for key, x in new.items()) for old, new in pairwise(discriminators)]
        assert learnt == [False, True]  # in the warm-up there is no SR image to tell from HR


def test_two_processes_hold_one_queue(one: Path, tmp_path: Path) -> None:
    """Also where one of them validates in between, with the network itself, which has BatchNorm."""
    network = NETWORKS["demo_dasr_x4"]
    changes = {**SHORT, **WHOLE, "network_g": network, "methods": methods("demo_dasr_x4", warmup_steps=1)}
    changes |= {"train:ema_decay": 0, "val:val_freq": 1}
    options = write_options(tmp_path, "demo_dasr_x4", one, changes)
    script = Path(__file__).with_name("basicsr_rank_script.py")
    done = run_python([script, options, "--launcher", "pytorch"], tmp_path, ENVIRONMENT, world=2)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (first, images), (second, others) = (load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert_same(first, second)
    assert first["dasr.loss.fill"] == 8  # two images of each of two processes, twice
    assert len({tuple(row.tolist()) for row in first["dasr.loss.queue"][:8]}) == 8
    assert not torch.equal(images, others)  # of one HR image, under degradations of each process's own


@pytest.mark.parametrize(
    ("network", "method", "found"),
    [
        ({"type": "DASR", "variant": "oracle"}, [{"type": "TrueKernel"}], "step.count"),
        ({"type": "DASR"}, methods("demo_dasr_x4", positives_from="same_degradation"), "dasr.loss.queue"),
        (None, [{"type": "DegradationContrast", "queue_size": 8}], "degradation.query_encoder.encoder.body.0.weight"),
    ],
    ids=["oracle", "same_degradation", "stock"],
)
def test_other_methods_get_what_they_want(
    network: dict[str, Any] | None,
    method: list[dict[str, Any]],
    found: str,
    train_here: Callable[..., Path],
    data: Path,
) -> None:
    adam = {"type": "Adam", "lr": 1e-4}
    options = {"methods": method, "train:optim_methods": adam, "train:total_iter": 1, "logger:save_checkpoint_freq": 1}
    if network is None:
        network = {**read_options("demo_pcl_edsr")["network_g"], "num_feat": 8, "num_block": 1}
    else:
        network = {**NETWORKS["demo_dasr_x4"], **network}
        if "variant" in network:
            options["val"] = None  # these pairs do not tell their kernels
    folder = train_here("demo_dasr_x4", data, options={**options, "network_g": network})
    assert found in load(folder / "training_states/1.state")["methods"]


@pytest.fixture(scope="module")
def blurred(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same held-out images behind known kernels."""
    folder = tmp_path_factory.mktemp("blurred")
    shutil.copytree(data / "train", folder / "train")
    write_degraded(data / "val/HR", folder / "val", "dasr-anisotropic-x4")
    return folder


ORACLE: dict[str, Any] = {
    "methods": [{"type": "TrueKernel"}],
    "network_g": {**NETWORKS["demo_dasr_x4"], "variant": "oracle"},
    "val:val_freq": 1,
}


@pytest.mark.parametrize("decay", [0, 0.5])
def test_the_oracle_is_validated_with_the_true_kernels(
    decay: float, train_here: Callable[..., Path], blurred: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network reads what the LR images were made with."""
    seen = []
    forward = networks.DASR.forward

    def watch(self: Any, lr: torch.Tensor, *rest: Any, kernel: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled() and not torch.is_inference_mode_enabled():  # in which sizes are tried
            seen.append((lr, kernel, self.training))
        return forward(self, lr, *rest, kernel=kernel)

    monkeypatch.setattr(networks.DASR, "forward", watch)
    train_here("demo_dasr_x4", blurred, options={**ORACLE, "train:ema_decay": decay})
    assert len(seen) == 3  # after each of two steps, and at the end
    degradation = build_degradation("dasr-anisotropic-x4")
    for lr, kernel, training in seen:
        assert kernel.shape == (1, 21, 21)
        assert not training
        (hr,) = (blurred / "val/HR").iterdir()
        with Image.open(hr) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        blur = degradation.apply(pixels, {"kernel": kernel, "noise": torch.zeros(1)})
        other = degradation.apply(pixels, {"kernel": kernel.flip(-1), "noise": torch.zeros(1)})
        assert (lr - blur).abs().mean() < (lr - other).abs().mean()  # what is left is noise


def test_hr_images_alone_without_a_method(train_here: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    """The baseline: a pixel loss, on the same degradations."""
    folder = train_here("demo_crl_sr_x4", data, options={"methods": None})
    first = load(folder / "models/net_g_2.pth")["params"]
    shutil.rmtree(folder)
    train_here("demo_crl_sr_x4", data, options={"methods": [], "train:total_iter": 1, "logger:save_checkpoint_freq": 1})
    train_here("demo_crl_sr_x4", data, "--auto_resume", options={"methods": []})
    assert set(load(folder / "training_states/2.state")["methods"]) == {"step.count"}
    assert any(
        not torch.equal(value, load(folder / "models/net_g_1.pth")["params"][key]) for key, value in first.items()
    )


# ----------------------------------------------------------------------------------------------------- data


def dataset(folder: Path, **changes: Any) -> Any:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    options = {
        "name": "test",
        "type": "HighResolutionImageDataset",
        "phase": "train",
        "scale": 4,
        "dataroot_gt": str(folder),
        "io_backend": {"type": "disk"},
        "gt_size": 24,
        "use_hflip": True,
        "use_rot": True,
        **changes,
    }
    return import_basicsr("basicsr.data").build_dataset(options)


def ramp(width: int = 40, height: int = 32) -> np.ndarray:
    """An image each of whose pixels tells where it was."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4, columns * 4, 100 + 0 * rows], axis=2).astype(np.uint8)


def assert_crop(crop: torch.Tensor, image: np.ndarray) -> tuple[int, int]:
    """It is a crop of the image, flipped and turned by any of the eight ways; its upper left corner there."""
    found = (crop * 255).round().byte().permute(1, 2, 0).numpy()
    corner = tuple(int(found[..., channel].min()) // 4 for channel in (0, 1))
    top, left = corner
    want = image[top : top + len(found), left : left + len(found)]
    turned = [np.rot90(side, turns) for side in (want, want[:, ::-1]) for turns in range(4)]
    assert any(np.array_equal(found, candidate) for candidate in turned)
    return top, left


def test_two_crops_of_one_image_are_whole(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "ramp.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = dataset(tmp_path, crops=2)
    assert len(found) == 1
    corners = set()
    for _ in range(20):
        item = found[0]
        assert item["gt_path"].endswith("ramp.png")
        pair = tuple(assert_crop(item[key], ramp()) for key in ("gt", "gt_key"))
        corners.add(pair)
    assert len(corners) > 10
    assert any(first != second for first, second in corners)
    found = dataset(tmp_path, crops=2, gt_size=8)  # so that there is room for two wherever the first lies
    for _ in range(20):
        item = found[0]
        first, second = (assert_crop(item[key], ramp()) for key in ("gt", "gt_key"))
        assert max(abs(a - b) for a, b in zip(first, second, strict=True)) >= 8
    assert set(dataset(tmp_path)[0]) == {"gt", "gt_path"}


@pytest.mark.parametrize("kind", ["grey", "sixteen", "grey_sixteen"])
def test_grey_images_are_read_right_and_those_of_16_bits_refused(kind: str, tmp_path: Path) -> None:
    import cv2

    image = np.random.default_rng(0).integers(0, 65536, (24, 24, 3), dtype=np.uint16)
    if kind.startswith("grey"):
        image = image[..., 0]
    if kind == "grey":
        image = (image >> 8).astype(np.uint8)
    for folder in ("HR", "LR"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "HR/one.png"), image)
    cv2.imwrite(str(tmp_path / "LR/one.png"), image[:6, :6])
    plain = {"use_hflip": False, "use_rot": False}
    for kind_of_set in ({}, {"type": "CheckedPairedImageDataset", "dataroot_lq": str(tmp_path / "LR")}):
        if kind != "grey":
            with pytest.raises(DataError, match=r"one\.png has more than 8 bits a channel; expected 8"):
                dataset(tmp_path / "HR", **plain, **kind_of_set)
            continue
        found = dataset(tmp_path / "HR", **plain, **kind_of_set)[0]["gt"]
        assert np.abs(found.numpy() - image / 255).max() < 1e-6
        assert found.shape == (3, 24, 24)


def test_lists_and_lmdb(demo_data: Path, tmp_path: Path) -> None:
    folder = demo_data / "train/HR"
    names = sorted(path.name for path in folder.iterdir())[:3]
    (tmp_path / "list.txt").write_text("".join(f"{name} (128,128,3)\n" for name in names[:2]))
    listed = dataset(folder, meta_info_file=str(tmp_path / "list.txt"))
    assert [Path(path).name for path in listed.paths] == names[:2]
    make_lmdb = import_basicsr("basicsr.utils.lmdb_util").make_lmdb_from_imgs
    make_lmdb(str(folder), str(tmp_path / "HR.lmdb"), names, [Path(name).stem for name in names])
    plain = {"use_hflip": False, "use_rot": False, "gt_size": 128}
    packed = dataset(tmp_path / "HR.lmdb", io_backend={"type": "lmdb"}, **plain)
    assert len(packed) == 3
    assert torch.equal(packed[1]["gt"], dataset(folder, **plain)[1]["gt"])
    packed.size = 256  # of an lmdb it is not known before
    with pytest.raises(DataError, match="smaller than the patches of 256 x 256"):
        packed[1]
    with pytest.raises(DataError, match=r"Expected the list of images .*nowhere\.txt"):
        dataset(folder, meta_info_file=str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": 3}, "crops: expected a whole number from 1 to 2"),
        ({"gt_size": None}, "expected the key 'gt_size'"),
        ({"phase": "val"}, "is for training. Validate on pairs"),
        ({"dataroot_lq": "LR"}, "has no dataroot_lq"),
        ({"io_backend": {"type": "memcached"}}, "expected io_backend"),
        ({"gt_size": 129}, "HR images cannot be used: .* is 128 x 128.* a folder of LR images"),
    ],
)
def test_hr_data_that_cannot_be_used(changes: dict[str, Any], message: str, demo_data: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        dataset(demo_data / "train/HR", **changes)


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["demo_dasr_x4", "demo_pcl_edsr"])
def test_a_damaged_image_is_named_and_nothing_saved_is_lost(
    name: str, train_here: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(data, own)
    folder = train_here(name, own)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".pth", ".state")}
    for path in (own / "train/HR").iterdir():
        path.write_bytes(path.read_bytes()[:3000])  # the header, which is looked at before, is still there
    with pytest.raises(DataError, match=r"train/HR/astronaut_\d+_\d+\.png cannot be read as an image: 3000 bytes"):
        train_here(name, own, "--auto_resume", options={"train:total_iter": 4})
    assert (folder / "training_states/2.state") in kept
    assert kept == {path: path.read_bytes() for path in kept}
    going_on = {"train:total_iter": 4, "datasets:train:dataroot_gt": str(data / "train/HR")}
    assert (train_here(name, data, "--auto_resume", options=going_on) / "training_states/4.state").is_file()


@pytest.mark.parametrize("command", ["basicsr/train.py", "contrastive-sr"])
@pytest.mark.parametrize(("prefetch", "workers"), [("cpu", 0), ("cpu", 2), (None, 2)])
def test_a_damaged_image_ends_the_training_however_it_is_loaded(
    command: str, prefetch: str | None, workers: int, data: Path, tmp_path: Path
) -> None:
    """BasicSR loads ahead in a thread, whose errors nobody hears of."""
    shutil.copytree(data, tmp_path / "own")
    for path in (tmp_path / "own/train/HR").iterdir():
        path.write_bytes(path.read_bytes()[:3000])
    loading = {"datasets:train:prefetch_mode": prefetch, "datasets:train:num_worker_per_gpu": workers}
    options = write_options(tmp_path, "demo_dasr_x4", tmp_path / "own", {**SHORT, **loading})
    if command == "contrastive-sr":
        done = run_python(["-m", "contrastive_sr.cli", "train", options], tmp_path, ENVIRONMENT, timeout=100)
    else:
        package = Path(import_basicsr("basicsr").__file__ or "").parent
        shutil.copytree(package, tmp_path / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
        start = [sys.executable, "-m", "basicsr.train", "-opt", str(options)]
        done = subprocess.run(
            start, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False
        )
    assert done.returncode == 1
    message = r"(?m)^%s\S+/train/HR/astronaut_\d+_\d+\.png cannot be read as an image: 3000 bytes"
    if command == "contrastive-sr":
        assert re.search(message % "error: ", done.stderr)
        assert "Traceback" not in done.stderr
        own = [line for line in done.stderr.splitlines() if not line.startswith("[ WARN:")]  # OpenCV's, of a worker
        assert own[-1].startswith("error: ")
    else:
        assert re.search(message % r"contrastive_sr\.errors\.DataError: ", done.stderr)


def test_a_state_without_its_queue(train_here: Callable[..., Path], data: Path) -> None:
    path = train_here("demo_dasr_x4", data) / "training_states/2.contrastive"
    state = load(path)
    del state["methods"]["dasr.loss.queue"]
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"the methods \['dasr'\] as they are[^$]*dasr\.loss\.queue[^$]*pretrained"):
        train_here("demo_dasr_x4", data, "--auto_resume", options={"train:total_iter": 4})


def test_a_batch_that_the_queue_cannot_hold(train_here: Callable[..., Path], data: Path) -> None:
    with pytest.raises(DataError, match=r"expected a batch that the queue of 1 holds, got 2 images"):
        train_here("demo_dasr_x4", data, options={"methods": methods("demo_dasr_x4", queue_size=1)})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("demo_dasr_x4", {"scale": 3}, "a scale that the preset 'dasr-isotropic-x4' has, got 3"),
        ("demo_dasr_x4", {"degradation": "dasr-isotropik"}, "Did you mean"),
        (
            "demo_dasr_x4",
            {"degradation": {"type": "Degradation", "noise": [0, 300]}},
            "expected levels from 0 to 255, got 300",
        ),
        ("demo_dasr_x4", {"degradation": None}, "HighResolutionImageDataset has no LR images"),
        ("demo_dasr_x4", {"datasets:train:crops": 1}, "Expected `crops: 2`, got 1"),
        ("demo_dasr_x4", {"datasets:train:gt_size": 16}, "at least 21, the kernel's size, got 16"),
        ("demo_dasr_x4", {"datasets:train:gt_size": 30}, "a multiple of 4, the scale"),
        ("demo_dasr_x4", {"datasets:train:gt_size": 132}, "HR images cannot be used"),
        ("demo_dasr_x4", {"model_type": "SRModel", "methods": None}, "SRModel does not train with `degradation:`"),
        ("demo_pcl_edsr", {"degradation": "dasr-isotropic-x4"}, "got a folder of LR images.*Take dataroot_lq out"),
        ("demo_dasr_x4", {"network_g": {"type": "DASSR"}}, "Did you mean 'DASR'"),
        ("demo_dasr_x4", {"network_g:chanels": 8}, "DASR does not know the key 'chanels'. Did you mean 'channels'"),
        (
            "demo_dasr_x4",
            {"network_g:chanels": 8, "model_type": "SRModel", "methods": None, "degradation": None},
            "Did you mean 'channels'",
        ),
        (
            "demo_pcl_edsr",
            {"network_g:num_feet": 8},
            "network_g: EDSR does not know the key 'num_feet'. Did you mean 'num_feat'",
        ),
        (
            "demo_pcl_edsr",
            {"network_g:upscale": 2},
            "network_g: upscale: expected 4, the scale of the option file, got 2",
        ),
        ("demo_dasr_x4", {"network_g:scale": 2}, "network_g: scale: expected 4, the scale of the option file, got 2"),
        ("demo_dasr_x4", {"network_g:scale": 5}, "DASR.scale.: expected a whole number from 2 to 4, got 5"),
        ("demo_dasr_x4", {"network_g:variant": "ful"}, "DASR.variant.: expected one of full, .* got .ful."),
        ("demo_dasr_x4", {"network_g": read_options("demo_pcl_edsr")["network_g"]}, "degradation encoder, .* got EDSR"),
        ("demo_dasr_x4", {"methods": methods("demo_dasr_x4", queue_size=1)}, "the queue of 1 holds, got 2 images"),
        ("demo_dasr_x4", {"methods": None, "degradation": None}, "ContrastiveSRModel needs `methods:`"),
        ("demo_crl_sr_x4", {"train:optim_methods": None}, "optim_methods: expected options for the parts"),
        ("demo_dasr_x4", {"datasets:train:gt_size": None}, "expected the key 'gt_size'"),
        ("demo_dasr_x4", {"datasets:train:gt_size": "32"}, "gt_size: expected a whole number of at least 1, got '32'"),
        ("demo_pcl_edsr", {"datasets:train:gt_size": "32"}, "gt_size: expected a whole number of at least 1, got '32'"),
        (
            "demo_dasr_x4",
            {
                "methods": methods("demo_dasr_x4", positives_from="same_degradation"),
                "datasets:train:batch_size_per_gpu": 1,
            },
            "Raise the batch size to at least 2",
        ),
        ("demo_dasr_x4", {**ORACLE, "degradation": "crl-spatial-x4"}, "expected 'degradation/kernel' in the batch"),
        ("demo_dasr_x4", ORACLE, r"The SR network reads the true kernel .* in validation, .*val/degradations\.json"),
        ("demo_dasr_x4", {"datasets:val:type": "HighResolutionImageDataset"}, "is for training. Validate on pairs"),
        ("demo_dasr_x4", {"datasets:train:type": "PairedImageDataset"}, "Expected `type: HighResolutionImageDataset`"),
        ("demo_dasr_x4", {"scale": "4"}, r"scale: expected a whole number of at least 2, got '4' \(str\)"),
        ("demo_dasr_x4", {"scale": 0}, r"scale: expected a whole number of at least 2, got 0"),
        ("demo_dasr_x4", {"datasets:train": None}, "datasets: expected a mapping with `train`"),
    ],
)
def test_options_that_do_not_go_together(
    name: str, changes: dict[str, Any], message: str, train_here: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    """BasicSR renames the folder of an earlier run; not for a training that does not start."""
    earlier = tmp_path / "experiments" / name / "models/net_g_1.pth"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    with pytest.raises((ConfigError, DataError), match=message):
        train_here(name, data, options=changes)
    assert [path for path in (tmp_path / "experiments").rglob("*") if path.is_file()] == [earlier]


def test_a_folder_of_lr_images_does_not_move_an_earlier_run_away(
    train_here: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "experiments/demo_dasr_x4").mkdir(parents=True)
    folder = {"datasets:train:dataroot_gt": str(data / "train/LRx4"), "datasets:train:gt_size": 64}
    with pytest.raises(DataError, match=r"HR images cannot be used: .* if this is a folder of LR images"):
        train_here("demo_dasr_x4", data, options=folder)
    assert not list((tmp_path / "experiments").glob("*_archived_*"))


def test_each_file_is_looked_at_once(
    train_here: Callable[..., Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[Path] = []
    look = pairs._size_or_problem
    monkeypatch.setattr(pairs, "_size_or_problem", lambda path: sizes.append(path) or look(path))
    train_here("demo_dasr_x4", data)
    assert len(sizes) == len(set(sizes)) == 5  # three to train on, and a pair


def test_misspelt_keys_of_our_networks_in_basicsrs_own_command() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    build = import_basicsr("basicsr.archs").build_network
    with pytest.raises(ConfigError, match=r"DASR does not know the key 'chanels'\. Did you mean 'channels'"):
        build({"type": "DASR", "chanels": 8})
    assert type(build({"type": "CRLSR", "channels": 4})) is networks.CRLSR


def test_paired_data_have_no_second_crop(train_here: Callable[..., Path], data: Path) -> None:
    pairs = read_options("demo_pcl_edsr")["datasets"]["train"]
    options: dict[str, Any] = {
        "degradation": None,
        "datasets:train": {**pairs, "dataroot_gt": str(data / "train/HR"), "dataroot_lq": str(data / "train/LRx4")},
        "datasets:train:gt_size": 64,
        "datasets:train:batch_size_per_gpu": 2,
    }
    with pytest.raises(DataError, match="Or set split_lr: true"):
        train_here("demo_dasr_x4", data, options=options)
    options["methods"] = methods("demo_dasr_x4", split_lr=True)
    assert (train_here("demo_dasr_x4", data, options=options) / "training_states/2.state").is_file()


@pytest.mark.parametrize("name", ["dasr_x4", "crl_sr_x4"])
def test_full_and_demo_options_say_the_same(name: str) -> None:
    """But for what a short training on a few images needs."""
    full, demo = (read_options(f) for f in (name, f"demo_{name}"))
    for options in (full, demo):
        (method,) = options["methods"]
        for key in ("warmup_steps", "queue_size", "positions"):
            method.pop(key, None)
    for key in ("methods", "degradation", "model_type", "scale"):
        assert full[key] == demo[key]
    assert full["network_g"]["type"] == demo["network_g"]["type"]
    train = full["datasets"]["train"]
    assert (train["gt_size"], train["batch_size_per_gpu"]) == (192, 32)
    assert full["datasets"]["train"].get("crops") == demo["datasets"]["train"].get("crops")


def test_the_full_schedule_of_dasr_is_the_papers() -> None:
    """1e-3, a tenth of it after 60 of 100 epochs; 1e-4 for 500 more, halved every 125; an epoch is 1,000 steps."""
    options = dict(read_options("dasr_x4")["train"]["scheduler"])
    assert options.pop("type") == "MultiStepRestartLR"
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = import_basicsr("basicsr.models.lr_scheduler").MultiStepRestartLR(optimizer, **options)
    wanted = {1: 1e-3, 59_999: 1e-3, 60_001: 1e-4, 224_999: 1e-4, 225_001: 5e-5, 350_001: 2.5e-5, 475_001: 1.25e-5}
    marks = sorted({*options["milestones"], *options["restarts"], *wanted} - {0})
    rates = {}
    for step in marks:  # between them the rate does not change
        scheduler.last_epoch = step - 1
        optimizer.step()
        scheduler.step()
        rates[step] = optimizer.param_groups[0]["lr"]
    for step, rate in wanted.items():
        assert rates[step] == pytest.approx(rate), step
