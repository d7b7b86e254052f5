"""Finds the images of DIV2K, Flickr2K, or of any folder, and decides where each goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from contrastive_sr._checks import few
from contrastive_sr.data.images import IMAGE_SUFFIXES, find_images, is_hidden
from contrastive_sr.data.prepare.parts import Cut, Layout, Part, Source, by_name, checked_scales, plain_name
from contrastive_sr.errors import ConfigError, DataError

DIV2K_PAGE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
FLICKR2K_PAGE = "https://github.com/limbee/NTIRE2017"
_BENCHMARK_MULTIPLE = 12
"""Test images are cropped to a multiple of it in the literature, so that one set serves x2, x3 and x4."""


def folder_parts(source: Path, out: Path, scales: Sequence[int], cut: Cut | None, test: bool) -> list[Part]:
    """Any folder of HR images, with those in folders below it.

    Args:
        source: the folder.
        out: root of the data set; its name is that of the data set.
        scales: of the LR images.
        cut: how images are cut, or None if they stay whole.
        test: whole images, in the folders of a test set (`GTmod12`, `LRbicx4`).

    Raises:
        ConfigError: scales or sub-images of an unsuitable size.
        DataError: no images, or two that would be written under one name.
    """
    cut = None if test else cut
    scales = checked_scales(scales, cut)
    if not source.is_dir():
        raise DataError(f"Expected a folder of HR images at {source}, but there is none.")
    files = images_in(source, below=True)
    if not files:
        raise DataError(
            f"Expected HR images in {source}, but no file there or below ends in one of {', '.join(IMAGE_SUFFIXES)}."
        )
    names = {file: plain_name(file.relative_to(source)) for file in files}
    sources = [Source(name, file, {}) for name, file in sorted(by_name(files, names).items())]
    multiple, name = math.lcm(*scales), out.resolve().name
    if test:
        multiple = math.lcm(_BENCHMARK_MULTIPLE, multiple)
        hr, lr = f"GTmod{multiple}", {scale: f"LRbicx{scale}" for scale in scales}
    else:
        hr, lr = _training_folders(f"{name}_train", scales, cut)
    meta = f"meta_info_{name}{'_test' if test else 'sub' if cut else ''}_GT.txt"
    return [Part("test images" if test else "images", Layout(hr, lr, cut, multiple), sources, meta)]


def div2k_parts(source: Path, scales: Sequence[int], cut: Cut) -> list[Part]:
    """DIV2K's training images, cut, and its validation images, whole.

    Args:
        source: folder with `DIV2K_train_HR`, or with a folder `DIV2K` that has it.
        scales: of the LR images.
        cut: how training images are cut.

    Raises:
        ConfigError: scales or sub-images of an unsuitable size.
        DataError: `source` is no such folder.
    """
    scales = checked_scales(scales, cut)
    root = _root_of(source, "DIV2K", "DIV2K_train_HR")
    if root is None:
        raise DataError(
            f"Expected a folder with DIV2K_train_HR in it, got {source} with {content(source)}. Download "
            f"DIV2K_train_HR.zip, and if you like DIV2K_train_LR_bicubic_X4.zip and DIV2K_valid_HR.zip, from "
            f"{DIV2K_PAGE}, extract them into one folder, and name that one."
        )
    multiple = math.lcm(*scales)
    hr, lr = _training_folders("DIV2K_train", scales, cut)
    parts = [
        _archive_part(
            "training images", root, "DIV2K_train", Layout(hr, lr, cut, multiple), "meta_info_DIV2K800sub_GT.txt", 800
        )
    ]
    if (root / "DIV2K_valid_HR").is_dir():
        whole = Layout("DIV2K_valid/HR", {scale: f"DIV2K_valid/LRx{scale}" for scale in scales}, None, multiple)
        parts.append(
            _archive_part("validation images", root, "DIV2K_valid", whole, "meta_info_DIV2K100_valid_GT.txt", 100)
        )
    return parts


def flickr2k_parts(source: Path, scales: Sequence[int], cut: Cut) -> list[Part]:
    """Flickr2K's images, cut.

    Args:
        source: folder with `Flickr2K_HR`, or with a folder `Flickr2K` that has it.
        scales: of the LR images.
        cut: how images are cut.

    Raises:
        ConfigError: scales or sub-images of an unsuitable size.
        DataError: `source` is no such folder.
    """
    scales = checked_scales(scales, cut)
    root = _root_of(source, "Flickr2K", "Flickr2K_HR")
    if root is None:
        raise DataError(
            f"Expected a folder with Flickr2K_HR in it, got {source} with {content(source)}. Download Flickr2K.tar "
            f"(linked at {FLICKR2K_PAGE}), extract it, and name the folder Flickr2K."
        )
    hr, lr = _training_folders("Flickr2K", scales, cut)
    layout = Layout(hr, lr, cut, math.lcm(*scales))
    return [_archive_part("images", root, "Flickr2K", layout, "meta_info_Flickr2K2650sub_GT.txt", 2650)]


def _training_folders(name: str, scales: Sequence[int], cut: Cut | None) -> tuple[str, dict[int, str]]:
    """Folders named as those of DIV2K usually are, which option files and configs look for."""
    end = "_sub" if cut else ""
    return f"{name}_HR{end}", {scale: f"{name}_LR_bicubic/X{scale}{end}" for scale in scales}


def _archive_part(title: str, root: Path, name: str, layout: Layout, meta: str, count: int) -> Part:
    """Images of DIV2K or Flickr2K, with the archive's LR images for those scales whose folder is there."""
    hr_folder = root / f"{name}_HR"
    files = images_in(hr_folder)
    if not files:
        raise DataError(f"Expected images in {hr_folder}, but there are none. Extract the archive anew.")
    named = by_name(files, {file: plain_name(Path(file.name)) for file in files})
    lr_folders = {scale: folder for scale in layout.lr if (folder := root / f"{name}_LR_bicubic/X{scale}").is_dir()}
    sources = [
        Source(key, file, {scale: folder / f"{file.stem}x{scale}{file.suffix}" for scale, folder in lr_folders.items()})
        for key, file in sorted(named.items())
    ]
    wanted = {path for source in sources for path in source.lr.values()}
    alone = [path for folder in lr_folders.values() for path in images_in(folder) if path not in wanted]
    notes = []
    if len(files) != count:
        notes.append(f"{hr_folder} has {len(files)} images; the whole archive has {count}")
    return Part(title, layout, sources, meta, notes, alone)


def images_in(folder: Path, below: bool = False) -> list[Path]:
    """Image files, without hidden ones and those that macOS puts into archives; none if there is no such folder."""
    return find_images(folder, recursive=below) or []


def _root_of(source: Path, name: str, wanted: str) -> Path | None:
    """The folder that has `wanted` in it: the one given, one below it, or the one above if `wanted` itself is given."""
    for root in (source, source / name, *([source.parent] if source.name == wanted else [])):
        if (root / wanted).is_dir():
            return root
    return None


def content(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder" if not folder.exists() else "a file, no folder"
    names = sorted(path.name for path in folder.iterdir() if not is_hidden(path.name))
    return few(names) if names else "nothing in it"


def check_apart(parts: Sequence[Part], out: Path, source: Path, below: bool) -> None:
    """Require that nothing is written where images are read.

    Args:
        parts: what is written.
        out: root of the data set.
        source: where images are looked for.
        below: folders below `source` are looked into as well.

    Raises:
        ConfigError: a folder would be read and written.
    """
    read = {path.parent.resolve() for part in parts for item in part.sources for path in item.files}
    for part in parts:
        for folder in part.layout.folders:
            goal = (out / folder).resolve()
            if goal in read or (below and goal.is_relative_to(source.resolve())):
                raise ConfigError(
                    f"Expected to write elsewhere than images are read, got {source} to read and {out / folder} to "
                    "write. Choose another OUT."
                )
