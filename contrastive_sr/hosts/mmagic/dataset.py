"""Paired LR and HR images, checked before training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmagic.datasets import BasicImageDataset

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.mmagic.registry import DATASETS
from contrastive_sr.hosts.pairs import check_pairs, list_images


@DATASETS.register_module()
class PairedImageDataset(BasicImageDataset):
    """MMagic's `BasicImageDataset` for pairs (`data_prefix=dict(img=LR, gt=HR)`) that checks its files at the start.

    `BasicImageDataset` lists the LR folder alone: HR images without a partner are left out in silence, and a wrong size
    is found when the batch with it comes up.

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
        local = self.backend_args is None or self.backend_args.get("backend") == "local"
        if not local:  # lmdb and remote storage: there are no files to look at
            found: list[dict[str, Any]] = super().load_data_list()
            return found
        there = {
            key: list_images(self.data_prefix[key], suffixes=self.img_suffix, recursive=self.recursive)
            for key in ("img", "gt")
        }
        if self.use_ann_file and not Path(self.ann_file).is_file():
            raise DataError(f"Expected the list of images {self.ann_file}, but there is no such file.")
        entries: list[dict[str, Any]] = super().load_data_list()
        if not self.use_ann_file:
            # the host takes the order of the file system, which may differ from one copy of a folder to the next
            entries.sort(key=lambda entry: str(entry["gt_path"]))
        lr_files, hr_files = ([entry[f"{key}_path"] for entry in entries] for key in ("img", "gt"))
        if self.use_ann_file:  # a list may leave images out
            check_pairs(hr_files, lr_files, self.scale, check_sizes=self.check_sizes)
        else:
            check_pairs(
                hr_files, lr_files, self.scale, hr_all=there["gt"], lr_all=there["img"], check_sizes=self.check_sizes
            )
        return entries
