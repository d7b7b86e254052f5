"""What can be known from an option file is refused before anything is written; with BasicSR."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.late import check_writable, may_be_read
from contrastive_sr.hosts.basicsr.listings import read_listing
from tests.hosts.basicsr_options import write_options

pytestmark = pytest.mark.basicsr

COSINE = {"type": "CosineAnnealingRestartLR", "periods": [3, 2], "restart_weights": [1, 1]}
Start = Callable[..., None]


@pytest.fixture(scope="module")
def pairs(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs to train on and one to validate on."""
    folder = tmp_path_factory.mktemp("pairs")
    for part, count in (("train", 3), ("val", 1)):
        for kind in ("HR", "LRx4"):
            (folder / part / kind).mkdir(parents=True)
            for source in sorted((demo_data / part / kind).iterdir())[:count]:
                shutil.copy(source, folder / part / kind)
    return folder


@pytest.fixture
def start(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begin a training of the smallest demo, and see that nothing was written if it is refused."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **options: Any) -> None:
        small = {"network_g:num_feat": 4, "network_g:num_block": 1, "train:total_iter": 6, "methods": None}
        small |= {"model_type": "SRModel", "train:optim_methods": None, "datasets:train:dataset_enlarge_ratio": 1}
        file = write_options(tmp_path, "demo_pcl_edsr", pairs, {**small, **options.pop("options", {})})
        try:
            runner.train(file, list(arguments))
        except (ConfigError, DataError):
            assert not (tmp_path / "experiments").exists()
            raise

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train:totl_iter": 9}, "train: BasicSR does not know the key 'totl_iter'. Did you mean 'total_iter'"),
        ({"manual_sed": 9}, "the option file: BasicSR .* Did you mean 'manual_seed'"),
        ({"datasets:train:batch_size_pergpu": 9}, "datasets: train: .* Did you mean 'batch_size_per_gpu'"),
        ({"path:strict_load_gg": True}, "path: BasicSR .* Did you mean 'strict_load_g'"),
        ({"logger:wandb": {"projekt": "x"}}, "logger: wandb: BasicSR .* Did you mean 'project'"),
        ({"val:val_frq": 9}, "val: BasicSR .* Did you mean 'val_freq'"),
        ({"network_g:num_feats": 9}, "network_g: EDSR does not know the key 'num_feats'. Did you mean 'num_feat'"),
        ({"train:pixel_opt": {"type": "L1Los"}}, "train: pixel_opt: BasicSR .* Did you mean 'L1Loss'"),
        ({"train:pixel_opt": {"type": "L1Loss", "weight": 1}}, "pixel_opt: L1Loss does not know the key 'weight'"),
        ({"val:metrics:psnr:type": "calculate_psmr"}, "val: metrics: psnr: BasicSR .* Did you mean 'calculate_psnr'"),
        ({"val:metrics:psnr:crop_border": None}, "psnr: calculate_psnr needs the key 'crop_border'"),
        ({"val:metrics": ["psnr"]}, "val: metrics: expected a mapping of names to metrics"),
        ({"val:val_freq": None}, "val: expected the key 'val_freq'"),
        ({"logger:print_freq": 0}, "logger: print_freq: expected a number of at least 1, got 0"),
        ({"logger:use_tb_logger": None}, "logger: expected the key 'use_tb_logger'"),
        ({"train:scheduler": COSINE}, "periods of 6 steps, total_iter, or more, got 5: there is no learning rate"),
        ({"train:scheduler": {**COSINE, "periods": [9]}}, "as many restart_weights as periods"),
        ({"train:scheduler": {**COSINE, "eta_mn": 1}}, "Did you mean 'eta_min'"),
        ({"train:scheduler": {**COSINE, "eta_min": "1e-7"}}, "eta_min: expected a number, got '1e-7' .*!!float 1e-7"),
        ({"train:pixel_opt": {"type": "L1Loss", "loss_weight": "5e-3"}}, "loss_weight: expected a number, got '5e-3'"),
        ({"datasets:train:filename_tmpl": 5}, "filename_tmpl: expected a template with {} for the HR name"),
        ({"train:warmup_iter": "1e3"}, "train: warmup_iter: expected a number, got '1e3'"),
        ({"train:scheduler": {"type": "MultiStepLr"}}, "Did you mean 'MultiStepLR'"),
        ({"train:scheduler": {"type": "MultiStepLR", "milestones": 4}}, "milestones: expected a list of steps, got 4"),
        ({"logger:wandb": {"project": ""}}, "wandb: project: expected a name, or ~ for no wandb"),
        ({"logger:wandb": {"project": "x"}, "logger:use_tb_logger": False}, "wandb: expected use_tb_logger: true"),
        ({"datasets:train:prefetch_mode": "gpu"}, "prefetch_mode: expected one of None, cpu, cuda, got 'gpu'"),
        ({"datasets:train:prefetch_mode": "cuda"}, "pin_memory: expected true with prefetch_mode: cuda"),
    ],
)
def test_options_that_basicsr_would_fail_at_later(options: dict[str, Any], message: str, start: Start) -> None:
    with pytest.raises(ConfigError, match=message):
        start(options=options)


def test_a_scheduler_and_keys_of_other_models_that_are_right(start: Start) -> None:
    """All is looked at up to the folder of LR images, the last thing to be looked at."""
    options = {
        "train:scheduler": {**COSINE, "periods": [4, 2]},
        "train:pixel_opt2": {"type": "L1Loss"},
        "train:own_weight": 3,
        "datasets:train:meta_info": "x",
        "path:pretrain_network_g": None,
        "path:param_key_g": "params",
        "datasets:val:filename_tmpl": "{}_no",
    }
    with pytest.raises(DataError, match="HR without LR"):
        start(options=options)


def test_a_key_that_another_model_may_have_by_right_is_warned_of(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    models = import_basicsr("basicsr.models.sr_model"), import_basicsr("basicsr.utils.registry").MODEL_REGISTRY
    monkeypatch.setitem(models[1]._obj_map, "Mine", type("Mine", (models[0].SRModel,), {}))
    options = {"model_type": "Mine", "train:net_g_iters": 1, "datasets:val:filename_tmpl": "{}_no"}
    with pytest.raises(ConfigError, match="train: BasicSR does not know the key 'net_g_iters'"):
        start(options={**options, "model_type": "SRModel"})
    with (
        pytest.raises(DataError, match="HR without LR"),
        pytest.warns(UserWarning, match="'net_g_iters'.* It is left to the model"),
    ):
        start(options=options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(start: Start) -> None:
    with pytest.raises(ConfigError, match="num_gpu: expected 0 or auto on a machine without a GPU, got 2"):
        start(options={"num_gpu": 2})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("train:totl_iter=3", "Did you mean 'total_iter'"),
        ("trian:total_iter=3", "the option file does not know the part 'trian'. Did you mean 'train'"),
        ("train:total_iter", "expected entries such as train:ema_decay=0.999"),
        ('train:x"]+print("=3', "expected entries such as"),
        ("datasets:train:batch_size_per_gpu=9", "expected images for one batch of 9"),
        ("model_type=SRModl", "Did you mean 'SRModel'"),
    ],
)
def test_forced_options_are_looked_at_too(entry: str, message: str, start: Start) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        start("--force_yml", "manual_seed=3", entry)
    with pytest.raises((ConfigError, DataError), match=message):
        start(f"--force_yml={entry}")


def test_options_that_the_optimizer_would_fail_at(start: Start) -> None:
    """Before an earlier training is moved away."""
    with pytest.raises(ConfigError, match=r"train: optim_g: weight_decay: expected a number .* got '1e-4'"):
        start(options={"train:optim_g:weight_decay": "1e-4"})


def test_a_package_that_is_missing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrastive_sr.hosts.basicsr.late.find_spec", {"tensorboard": True}.get)
    with pytest.raises(ConfigError, match=r"wandb: expected the package wandb, got none\. Try: pip install wandb"):
        start(options={"logger:wandb": {"project": "x"}})
    monkeypatch.setattr("contrastive_sr.hosts.basicsr.late.find_spec", {}.get)
    with pytest.raises(ConfigError, match="use_tb_logger: expected the package tensorboard"):
        start()


def test_a_pretrained_file_without_the_named_key(start: Start, tmp_path: Path) -> None:
    torch.save({"params_ema": {"x": torch.zeros(1)}}, tmp_path / "net.pth")
    options = {"path:pretrain_network_g": str(tmp_path / "net.pth"), "path:param_key_g": "weights"}
    with pytest.raises(ConfigError, match=r"param_key_g: expected what .*net\.pth holds, 'params_ema', got 'weights'"):
        start(options=options)


@contextmanager
def as_anyone() -> Iterator[None]:
    """As a user without rights of their own, where the tests run as root."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_folders_without_permission() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        closed, file = Path(root, "closed"), Path(root, "net.pth")
        closed.mkdir()
        file.touch()
        assert may_be_read(closed)
        assert may_be_read(file)
        for path in (closed, file):
            path.chmod(0)
        with as_anyone():
            assert not may_be_read(closed)
            assert not may_be_read(file)
        closed.chmod(0o555)
        with as_anyone(), pytest.raises(ConfigError, match="closed, in which you may not write"):
            check_writable(closed)


# --------------------------------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize("data_set", ["CheckedPairedImageDataset", "HighResolutionImageDataset"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "got the empty file"),
        (b"\xef\xbb\xbf\r\n \r\n", "got the empty file"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"nowhere.png (96,96,3)\n", r"nowhere\.png"),
        (None, "no such file"),
    ],
)
def test_lists_that_cannot_be_used(
    data_set: str, text: bytes | None, message: str, pairs: Path, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        made(data_set, pairs / "train", meta_info_file=str(tmp_path / "list.txt"))


@pytest.mark.parametrize("data_set", ["CheckedPairedImageDataset", "HighResolutionImageDataset"])
def test_a_list_of_windows_is_read(data_set: str, pairs: Path, tmp_path: Path) -> None:
    first, second, _ = sorted(path.name for path in (pairs / "train/HR").iterdir())
    (tmp_path / "list.txt").write_bytes(f"\ufeff{first} (128,128,3)\r\n\r\n{second}\r\n".encode())
    found = made(data_set, pairs / "train", meta_info_file=str(tmp_path / "list.txt"))
    assert [Path(found[index]["gt_path"]).name for index in range(len(found))] == [first, second]
    assert read_listing(tmp_path / "list.txt") == [(first, (128, 128)), (second, None)]


def test_a_list_of_pairs_of_another_scale(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(min(path.name for path in (pairs / "train/HR").iterdir()))
    with pytest.raises(DataError, match="meta_info_file: 1 of 1 pairs cannot be used at scale 2"):
        made("CheckedPairedImageDataset", pairs / "train", meta_info_file=str(tmp_path / "list.txt"), scale=2)


def made(data_set: str, folder: Path, **options: Any) -> Any:
    """A data set to train on, of ours."""
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    registry = import_basicsr("basicsr.utils.registry").DATASET_REGISTRY
    here = {"dataroot_gt": str(folder / "HR"), "io_backend": {"type": "disk"}, "gt_size": 32, "scale": 4}
    here |= {"use_hflip": False, "use_rot": False, "phase": "train", "name": "demo"}
    if data_set.startswith("Checked"):
        here["dataroot_lq"] = str(folder / "LRx4")
    return registry.get(data_set)({**here, **options})


@pytest.fixture(scope="module")
def databases(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs as lmdb."""
    folder = tmp_path_factory.mktemp("lmdb")
    make = import_basicsr("basicsr.utils.lmdb_util").make_lmdb_from_imgs
    for kind in ("HR", "LRx4"):
        files = sorted((pairs / "train" / kind).iterdir())
        make(str(files[0].parent), str(folder / f"{kind}.lmdb"), [f.name for f in files], [f.stem for f in files])
    return folder


def of_lmdb(folder: Path, **options: Any) -> Any:
    backend = {"io_backend": {"type": "lmdb"}, "dataroot_gt": str(folder / "HR.lmdb")}
    return made("CheckedPairedImageDataset", folder, dataroot_lq=str(folder / "LRx4.lmdb"), **backend, **options)


def test_lmdb_are_looked_at(databases: Path, tmp_path: Path) -> None:
    assert len(of_lmdb(databases)) == 3
    with pytest.raises(DataError, match=r"3 of 3 pairs of the lmdb cannot be used at scale 2: .* in HR and"):
        of_lmdb(databases, scale=2)
    folder = tmp_path / "copy"
    shutil.copytree(databases, folder)
    listing, data = folder / "HR.lmdb/meta_info.txt", folder / "HR.lmdb/data.mdb"
    lines = listing.read_text().splitlines()
    listing.write_text("\n".join([*lines, "more.png (96,96,3) 1"]))
    with pytest.raises(DataError, match=r"1 of 4 keys of .*meta_info\.txt are not in the lmdb: more"):
        of_lmdb(folder)
    listing.write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match=r"the same keys in both lmdb, got 2 in .* in one alone"):
        of_lmdb(folder)
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(DataError, match="is cut off"):
        of_lmdb(folder)
    data.write_bytes(b"no lmdb" * 4096)
    with pytest.raises(DataError, match="cannot be read"):
        of_lmdb(folder)
    data.unlink()
    with pytest.raises(DataError, match=r"has no data\.mdb"):
        of_lmdb(folder)
    shutil.rmtree(folder / "LRx4.lmdb")
    with pytest.raises(DataError, match=r"LRx4\.lmdb does not exist"):
        of_lmdb(folder)
