"""One image of an archive: read, checked, cropped, made smaller, cut, and written. Runs in the worker processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch

from contrastive_sr._checks import describe_error
from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import open_image, read_rgb, turning
from contrastive_sr.data.prepare.parts import Files, Job, Layout, Source
from contrastive_sr.degradations.functional import bicubic_downsample
from contrastive_sr.errors import DataError

_COMPRESSION = 3  # OpenCV's: half the time of Pillow's 6, files a tenth larger


def write_image(job: Job) -> Files | str:
    """Write all files of one image; or return why it cannot be used, and then nothing is written."""
    try:
        return _write(job.source, job.layout, job.out)
    except DataError as error:
        return str(error)


def matlab_bicubic(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Shrink an image as MATLAB's `imresize` does after `im2double`, and rounds as MATLAB's `im2uint8`, halves up.

    In float64 the weights of x2, x4 and x8 and all sums with them are exact, so that the result is the same on any
    machine.

    Args:
        image: (H, W, 3), 0 to 255; sides multiples of the scale.
        scale: the downsampling factor.

    Returns:
        (H / scale, W / scale, 3), of 8 bits.
    """
    small = bicubic_downsample(image.permute(2, 0, 1)[None].double(), scale)[0].permute(1, 2, 0)
    return (small + 0.5).floor().clamp(0, 255).byte()


def _write(source: Source, layout: Layout, out: Path) -> Files:
    whole = _read(source.hr)
    height, width = (length // layout.multiple * layout.multiple for length in whole.shape[:2])
    least = 2 * max(layout.lr)
    if min(height, width) < least:
        raise DataError(
            f"{source.hr} is {whole.shape[1]} x {whole.shape[0]}; expected sides of at least "
            f"{-(-least // layout.multiple) * layout.multiple}. Take it out of the folder."
        )
    hr = whole[:height, :width]
    images = {layout.hr: (1, hr)}
    for scale, folder in layout.lr.items():
        lr = _own_lr(source, whole, scale) if scale in source.lr else matlab_bicubic(hr, scale)
        images[folder] = scale, lr[: height // scale, : width // scale]

    # all has been read and checked: from here on nothing but the disk can go wrong
    written: Files = {}
    for folder in images:
        (out / folder).mkdir(parents=True, exist_ok=True)
    if layout.cut is None:
        originals = {layout.hr: source.hr, **{layout.lr[scale]: path for scale, path in source.lr.items()}}
        for folder, (_, image) in images.items():
            written |= _save(image, out, f"{folder}/{source.name}.png", originals.get(folder))
        return written
    for number, (top, left, bottom, right) in enumerate(layout.cut.boxes(height, width), start=1):
        for folder, (scale, image) in images.items():
            piece = image[top // scale : bottom // scale, left // scale : right // scale]
            written |= _save(piece, out, f"{folder}/{source.name}_s{number:03d}.png", None)
    return written


def _read(path: Path) -> torch.Tensor:
    """(H, W, 3) of 8 bits; grey images as three equal channels."""
    try:
        image = read_rgb(path)[0]
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a decoder can fail in any way on a damaged file
        raise DataError(
            f"{path} cannot be read as an image ({describe_error(error)}). Replace it, or leave it out."
        ) from error
    return (image * 255).round().byte().permute(1, 2, 0).contiguous()


def _own_lr(source: Source, hr: torch.Tensor, scale: int) -> torch.Tensor:
    path = source.lr[scale]
    if not path.is_file():
        raise DataError(f"{source.hr} has no LR image at x{scale}: expected {path}. Add it, or take the HR image out.")
    lr = _read(path)
    if lr.shape[:2] != (hr.shape[0] // scale, hr.shape[1] // scale):
        hint = ""
        if lr.shape == hr.shape:
            hint = (
                " LR as large as HR is how RealSR was released before its version 3; take that one. Or, in folders HR "
                "and LR, prepare it with --scale 1."
            )
        raise DataError(
            f"{path} is {lr.shape[1]} x {lr.shape[0]}; expected {hr.shape[1] // scale} x {hr.shape[0] // scale}, as "
            f"{source.hr} is {hr.shape[1]} x {hr.shape[0]} and the scale {scale}.{hint}"
        )
    return lr


def _save(image: torch.Tensor, out: Path, name: str, original: Path | None) -> Files:
    from PIL import Image

    path = out / name
    with atomic_write(path, sync=False) as unfinished:  # of thousands; the journal tells which are whole
        if original is not None and _is_as_wanted(original, image):
            _take_over(original, unfinished)
        else:
            Image.fromarray(np.ascontiguousarray(image.numpy())).save(unfinished, "PNG", compress_level=_COMPRESSION)
    return {name: (path.stat().st_size, image.shape[0], image.shape[1])}


def _is_as_wanted(original: Path, image: torch.Tensor) -> bool:
    """Whether a file need not be written anew: a PNG of this size, in RGB, without what readers warn of or turn by."""
    with open_image(original) as header:
        return (
            header.format == "PNG"
            and header.mode == "RGB"
            and header.size == (image.shape[1], image.shape[0])
            and not {"icc_profile", "transparency"} & header.info.keys()
            and not turning(header)
            and _ends_as_png(original)
        )


def _ends_as_png(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-8, os.SEEK_END)
        return stream.read(4) == b"IEND"


def _take_over(original: Path, path: Path) -> None:
    """A second name for the same bytes on the disk, where the file system can do it, or else a copy."""
    path.unlink(missing_ok=True)
    try:
        os.link(original.resolve(), path)
    except OSError:
        shutil.copyfile(original, path)
