"""Image files: listed, read, and checked; Pillow or OpenCV is imported where a file is opened."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contrastive_sr._install import install
from contrastive_sr.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from torch import Tensor

UInt8Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
"""Endings of files that count as images."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""What may be in them. Pillow knows others too, some of which it gives to programs such as Ghostscript."""
_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_ORIENTATION = 0x0112  # of EXIF
_BITS = 0x0102  # a channel, of TIFF
_ON_ITS_SIDE = (5, 6, 7, 8)


def digest_of_file(path: Path) -> str:
    """16 digits that tell a file's content from others.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Replace it, or leave it out.") from error


def list_images(
    folder: str | Path,
    *,
    suffixes: str | Sequence[str] | None = IMAGE_SUFFIXES,
    recursive: bool = False,
    hint: Callable[[Path], str] = lambda folder: "",
) -> list[Path]:
    """The images in a folder, sorted by name; files and folders that :func:`is_hidden` names are passed over.

    Args:
        folder: where to look.
        suffixes: endings of image files, in upper or lower case; None: all files.
        recursive: look into folders below as well.
        hint: gives, for a relative folder that is missing, a sentence to add to the error, such as how to make it.

    Raises:
        DataError: the folder is missing, cannot be read, or has no image in it.
    """
    folder = Path(folder)
    images = find_images(folder, suffixes, recursive)
    if images is None:
        raise DataError(
            f"Expected a folder of images at {folder} (below {Path.cwd()}), but there is none. "
            f"Check the path; relative ones start at the folder the command is run in.{hint(folder)}"
            if not folder.is_absolute()
            else f"Expected a folder of images at {folder}, but there is none. Check the path."
        )
    if not images:
        raise DataError(
            f"Expected images in {folder}, but there is no file that ends in one of "
            f"{', '.join(dict.fromkeys(_endings(suffixes)))}."
        )
    return images


def find_images(
    folder: Path, suffixes: str | Sequence[str] | None = IMAGE_SUFFIXES, recursive: bool = False
) -> list[Path] | None:
    """As :func:`list_images`; an empty list if there is no image, and None if there is no such folder.

    Raises:
        DataError: the folder, or one below it that is looked into, cannot be read.
    """
    endings = _endings(suffixes)
    images = []

    def refuse(error: OSError) -> None:
        raise error

    try:
        if not folder.is_dir():
            return None
        for place, below, files in os.walk(folder, onerror=refuse):
            paths = [Path(place, name) for name in files if not is_hidden(name)]
            # a link that leads nowhere is an image that is missing, and its reader will say so
            paths = [path for path in paths if path.is_file() or path.is_symlink()]
            images += [path for path in paths if path.name.lower().endswith(endings)]
            below[:] = [name for name in below if not is_hidden(name)] if recursive else []
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be read ({error.strerror}). Check its name and permissions."
        ) from error
    return sorted(images)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over wherever images are listed: names that begin with a dot, as those that
    macOS writes beside images on foreign disks (`._0001.png`), and what it puts into archives (`__MACOSX`).

    Example:
        >>> is_hidden("._0001.png"), is_hidden("0001.png")
        (True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def _endings(suffixes: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(suffix.lower() for suffix in ((suffixes,) if isinstance(suffixes, str) else suffixes or ("",)))


@contextmanager
def open_image(file: str | Path, *, own: bool = False) -> Iterator[PillowImage]:
    """An image file as Pillow opens it, by its content and whatever its ending; errors in the block name the file.

    Args:
        file: PNG, JPEG, BMP, TIFF, WebP or PPM.
        own: a file that we wrote, and that may be larger than Pillow lets others be.

    Raises:
        DataError: Pillow is not installed, or the file is missing, damaged, of another format, or larger than Pillow's
            limits for pixels or texts.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError(f"Pillow is not installed. Try: {install('demo')}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half its limit
            limit = Image.MAX_IMAGE_PIXELS
            try:
                Image.MAX_IMAGE_PIXELS = None if own else limit
                opened = Image.open(file, formats=_FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with opened:
            yield opened
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{file} cannot be read as an image (unknown format: none of {', '.join(_FORMATS)}). Replace it, or leave "
            "it out."
        ) from error
    except Exception as error:  # what damaged files make Pillow raise has no common base
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{file} cannot be read as an image ({reason}). Replace it, or leave it out.") from error


def image_size(file: str | Path) -> tuple[int, int]:
    """Width and height of an image that :func:`read_rgb` takes, turned as its camera says.

    The header is read alone, so that damage behind it is not noticed; of an image with an alpha channel all of it, to
    see whether it is opaque.

    Raises:
        DataError: see :func:`read_rgb`.
    """
    with open_image(file) as image:
        _check_header(image, file)
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow have turned it by now
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            width, height = tags[256], tags[257]
        if _orientation(image) in _ON_ITS_SIDE:
            width, height = height, width
        _check_opaque(image, file)
    return width, height


def read_rgb(file: Path, *, own: bool = False) -> Tensor:
    """Read an image of 8 bits, grey or in colour, turned as its camera says.

    Args:
        file: PNG, JPEG, BMP, TIFF, WebP or PPM, whatever its ending.
        own: see :func:`open_image`.

    Returns:
        (1, 3, H, W) in [0, 1].

    Raises:
        DataError: Pillow is not installed, or the file is damaged, of another format, too large, or has 16 bits a
            channel, transparent parts or colours that are not RGB.
    """
    with open_image(file, own=own) as opened:
        from PIL import ImageOps

        _check_header(opened, file)
        image = ImageOps.exif_transpose(opened)
        _check_opaque(image, file)
        return as_tensor(np.array(image.convert("RGB")))


def _check_header(image: PillowImage, file: str | Path) -> None:
    """Refuse what Pillow, or OpenCV in a training, would read otherwise than it is meant."""
    if _is_deep(image):
        raise DataError(
            f"{file} has more than 8 bits a channel; expected 8. Convert it first, in the way that you choose."
        )
    if image.mode not in _MODES:
        raise DataError(f"{file}: expected a grey or RGB image, got one of mode {image.mode}. Convert it to RGB first.")
    if image.format == "WEBP" and _orientation(image) != 1:
        raise DataError(
            f"{file}: expected an upright image, got a WebP file with a note to turn it, which OpenCV passes over. "
            "Save it upright."
        )


def _is_deep(image: PillowImage) -> bool:
    """Whether it has more than 8 bits a channel, which Pillow and OpenCV cut off from images without a word."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF" and max(image.tag_v2.get(_BITS, (1,))) > 8:  # type: ignore[attr-defined]
        return True
    for _, _, _, arguments in image.tile:  # type: ignore[attr-defined]
        for argument in arguments if isinstance(arguments, tuple) else (arguments,):
            if image.format in ("PNG", "TIFF", "PPM") and isinstance(argument, str) and ";16" in argument:
                return True
            if image.format == "PPM" and isinstance(argument, int) and argument > 255:  # its largest value
                return True
    return False


def _orientation(image: PillowImage) -> int:
    # asked for its EXIF, a PNG without one would be read whole
    if image.format == "PNG" and not turning(image):
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


def turning(image: PillowImage) -> bool:
    """Whether the header has a note that may tell how to turn the image: EXIF, or XMP, which Pillow obeys as well."""
    return not {"exif", "xmp", "XML:com.adobe.xmp"}.isdisjoint(image.info)


def _check_opaque(image: PillowImage, file: str | Path) -> None:
    may_be_transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if may_be_transparent and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise DataError(f"{file} has transparent parts; expected an opaque image. Put it on a background first.")


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
