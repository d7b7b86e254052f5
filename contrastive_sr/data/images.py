"""Image files: listed, read, and checked; Pillow or OpenCV is imported where a file is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from contrastive_sr._install import install
from contrastive_sr.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

UInt8Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
RGB_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of the files that :func:`read_rgb` takes."""
IMAGE_SUFFIXES = (*RGB_SUFFIXES, ".ppm")
"""Endings of all files that count as images."""


def list_images(
    folder: str | Path,
    *,
    suffixes: str | Sequence[str] | None = IMAGE_SUFFIXES,
    recursive: bool = False,
    hint: Callable[[Path], str] = lambda folder: "",
) -> list[Path]:
    """The images in a folder, sorted by name.

    Args:
        folder: where to look.
        suffixes: endings of image files, in upper or lower case; None: all files.
        recursive: look into folders below as well.
        hint: gives, for a relative folder that is missing, a sentence to add to the error, such as how to make it.

    Raises:
        DataError: the folder is missing or has no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"Expected a folder of images at {folder} (below {Path.cwd()}), but there is none. "
            f"Check the path; relative ones start at the folder the command is run in.{hint(folder)}"
            if not folder.is_absolute()
            else f"Expected a folder of images at {folder}, but there is none. Check the path."
        )
    endings = tuple(suffix.lower() for suffix in ((suffixes,) if isinstance(suffixes, str) else suffixes or ("",)))
    files = folder.rglob("*") if recursive else folder.iterdir()
    images = sorted(path for path in files if path.name.lower().endswith(endings) and path.is_file())
    if not images:
        raise DataError(
            f"Expected images in {folder}, but there is no file that ends in one of "
            f"{', '.join(dict.fromkeys(endings))}."
        )
    return images


def read_rgb(file: Path) -> Tensor:
    """Read an image of 8 bits, grey or in colour, turned as its camera says.

    Args:
        file: one that ends in one of :data:`RGB_SUFFIXES`.

    Returns:
        (1, 3, H, W) in [0, 1].

    Raises:
        DataError: Pillow is not installed, or the file is damaged, has 16 bits a channel, transparent parts or colours
            that are not RGB.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(f"Pillow is not installed. Try: {install('demo')}") from error
    try:
        with file.open("rb") as stream:
            header = stream.read(26)
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image ({error}). Replace it, or leave it out.") from error
    # Pillow cuts colour images of 16 bits down to 8 without a word, so the file itself is asked
    if (header.startswith(b"\x89PNG") and header[24] == 16) or image.mode.startswith(("I", "F")):
        raise DataError(
            f"{file} has more than 8 bits a channel; expected 8. Convert it first, in the way that you choose."
        )
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        raise DataError(f"{file}: expected a grey or RGB image, got one of mode {image.mode}. Convert it to RGB first.")
    may_be_transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if may_be_transparent and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise DataError(f"{file} has transparent parts; expected an opaque image. Put it on a background first.")
    return as_tensor(np.array(image.convert("RGB")))


def as_tensor(image: UInt8Image) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def as_image(x: Tensor) -> UInt8Image:
    """(1, 3, H, W) in [0, 1], clamped and rounded, to (H, W, 3) uint8."""
    image: UInt8Image = (x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return image


def check_readable(data: bytes, path: str | Path) -> None:
    """Refuse an image file that OpenCV cannot decode; OpenCV itself gives None for it, and the error comes later.

    Args:
        data: content of the file.
        path: its name, for the message.

    Raises:
        DataError: it is empty, cut off, damaged, or no image.
    """
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file
        image = None
    if image is None:
        raise DataError(
            f"{path} cannot be read as an image: {len(data)} bytes that are damaged, cut off or none. Replace it, or "
            "take it out of the folder; what has been saved so far is whole, and the training can be resumed."
        )
