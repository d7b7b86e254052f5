"""What `contrastive-sr prepare` writes, read by the hosts' own classes and trained on with the shipped options."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contrastive_sr.data.demo import photo_path
from contrastive_sr.data.prepare import archives, pairs
from contrastive_sr.data.prepare.links import join_df2k
from contrastive_sr.data.prepare.parts import Cut
from contrastive_sr.data.prepare.run import prepare
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.prepared import link_for_other_host

PROJECT = Path(__file__).resolve().parents[2]
CUT = Cut(96, 48)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `datasets` and `data` as the commands write them: DIV2K, Flickr2K, DF2K, RealSR and Set5."""
    root = tmp_path_factory.mktemp("prepared")
    raw, datasets = root / "raw", root / "datasets"
    photos = []
    for name in ("astronaut.png", "coffee.png"):
        with Image.open(photo_path(name)) as photo:
            photos.append(photo.convert("RGB").resize((144, 120), Image.Resampling.BICUBIC))
    for index, photo in enumerate(photos, start=1):
        for path in (
            f"DIV2K/DIV2K_train_HR/{index:04d}.png",
            f"Flickr2K/Flickr2K_HR/{index:06d}.png",
            f"Set5/{index}.png",
            f"RealSR/Canon/Train/4/Canon_{index:03d}_HR.png",
            f"RealSR/Nikon/Test/4/Nikon_{index:03d}_HR.png",
        ):
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            photo.save(raw / path)
            if path.endswith("_HR.png"):
                photo.resize((36, 30)).save(raw / path.replace("_HR.png", "_LR4.png"))
    sets = {
        "DIV2K": archives.div2k_parts(raw, [4], CUT),
        "Flickr2K": archives.flickr2k_parts(raw, [4], CUT),
        "RealSR_x4": pairs.paired_parts(pairs.REALSR, raw / "RealSR", 4, None),
        "Set5": archives.folder_parts(raw / "Set5", datasets / "Set5", [4], None, True),
    }
    for name, parts in sets.items():
        assert prepare(parts, datasets / name, name, lmdb=True).problems == []
        link_for_other_host(datasets / name)
    assert join_df2k(datasets / "Flickr2K") is not None
    link_for_other_host(datasets / "DF2K")
    return root


def expected(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Images of a folder by their names without ending."""
    images = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            images[path.stem] = np.array(image.convert("RGB"))
    return images


@pytest.mark.basicsr
@pytest.mark.parametrize("way", ["folder", "list", "lmdb"])
def test_basicsr_reads_pairs(prepared: Path, way: str) -> None:
    root = prepared / "datasets/DIV2K"
    hr, lr = root / "DIV2K_train_HR_sub", root / "DIV2K_train_LR_bicubic/X4_sub"
    options: dict[str, Any] = {"phase": "val", "scale": 4, "io_backend": {"type": "disk"}, "filename_tmpl": "{}"}
    options |= {"dataroot_gt": str(hr), "dataroot_lq": str(lr)}
    if way == "list":
        options["meta_info_file"] = str(root / "meta_info_DIV2K800sub_GT.txt")
    if way == "lmdb":
        names = "DIV2K_train_HR_sub", "DIV2K_train_LR_bicubic_X4_sub"
        options |= {key: str(root / f"{n}.lmdb") for key, n in zip(("dataroot_gt", "dataroot_lq"), names, strict=True)}
        options["io_backend"] = {"type": "lmdb"}
    dataset = import_basicsr("basicsr.data.paired_image_dataset").PairedImageDataset(options)
    images = expected(hr), expected(lr)
    seen = set()
    for pair in (dataset[index] for index in range(len(dataset))):
        name = Path(pair["gt_path"]).stem
        seen.add(name)
        for key, by_name in zip(("gt", "lq"), images, strict=True):
            assert np.array_equal((pair[key].permute(1, 2, 0).numpy() * 255).round(), by_name[name])
    assert len(dataset) == len(seen) == 2 * len(CUT.boxes(120, 144))


@pytest.mark.mmagic
@pytest.mark.parametrize("way", ["folder", "list", "lmdb"])
def test_mmagic_reads_pairs(prepared: Path, way: str) -> None:
    from mmagic.registry import DATASETS

    root = prepared / "data/DIV2K"
    backend: dict[str, Any] = {"img": {}, "gt": {}}
    if way == "lmdb":
        for key, name in (("img", "DIV2K_train_LR_bicubic_X4_sub"), ("gt", "DIV2K_train_HR_sub")):
            backend[key] = {"backend_args": {"backend": "lmdb", "db_path": str(root / f"{name}.lmdb")}}
    load = {"type": "LoadImageFromFile", "channel_order": "rgb", "imdecode_backend": "cv2"}
    options = dict(
        _scope_="mmagic",
        type="BasicImageDataset",
        ann_file="" if way == "folder" else "meta_info_DIV2K800sub_GT.txt",
        data_root=str(root),
        data_prefix={"img": "DIV2K_train_LR_bicubic/X4_sub", "gt": "DIV2K_train_HR_sub"},
        filename_tmpl={"img": "{}", "gt": "{}"},
        pipeline=[{"key": key, **load, **backend[key]} for key in ("img", "gt")],
    )
    dataset = DATASETS.build(options)
    images = {"gt": expected(root / "DIV2K_train_HR_sub"), "img": expected(root / "DIV2K_train_LR_bicubic/X4_sub")}
    seen = set()
    for pair in (dataset[index] for index in range(len(dataset))):
        seen.add(pair["key"])
        assert all(np.array_equal(pair[key], images[key][pair["key"]]) for key in images)
    assert len(dataset) == len(seen) == 2 * len(CUT.boxes(120, 144))


@pytest.mark.basicsr
@pytest.mark.parametrize("name", ["pcl_rcan", "dasr_x4", "mpf_net_x4", "cria_rrdb_x4"])
def test_folders_are_where_basicsr_s_shipped_options_look(
    prepared: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contrastive_sr.hosts.basicsr.datasets  # noqa: F401
    from tests.hosts.basicsr_options import read_options

    monkeypatch.chdir(prepared)
    registry = import_basicsr("basicsr.utils.registry").DATASET_REGISTRY
    for phase, options in read_options(name)["datasets"].items():
        if "Set14" in options["dataroot_gt"]:
            continue  # of `prepare degrade`
        options |= {"phase": phase, "scale": 4, "gt_size": 64}
        assert len(registry.get(options["type"])(options)) > 0


@pytest.mark.mmagic
@pytest.mark.parametrize("name", ["pcl_rcan", "dasr_x4", "mpf_net_x4", "cria_rrdb_x4"])
def test_folders_are_where_mmagic_s_shipped_configs_look(
    prepared: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmagic.registry import DATASETS
    from mmengine.config import Config

    import contrastive_sr.hosts.mmagic  # noqa: F401

    monkeypatch.chdir(prepared)
    config = Config.fromfile(PROJECT / f"configs/{name}.py")
    for loader in (config.train_dataloader, config.val_dataloader):
        if "Set14" not in loader.dataset.data_root:
            options = {"_scope_": "mmagic", **loader.dataset}
            if "patch_size" in options:
                options["patch_size"] = 64
            assert len(DATASETS.build(options)) > 0


@pytest.mark.basicsr
def test_a_shipped_option_file_trains_on_it(
    prepared: Path, command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "datasets").symlink_to(prepared / "datasets")
    small = (
        "train:total_iter=1 datasets:train:batch_size_per_gpu=2 datasets:train:gt_size=32 num_gpu=0 "
        "datasets:train:num_worker_per_gpu=0 network_g:num_feat=8 network_g:num_block=1 val:val_freq=1"
    )
    done = command_line("train", PROJECT / "plugins/pcl_edsr.yml", "--force_yml", *small.split(), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert (tmp_path / "experiments/PCL_EDSR_x4_DIV2K/models/net_g_latest.pth").is_file()


@pytest.mark.mmagic
def test_a_shipped_config_trains_on_it(
    prepared: Path, command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(prepared / "data")
    small = (
        "train_cfg.max_iters=1 train_cfg.val_interval=1 train_dataloader.batch_size=2 train_dataloader.num_workers=0 "
        "train_dataloader.dataset.pipeline.3.gt_patch_size=32 val_dataloader.num_workers=0 "
        "model.generator.mid_channels=8 model.generator.num_blocks=1"
    )
    done = command_line("train", PROJECT / "configs/pcl_edsr.py", "--cfg-options", *small.split(), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert (tmp_path / "work_dirs/pcl_edsr/iter_1.pth").is_file()
