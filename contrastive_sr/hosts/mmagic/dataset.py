"""Paired LR and HR images, and HR images alone, checked before training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmagic.datasets import BasicImageDataset
from mmcv.transforms import BaseTransform

from contrastive_sr._checks import check_count
from contrastive_sr.data.crops import two_corners
from contrastive_sr.data.images import check_readable, is_hidden, list_images
from contrastive_sr.data.pairs import check_high_resolution, check_pairs
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.mmagic.registry import DATASETS, TRANSFORMS
from contrastive_sr.hosts.prepared import how_to_prepare


class CheckedDataset(BasicImageDataset):
    """What both datasets share: files are checked first, sorted by name, and named in the error if damaged."""

    def prepare_data(self, idx: int) -> Any:
        """As in the host; whatever goes wrong because of a damaged image is an error that names it."""
        try:
            return super().prepare_data(idx)
        except Exception:
            entry = self.get_data_info(idx)
            for key in self.data_prefix:
                path = entry[f"{key}_path"]
                if self._local:
                    check_readable(Path(path).read_bytes(), path)
            raise

    @property
    def _local(self) -> bool:
        """Whether there are files to check, as opposed to an lmdb or remote storage."""
        return self.backend_args is None or self.backend_args.get("backend") == "local"

    def _look(self) -> dict[str, list[Path]]:
        """All images of each folder."""
        there = {
            key: list_images(folder, suffixes=self.img_suffix, recursive=self.recursive, hint=how_to_prepare)
            for key, folder in self.data_prefix.items()
        }
        if self.use_ann_file and not Path(self.ann_file).is_file():
            raise DataError(f"Expected the list of images {self.ann_file}, but there is no such file.")
        return there

    def _entries(self) -> list[dict[str, Any]]:
        """What the host lists. Without a list of its own it takes the order of the file system, which may differ from
        one copy of a folder to the next."""
        entries: list[dict[str, Any]] = super().load_data_list()
        if self._local and not self.use_ann_file:
            entries.sort(key=lambda entry: str(entry["gt_path"]))
            entries = [entry for entry in entries if not any(map(is_hidden, Path(entry["key"]).parts))]
        return entries


@DATASETS.register_module()
class PairedImageDataset(CheckedDataset):
    """MMagic's `BasicImageDataset` for pairs (`data_prefix=dict(img=LR, gt=HR)`) that checks its files at the start.

    `BasicImageDataset` lists the LR folder alone: it silently leaves out HR images without a partner, and a wrong
    size is an error only when the batch with it comes up.

    Args:
        scale: how many times larger HR is.
        check_sizes: read every image's header: about 0.1 ms an image on a local disk. Switch it off on a slow one.
        **kwargs: those of `BasicImageDataset`, which refuses unknown ones.

    Raises:
        ConfigError: `data_prefix` has not the two entries `img` and `gt`.
        DataError: a folder is missing or empty, images have no partner, cannot be read, or HR is not LR times `scale`.
    """

    def __init__(self, scale: int, check_sizes: bool = True, **kwargs: Any) -> None:
        prefixes = kwargs.get("data_prefix")
        if not isinstance(prefixes, dict) or set(prefixes) != {"img", "gt"}:
            raise ConfigError(f"Expected data_prefix=dict(img=<LR folder>, gt=<HR folder>), got {prefixes!r}.")
        self.scale, self.check_sizes = scale, check_sizes
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As in the host, after the folders and before the files have been checked."""
        if not self._local:
            return self._entries()
        there = self._look()
        entries = self._entries()
        lr_files, hr_files = ([entry[f"{key}_path"] for entry in entries] for key in ("img", "gt"))
        if self.use_ann_file:  # a list may leave images out
            check_pairs(hr_files, lr_files, self.scale, check_sizes=self.check_sizes)
        else:
            check_pairs(
                hr_files, lr_files, self.scale, hr_all=there["gt"], lr_all=there["img"], check_sizes=self.check_sizes
            )
        return entries


@DATASETS.register_module()
class HighResolutionImageDataset(CheckedDataset):
    """HR images alone (`data_prefix=dict(gt=HR)`), for models whose `degradation` makes the LR images on the device.

    The pipeline loads and crops `gt` and ends with `PackInputs()`. For methods that compare two crops of an image it
    has `contrastive_sr.TwoCrops` for `Crop`, and at the end `PackInputs(keys=["gt", "gt_key"])`.

    Args:
        patch_size: height and width of the pipeline's patches; images must be no smaller, for which `Crop` itself would
            make smaller patches.
        check_sizes: read every image's header: about 0.1 ms an image on a local disk. Switch it off on a slow one.
        **kwargs: those of `BasicImageDataset`, which refuses unknown ones.

    Raises:
        ConfigError: `data_prefix` has not the one entry `gt`.
        DataError: the folder is missing or empty, or images are too small or cannot be read.
    """

    def __init__(self, patch_size: int, check_sizes: bool = True, **kwargs: Any) -> None:
        prefixes = kwargs.get("data_prefix")
        if not isinstance(prefixes, dict) or set(prefixes) != {"gt"}:
            raise ConfigError(f"Expected data_prefix=dict(gt=<HR folder>), got {prefixes!r}.")
        self.patch_size, self.check_sizes = check_count(patch_size, "patch_size"), check_sizes
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As in the host, after the folder and before the files have been checked."""
        if self._local:
            self._look()
        entries = self._entries()
        if self._local and self.check_sizes:
            check_high_resolution([entry["gt_path"] for entry in entries], self.patch_size)
        return entries


@TRANSFORMS.register_module()
class TwoCrops(BaseTransform):
    """Two crops of `gt`, as `gt` and `gt_key`, for methods that compare two crops of an image.

    They overlap only in images with no room for two (:func:`contrastive_sr.data.two_corners`).

    Args:
        patch_size: height and width of the crops.

    Raises:
        ConfigError: a size below 1.
        DataError: an image is smaller.
    """

    def __init__(self, patch_size: int) -> None:
        self.patch_size = check_count(patch_size, "patch_size")

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The same entries, with `gt` cropped and `gt_key` beside."""
        image, size = results["gt"], self.patch_size
        height, width = image.shape[:2]
        if min(height, width) < size:
            raise DataError(f"TwoCrops: expected images of at least {size} x {size} pixels, got {height} x {width}.")
        for key, (top, left) in zip(("gt", "gt_key"), two_corners(height, width, size, np.random.randint), strict=True):
            results[key] = image[top : top + size, left : left + size]
        return results
