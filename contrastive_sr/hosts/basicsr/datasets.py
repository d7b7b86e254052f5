"""BasicSR's paired dataset, with a look at the folders before training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.pairs import IMAGE_SUFFIXES, pair_folders


@DATASET_REGISTRY.register()
class CheckedPairedImageDataset(PairedImageDataset):
    """``PairedImageDataset`` with the same options; folders that do not fit each other end in one clear error.

    Args:
        opt: BasicSR's dataset options.

    Raises:
        ConfigError: a folder is not named.
        DataError: a folder or an lmdb is missing, or the images in two folders do not make pairs.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        name = opt.get("name", "without a name")
        training = opt["phase"] == "train"
        for key in ("dataroot_gt", "dataroot_lq", "io_backend", "scale", *(["gt_size"] if training else [])):
            if not opt.get(key):
                raise ConfigError(f"dataset {name}: expected the key {key!r}, got {', '.join(sorted(opt))}.")
        backend = opt["io_backend"].get("type") if isinstance(opt["io_backend"], dict) else None
        if backend not in ("disk", "lmdb"):
            raise ConfigError(f"dataset {name}: expected io_backend: {{type: disk}} or lmdb, got {opt['io_backend']}.")
        hr_folder, lr_folder = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
        if backend == "disk" and not opt.get("meta_info_file"):
            lr_name = opt.get("filename_tmpl", "{}")
            # Validation crops HR images to a multiple of the LR size.
            least = opt["gt_size"] if training else 1
            pair_folders(hr_folder, lr_folder, opt["scale"], lr_name=lr_name, cropped=not training, least=least)
            self._refuse_other_files(hr_folder, lr_folder)
        for folder in (hr_folder, lr_folder):
            if not folder.exists():
                raise DataError(f"dataset {name}: {folder} does not exist. Check dataroot_gt and dataroot_lq.")
        super().__init__(opt)

    @staticmethod
    def _refuse_other_files(*folders: Path) -> None:
        for folder in folders:
            others = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
            others = [name for name in others if not name.lower().endswith(IMAGE_SUFFIXES)]
            if others:
                raise DataError(
                    f"BasicSR takes every file in {folder} for an image, but {others[0]} is none. Move it away."
                )
