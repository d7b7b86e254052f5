"""Data sets to test on: folders of HR images, with LR images from files or made from HR; and LR photos alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from contrastive_sr.data.degraded import image_seed
from contrastive_sr.data.images import UInt8Image, as_image, as_tensor, list_images, read_rgb
from contrastive_sr.data.pairs import pair_folders
from contrastive_sr.degradations import Degradation, build_degradation, find_preset
from contrastive_sr.errors import DataError, named_in_errors, printable
from contrastive_sr.evaluation.evaluate import Pair, bicubic_pair, cropped

HR_FOLDERS = ("HR", "hr", "GT", "gt", "GTmod12")
"""How the folder of HR images inside a test set is often called."""


@dataclass(frozen=True)
class DataSet:
    """A folder of HR images, and where their LR images come from; or a folder of photos that have no HR images.

    Args:
        name: for the results.
        files: HR files; empty if there are none.
        lr_files: LR files, one for each; empty if LR is made from HR.
    """

    name: str
    files: Sequence[Path]
    lr_files: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.files or self.lr_files)


class LRSource(NamedTuple):
    """Where LR images come from.

    Attributes:
        make: makes a pair from the name and the pixels of an HR image; None if LR images are given as files.
        words: how, for a person.
    """

    make: Callable[[str, UInt8Image], Pair] | None
    words: str


def images_of(folder: Path, beside: Sequence[str] = ()) -> list[Path]:
    """The images of a folder that can be measured on.

    Args:
        folder: where to look.
        beside: names of folders below it that are proposed if it has no images itself.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise DataError(f"expected a folder of images, got {folder}, which {what}.")
    try:
        return list_images(folder)
    except DataError as error:
        below = [name for name in beside if (folder / name).is_dir()]
        raise DataError(f"{error} Did you mean {folder / below[0]}?" if below else str(error)) from error


def paired_lr(hr: Path, lr: Path, scale: int) -> list[Path]:
    """The LR files of a folder of HR images, named as these or, as in DIV2K, with the scale: `0001x4.png`.

    Args:
        hr: folder of HR images; they may be larger by less than ``scale`` pixels.
        lr: folder of their LR images.
        scale: how many times larger HR is.

    Raises:
        DataError: images that do not make pairs, see :func:`contrastive_sr.data.pair_folders`.
    """
    marked = f"{images_of(hr)[0].stem}x{scale}" in {path.stem for path in images_of(lr)}
    template = f"{{}}x{scale}" if marked else "{}"
    return [pair[1] for pair in pair_folders(hr, lr, scale, lr_name=template, cropped=True)]


def given_lr() -> LRSource:
    """LR images from files."""
    return LRSource(None, "given")


def bicubic_lr(scale: int) -> LRSource:
    """LR images by bicubic downsampling, see :func:`contrastive_sr.evaluation.bicubic_pair`."""
    return LRSource(lambda name, hr: bicubic_pair(name, hr, scale), "bicubic (MATLAB-style, antialiased, 8 bits)")


def degraded_lr(preset: str, scale: int, seed: int = 0) -> LRSource:
    """LR images by a preset, equal to what :func:`contrastive_sr.data.write_degraded` makes with the same seed.

    Args:
        preset: its name, see :func:`contrastive_sr.degradations.find_preset`.
        scale: the scale.
        seed: of the degradation.

    Raises:
        ConfigError: no such preset.
    """
    full = find_preset(preset, scale)
    degradation = build_degradation(full)
    return LRSource(lambda name, hr: _degraded(name, hr, degradation, seed), f"{full}, seed {seed}")


def _degraded(name: str, hr: UInt8Image, degradation: Degradation, seed: int) -> Pair:
    hr = cropped(hr, degradation.scale)
    generator = torch.Generator().manual_seed(image_seed(seed, Path(name).stem))
    return Pair(name, degradation(as_tensor(hr), generator).lr, hr)


def read_pairs(data: DataSet, source: LRSource, scale: int) -> Iterator[Pair]:
    """The pairs of a data set, read one after another.

    Args:
        data: the data set.
        source: where LR images come from.
        scale: how many times larger HR is.

    Raises:
        DataError: an image that cannot be read or used.
    """
    if not data.files:
        for file in data.lr_files:
            yield Pair(printable(file.name), read_rgb(file))
    for number, file in enumerate(data.files):
        hr = as_image(read_rgb(file))
        if source.make is None:
            lr = read_rgb(data.lr_files[number])
            yield Pair(printable(file.name), lr, hr[: lr.shape[2] * scale, : lr.shape[3] * scale])
        else:
            with named_in_errors(str(file)):
                pair = source.make(file.name, hr)
            yield pair._replace(name=printable(file.name))
