"""Finds the images of DIV2K, Flickr2K, RealSR, or of any folder, and decides where each goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from contrastive_sr.data.images import IMAGE_SUFFIXES
from contrastive_sr.data.prepare.parts import (
    LR_SUFFIX,
    Cut,
    Layout,
    Part,
    Source,
    by_name,
    checked_scales,
    few,
    plain_name,
)
from contrastive_sr.errors import ConfigError, DataError

DIV2K_PAGE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
FLICKR2K_PAGE = "https://github.com/limbee/NTIRE2017"
REALSR_PAGE = "https://github.com/csjcai/RealSR"
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
    files = _images(source, below=True)
    if not files:
        raise DataError(
            f"Expected HR images in {source}, but no file there or below ends in one of {', '.join(IMAGE_SUFFIXES)}."
        )
    names = {file: plain_name(file.relative_to(source)) for file in files}
    sources = [Source(name, file, {}) for name, file in sorted(by_name(files, names).items())]
    multiple, name = math.lcm(*scales), out.name
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
            f"Expected a folder with DIV2K_train_HR in it, got {source} with {_content(source)}. Download "
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
            f"Expected a folder with Flickr2K_HR in it, got {source} with {_content(source)}. Download Flickr2K.tar "
            f"(linked at {FLICKR2K_PAGE}), extract it, and name the folder Flickr2K."
        )
    hr, lr = _training_folders("Flickr2K", scales, cut)
    layout = Layout(hr, lr, cut, math.lcm(*scales))
    return [_archive_part("images", root, "Flickr2K", layout, "meta_info_Flickr2K2650sub_GT.txt", 2650)]


def realsr_parts(source: Path, scale: int, cut: Cut | None) -> list[Part]:
    """RealSR's pairs of photos of both cameras, or pairs in folders HR and LR.

    Args:
        source: the release (`Canon/Train/4/Canon_001_HR.png`), or a folder with `train/HR`, `train/LR`, `test/HR` and
            `test/LR`, or with `HR` and `LR`, which are taken for training.
        scale: of the pairs.
        cut: how training images are cut, or None if they stay whole.

    Raises:
        ConfigError: a scale or sub-images of an unsuitable size.
        DataError: `source` is no such folder.
    """
    checked_scales([scale], cut)
    pairs = {kind: _real_pairs(source, kind, scale) for kind in ("train", "test")}
    if not any(hr for hr, _ in pairs.values()):
        raise DataError(
            f"Expected RealSR's folders (Canon/Train/{scale} with Canon_001_HR.png and Canon_001_LR{scale}.png, and so "
            f"on), or folders train/HR and train/LR, or HR and LR, got {source} with {_content(source)}. Download "
            f"version 3 of RealSR (linked at {REALSR_PAGE}), extract it, and name the folder with Canon and Nikon."
        )
    parts = []
    for kind, title in (("train", "training pairs"), ("test", "test pairs")):
        hr, lr = pairs[kind]
        if hr:
            sources = [Source(name, file, {scale: lr.pop(name, _lr_beside(file, scale))}) for name, file in hr.items()]
            layout = Layout(f"{kind}/HR", {scale: f"{kind}/LR"}, cut if kind == "train" else None, scale)
            meta = f"meta_info_RealSR_x{scale}_{kind}_GT.txt"
            notes = [] if pairs["test"][0] else ["there are no test pairs, which the shipped configs validate on"]
            parts.append(Part(title, layout, sources, meta, notes, sorted(lr.values())))
    return parts


def _training_folders(name: str, scales: Sequence[int], cut: Cut | None) -> tuple[str, dict[int, str]]:
    """Folders named as those of DIV2K usually are, which option files and configs look for."""
    end = "_sub" if cut else ""
    return f"{name}_HR{end}", {scale: f"{name}_LR_bicubic/X{scale}{end}" for scale in scales}


def _archive_part(title: str, root: Path, name: str, layout: Layout, meta: str, count: int) -> Part:
    """Images of DIV2K or Flickr2K, with the archive's LR images for those scales whose folder is there."""
    hr_folder = root / f"{name}_HR"
    files = _images(hr_folder)
    if not files:
        raise DataError(f"Expected images in {hr_folder}, but there are none. Extract the archive anew.")
    named = by_name(files, {file: plain_name(Path(file.name)) for file in files})
    lr_folders = {scale: folder for scale in layout.lr if (folder := root / f"{name}_LR_bicubic/X{scale}").is_dir()}
    sources = [
        Source(key, file, {scale: folder / f"{file.stem}x{scale}{file.suffix}" for scale, folder in lr_folders.items()})
        for key, file in sorted(named.items())
    ]
    wanted = {path for source in sources for path in source.lr.values()}
    alone = [path for folder in lr_folders.values() for path in _images(folder) if path not in wanted]
    notes = []
    if len(files) != count:
        notes.append(f"{hr_folder} has {len(files)} images; the whole archive has {count}")
    return Part(title, layout, sources, meta, notes, alone)


def _real_pairs(source: Path, kind: str, scale: int) -> tuple[dict[str, Path], dict[str, Path]]:
    """HR and LR images by their names without `_HR` and `_LR4`."""
    hr: list[Path] = []
    lr: list[Path] = []
    names: dict[Path, str] = {}
    for root in [source, *sorted(source.glob("RealSR*"))]:
        for camera in ("Canon", "Nikon"):
            for file in _images(root / camera / kind.capitalize() / str(scale)):
                name = LR_SUFFIX.sub("", file.stem)
                names[file] = plain_name(Path(name if name.startswith(camera) else f"{camera}_{name}"))
                (hr if file.stem.endswith("_HR") else lr).append(file)
    if not hr:
        roots = [source / kind, source / kind.capitalize(), *([source] if kind == "train" else [])]
        pair = next((root for root in roots if (root / "HR").is_dir() and (root / "LR").is_dir()), None)
        if pair is not None:
            hr, lr = _images(pair / "HR"), _images(pair / "LR")
            names = {file: plain_name(Path(LR_SUFFIX.sub("", file.stem))) for file in (*hr, *lr)}
    return dict(sorted(by_name(hr, names).items())), by_name(lr, names)


def _lr_beside(hr: Path, scale: int) -> Path:
    """Where the missing LR image of an HR image should be."""
    return hr.parent.parent / "LR" / hr.name if hr.parent.name == "HR" else hr.with_stem(
        LR_SUFFIX.sub(f"_LR{scale}", hr.stem)
    )  # fmt: skip


def _images(folder: Path, below: bool = False) -> list[Path]:
    """Image files, without hidden ones and those that macOS puts into archives."""
    if not folder.is_dir():
        return []
    files = folder.rglob("*") if below else folder.iterdir()
    return sorted(
        path
        for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _root_of(source: Path, name: str, wanted: str) -> Path | None:
    """The folder that has `wanted` in it: the one given, one below it, or the one above if `wanted` itself is given."""
    for root in (source, source / name, *([source.parent] if source.name == wanted else [])):
        if (root / wanted).is_dir():
            return root
    return None


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder" if not folder.exists() else "a file, no folder"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
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
