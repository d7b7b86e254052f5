"""Photos super-resolved into files, in a way that can be stopped and gone on with, and a sheet to look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from contrastive_sr._checks import check_count
from contrastive_sr.data.files import atomic_write, remove_unfinished
from contrastive_sr.data.images import UInt8Image, as_image, digest_of_file, open_image, read_rgb
from contrastive_sr.errors import DataError, printable
from contrastive_sr.evaluation.comparison import CHECKING, NamedNetwork, check_networks, steepest
from contrastive_sr.evaluation.data_sets import images_of
from contrastive_sr.evaluation.evaluate import Pair, bicubic, super_resolve
from contrastive_sr.evaluation.report import spread
from contrastive_sr.evaluation.tiles import check_tiles

_NOTE = "contrastive-sr"
"""Key of the text in a PNG file that says what the image was made by."""
_PART = 96
"""Sides of what the sheet shows of an image, in SR pixels."""
_LETTERS = 32


def sr_files(folder: Path, out: Path) -> dict[Path, Path]:
    """The photos of a folder, and the files that their SR images go to: PNG, under the same names.

    Args:
        folder: of photos.
        out: another folder; it need not be there.

    Raises:
        DataError: a folder that is missing, empty or the same, or two photos with one name but for the ending.
    """
    files = images_of(folder)
    if out.resolve() == folder.resolve():
        raise DataError(f"expected another folder to write to than that of the photos, got {out} for both.")
    photos: dict[Path, Path] = {}
    for file in files:
        target = out / f"{file.stem}.png"
        if target in photos:
            raise DataError(f"{photos[target].name} and {file.name} would both become {target}. Rename one of them.")
        photos[target] = file
    return {file: target for target, file in photos.items()}


def upscale(
    network: NamedNetwork,
    files: Mapping[Path, Path],
    scale: int,
    *,
    made_by: str,
    tile: int | None = None,
    overlap: int = 32,
    device: torch.device | str = "cpu",
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> int:
    """Super-resolve photos into PNG files of 8 bits.

    A file appears when it is complete, with a text in it on what it was made of: the photo's digest, ``made_by``, scale
    and tiles. Where such a file is there already the photo is passed over, so that the same call goes on after a stop.
    All photos that are to be done, and all files that are there, are looked at before the first is super-resolved.

    Args:
        network: in evaluation mode, on the CPU; it is moved while it runs.
        files: photo to SR file, see :func:`sr_files`.
        scale: of the network.
        made_by: what tells this network with its weights from others, such as a digest of its checkpoint.
        tile: longest side of what the network is given, in LR pixels; None: whole photos.
        overlap: of tiles, in LR pixels.
        device: where the network runs.
        on_progress: called as (what, done, total) after each photo; what is
            :data:`~contrastive_sr.evaluation.comparison.CHECKING` or the network's name.

    Returns:
        How many files were written; the others were there.

    Raises:
        ConfigError: a network that fails, enlarges by another factor, is in training mode, or lacks memory.
        DataError: a photo that cannot be used, or a file that is there and was made of something else.
        NonFiniteError: the network gives NaN or infinity.
    """
    check_count(scale, "upscale(scale)")
    if tile is not None:
        check_tiles(tile, overlap)
    parts = "whole" if tile is None else f"in tiles of {tile} with an overlap of {overlap}"
    how = f"network {made_by}, x{scale}, {parts}"
    check_networks([network], scale, torch.device(device))
    missing = _missing(files, how, on_progress)
    for folder in {target.parent for target in files.values()}:
        remove_unfinished(folder)
    network.to(device)
    on_progress(network.name, 0, len(missing))
    for number, (file, note) in enumerate(missing.items(), 1):
        lr = read_rgb(file).to(device)
        with torch.inference_mode():
            sr = as_image(super_resolve(network.call, lr, scale, tile, overlap, file.name))
        files[file].parent.mkdir(parents=True, exist_ok=True)
        _write(files[file], sr, note, _profile(file))
        on_progress(network.name, number, len(missing))
    network.to("cpu")
    return len(missing)


def _missing(files: Mapping[Path, Path], how: str, on_progress: Callable[[str, int, int], None]) -> dict[Path, str]:
    """The photos whose files are not there, and what is to be noted in these."""
    missing = {}
    on_progress(CHECKING, 0, len(files))
    for number, (file, target) in enumerate(files.items(), 1):
        note = f"photo {digest_of_file(file)}, {how}"
        if not target.exists():
            read_rgb(file)  # a damaged one is named now and not after an hour
            missing[file] = note
        elif (found := _read_note(target)) != note:
            raise DataError(
                f"{target} is there, and was not made of this photo in this way: expected {note!r}, got "
                f"{'no such note' if found is None else repr(found)} in it. Choose another folder to write to, or take "
                "that file away."
            )
        on_progress(CHECKING, number, len(files))
    return missing


def _profile(file: Path) -> bytes | None:
    """The colour profile of a photo, without which its colours would look otherwise; not that of a grey image."""
    with open_image(file) as image:
        found = image.info.get("icc_profile")
        return found if isinstance(found, bytes) and image.mode in ("RGB", "RGBA", "P", "PA") else None


def _write(path: Path, image: UInt8Image, note: str, profile: bytes | None) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(_NOTE, note)
    with atomic_write(path) as unfinished:
        Image.fromarray(image).save(unfinished, "PNG", pnginfo=info, icc_profile=profile)


def _read_note(path: Path) -> str | None:
    """What a file was made of; None if it is none of ours."""
    try:
        with open_image(path, own=True) as image:
            note = image.info.get(_NOTE)
    except DataError:
        return None
    return note if isinstance(note, str) else None


def save_sheet(path: Path, files: Mapping[Path, Path], scale: int, count: int = 5) -> None:
    """Draw parts of a few photos where edges are steepest, enlarged bicubically and by the network beside each other.

    Needs matplotlib.

    Args:
        path: picture to write.
        files: photo to SR file, all of which are there.
        scale: of the network.
        count: how many photos, from the first to the last.
    """
    from contrastive_sr.evaluation.plots import save_grid

    photos = list(files)
    rows = []
    for number in sorted(spread(len(photos), count)):
        file = photos[number]
        pair = Pair(file.name, read_rgb(file))
        left, top, right, bottom = steepest(pair, scale, _PART)
        name = printable(file.name)
        name = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        images = {f"{name}\nbicubic": bicubic(scale)(pair.lr), "\nSR": read_rgb(files[file], own=True)}
        rows.append([(title, as_image(image)[top:bottom, left:right]) for title, image in images.items()])
    save_grid(path, rows)
