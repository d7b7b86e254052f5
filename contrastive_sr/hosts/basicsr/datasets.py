"""Datasets for BasicSR that check their folders before training starts: pairs, and HR images alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.transforms import augment
from basicsr.utils import FileClient, imfrombytes, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY

from contrastive_sr._checks import check_count
from contrastive_sr.config import missing
from contrastive_sr.data.crops import two_corners
from contrastive_sr.data.images import IMAGE_SUFFIXES, check_readable, is_hidden, list_images
from contrastive_sr.data.pairs import check_high_resolution, check_pairs, check_template, pair_folders
from contrastive_sr.errors import ConfigError, DataError, named_in_errors
from contrastive_sr.hosts.basicsr.listings import check_lmdb_pairs, read_listing, read_lmdb
from contrastive_sr.hosts.prepared import how_to_prepare


@DATASET_REGISTRY.register()
class CheckedPairedImageDataset(PairedImageDataset):
    """``PairedImageDataset`` with the same options; folders that do not fit each other end in one clear error.

    Images are read as BasicSR reads them, grey ones as three equal channels. Refused are those that it would read
    otherwise than they are meant: more than 8 bits a channel, transparent parts, colours that are not RGB.

    Args:
        opt: BasicSR's dataset options.

    Raises:
        ConfigError: a folder is not named.
        DataError: a folder, a list or an lmdb is missing or damaged, or the images do not make pairs. Later: an image
            is damaged.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        name = opt.get("name", "without a name")
        training = opt["phase"] == "train"
        needed = ["dataroot_gt", "dataroot_lq", "io_backend", "scale", *(["gt_size"] if training else [])]
        backend = _check_keys(opt, name, needed)
        # Validation crops HR images to a multiple of the LR size.
        least = check_count(opt["gt_size"], f"dataset {name}: gt_size") if training else 1
        if training and least % opt["scale"]:
            raise ConfigError(
                f"dataset {name}: gt_size: expected a multiple of {opt['scale']}, the scale, got {least}. "
                f"Try {least - least % opt['scale'] + opt['scale']}."
            )
        hr_folder, lr_folder = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
        if backend == "disk" and not opt.get("meta_info_file"):
            lr_name = opt.get("filename_tmpl", "{}")
            check_template(lr_name, f"dataset {name}: filename_tmpl")
            pair_folders(
                hr_folder,
                lr_folder,
                opt["scale"],
                lr_name=lr_name,
                cropped=not training,
                least=least,
                hint=how_to_prepare,
            )
            self._refuse_other_files(hr_folder, lr_folder)
        for folder in (hr_folder, lr_folder):
            if not folder.exists():
                raise DataError(f"dataset {name}: {folder} does not exist. Check dataroot_gt and dataroot_lq.")
        if backend == "lmdb":
            with named_in_errors(f"dataset {name}"):
                check_lmdb_pairs(hr_folder, lr_folder, opt["scale"], cropped=not training, least=least)
        listed = None
        if backend == "disk" and opt.get("meta_info_file"):
            with named_in_errors(f"dataset {name}: meta_info_file"):
                listed = _listed_pairs(opt, hr_folder, lr_folder, cropped=not training, least=least)
        super().__init__(opt)
        if listed is not None:
            self.paths = listed  # BasicSR's own have entries for empty lines, and marks in names

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pair; see BasicSR."""
        try:
            pair: dict[str, Any] = super().__getitem__(index)
        except Exception:
            if self.file_client is not None:
                for key in ("gt", "lq"):
                    path = self.paths[index][f"{key}_path"]
                    check_readable(self.file_client.get(path, key), path)
            raise
        return pair

    @staticmethod
    def _refuse_other_files(*folders: Path) -> None:
        for folder in folders:
            others = sorted(p.name for p in folder.iterdir() if p.is_file() and not is_hidden(p.name))
            others = [name for name in others if not name.lower().endswith(IMAGE_SUFFIXES)]
            if others:
                raise DataError(
                    f"BasicSR takes every file in {folder} for an image, but {others[0]} is none. Move it away."
                )


@DATASET_REGISTRY.register()
class HighResolutionImageDataset(torch.utils.data.Dataset):
    """HR images alone, for trainings whose ``degradation:`` makes the LR images on the device.

    Gives ``gt``, a random crop, and with ``crops: 2`` also ``gt_key``, another crop of the same image with the same
    flips, for methods that compare two crops under one degradation; they overlap only in images with no room for two
    (:func:`contrastive_sr.data.two_corners`). Images are read as BasicSR reads them, grey ones as three equal channels;
    more than 8 bits a channel, transparent parts and colours that are not RGB are refused.

    Args:
        opt: dataset options as those of BasicSR's ``PairedImageDataset`` (``dataroot_gt``, ``io_backend``,
            ``meta_info_file``, ``gt_size``, ``use_hflip``, ``use_rot``), without ``dataroot_lq``, and ``crops``.

    Raises:
        ConfigError: a key is missing or makes no sense, or this is no dataset to train on.
        DataError: a folder, list or lmdb is missing, images are smaller than ``gt_size`` or cannot be read. Later: an
            image is damaged.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        name = opt.get("name", "without a name")
        if opt["phase"] != "train":
            raise ConfigError(
                f"dataset {name}: HighResolutionImageDataset is for training. Validate on pairs, with "
                "CheckedPairedImageDataset; `contrastive-sr prepare degrade` makes such with degraded LR images."
            )
        if opt.get("dataroot_lq"):
            raise ConfigError(f"dataset {name}: HighResolutionImageDataset has no dataroot_lq. Take it out.")
        backend = _check_keys(opt, name, ["dataroot_gt", "io_backend", "gt_size"])
        self.opt = opt
        self.size = check_count(opt["gt_size"], f"dataset {name}: gt_size")
        self.crops = check_count(opt.get("crops", 1), f"dataset {name}: crops", at_most=2)
        self.root = Path(opt["dataroot_gt"])
        self.paths = _listed(opt, backend, self.root)
        if backend == "disk":
            check_high_resolution(self.paths, self.size)
        self.client: Any = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``gt`` and ``gt_key``, (3, gt_size, gt_size) RGB in [0, 1], and ``gt_path``."""
        if self.client is None:  # opened in the worker that uses it
            options = dict(self.opt["io_backend"])
            if options["type"] == "lmdb":
                options.update(db_paths=[str(self.root)], client_keys=["gt"])
            self.client = FileClient(options.pop("type"), **options)
        path = str(self.paths[index])
        data = self.client.get(path, "gt")
        try:
            image = imfrombytes(data, float32=False)
            crops = self._cropped(image, path)
        except Exception:
            check_readable(data, path)
            raise
        crops = augment(crops, self.opt.get("use_hflip", True), self.opt.get("use_rot", True))
        tensors = [img2tensor(crop).div_(255) for crop in (crops if isinstance(crops, list) else [crops])]
        return {**dict(zip(("gt", "gt_key"), tensors, strict=False)), "gt_path": path}

    def _cropped(self, image: np.ndarray, path: str) -> list[np.ndarray]:
        height, width = image.shape[:2]
        if min(height, width) < self.size:  # in an lmdb, whose images were not checked
            raise DataError(f"{path} is smaller than the patches of {self.size} x {self.size}. Take it out.")
        corners = two_corners(height, width, self.size, random.randrange)[: self.crops]
        # copies: augment() flips in place
        return [image[top : top + self.size, left : left + self.size].copy() for top, left in corners]


def _check_keys(opt: dict[str, Any], name: str, needed: Sequence[str]) -> str:
    """Require keys of a dataset's options, and return the type of its io_backend."""
    for key in needed:
        if not opt.get(key):
            raise ConfigError(f"dataset {name}: {missing(key, sorted(opt))}")
    backend = opt["io_backend"].get("type") if isinstance(opt["io_backend"], dict) else None
    if backend not in ("disk", "lmdb"):
        raise ConfigError(f"dataset {name}: expected io_backend: {{type: disk}} or lmdb, got {opt['io_backend']}.")
    return str(backend)


def _listed_pairs(opt: dict[str, Any], hr_folder: Path, lr_folder: Path, **sizes: Any) -> list[dict[str, str]]:
    """The pairs that a list names, checked, as BasicSR holds them."""
    template = opt.get("filename_tmpl", "{}")
    check_template(template, "filename_tmpl")
    hr_files = [hr_folder / image.name for image in read_listing(Path(opt["meta_info_file"]))]
    lr_files = [lr_folder / (template.format(hr.stem) + hr.suffix) for hr in hr_files]
    check_pairs(hr_files, lr_files, opt["scale"], **sizes)
    return [{"gt_path": str(hr), "lq_path": str(lr)} for hr, lr in zip(hr_files, lr_files, strict=True)]


def _listed(opt: dict[str, Any], backend: str, root: Path) -> list[Path]:
    """The images of a folder, those that a list names of it, or the keys of an lmdb."""
    if backend == "disk" and not opt.get("meta_info_file"):
        return list_images(root, hint=how_to_prepare)
    if backend == "lmdb":
        return [Path(key) for key in read_lmdb(root, lambda name: str(Path(name).with_suffix("")))]
    return [root / image.name for image in read_listing(Path(opt["meta_info_file"]))]
