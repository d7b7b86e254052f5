"""Checks of image folders, done before a training starts; for both hosts, and without them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from contrastive_sr.errors import ConfigError, DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
MANIFEST = "degradations.json"
"""Beside the folders of a set of degraded images: how each was made."""
_SHOWN = 3
_PREPARED = {"DIV2K": "div2k SRC", "Flickr2K": "flickr2k SRC", "DF2K": "flickr2k SRC", "demo": "demo"}
_PREPARED |= {"RealSR_x4": "realsr SRC"} | {name: f"folder SRC datasets/{name} --test" for name in ("Set5", "Set14")}


def how_to_prepare(folder: str | Path) -> str:
    """A sentence with the command that writes a folder of the shipped configs; empty for any other.

    Example:
        >>> how_to_prepare("data/DIV2K/DIV2K_train_HR_sub")
        ' `contrastive-sr prepare div2k SRC` writes it.'
    """
    below = [name for root, name in pairwise(Path(folder).parts) if root in ("datasets", "data")]
    found = next((_PREPARED[name] for name in below if name in _PREPARED), None)
    return "" if found is None else f" `contrastive-sr prepare {found}` writes it."


def list_images(
    folder: str | Path, *, suffixes: str | Sequence[str] | None = IMAGE_SUFFIXES, recursive: bool = False
) -> list[Path]:
    """Returns the images in a folder, sorted by name.

    Args:
        folder: where to look.
        suffixes: endings of image files, in any case; all files if None.
        recursive: look into folders below as well.

    Raises:
        DataError: the folder is missing or has no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"Expected a folder of images at {folder} (below {Path.cwd()}), but there is none. "
            f"Check the path in the config; relative ones start at the folder the command is run in."
            f"{how_to_prepare(folder)}"
            if not folder.is_absolute()
            else f"Expected a folder of images at {folder}, but there is none. Check the path in the config."
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


def pair_folders(
    hr_folder: str | Path,
    lr_folder: str | Path,
    scale: int,
    *,
    lr_name: str = "{}",
    cropped: bool = False,
    least: int = 1,
) -> list[tuple[Path, Path]]:
    """Pairs the images of two folders by name, as BasicSR does, and checks them.

    Args:
        hr_folder: folder of the HR images.
        lr_folder: folder of the LR images.
        scale: how many times larger HR is, at least 1.
        lr_name: name of an LR image made from that of its HR image, both without ending: `{}` if they are equal, `{}x4`
            if `0001.png` belongs to `0001x4.png`. The endings must be equal.
        cropped: HR may be larger by less than `scale` pixels, which the host cuts off.
        least: least height and width of an HR image, in pixels.

    Returns:
        (HR file, LR file) for each pair, sorted by HR name.

    Raises:
        ConfigError: `lr_name` is no such template.
        DataError: see `list_images` and `check_pairs`.
    """
    try:
        named = lr_name.format("0001") != lr_name
    except (LookupError, ValueError):
        named = False
    if not named:
        raise ConfigError(
            f"filename_tmpl: expected a template with {{}} for the HR name, such as '{{}}x4', got {lr_name!r}."
        )
    hr_all, lr_all = list_images(hr_folder), list_images(lr_folder)
    lr_files = [Path(lr_folder, lr_name.format(path.stem) + path.suffix) for path in hr_all]
    check_pairs(hr_all, lr_files, scale, hr_all=hr_all, lr_all=lr_all, cropped=cropped, least=least)
    return list(zip(hr_all, lr_files, strict=True))


def check_pairs(
    hr_files: Sequence[str | Path],
    lr_files: Sequence[str | Path],
    scale: int,
    *,
    hr_all: Iterable[str | Path] | None = None,
    lr_all: Iterable[str | Path] | None = None,
    check_sizes: bool = True,
    cropped: bool = False,
    least: int = 1,
) -> None:
    """Checks that every HR image has its LR image, and that HR is `scale` times larger.

    Only headers are read, so that an image cut off in the middle is not found. Grey images pass: both hosts read them
    as three equal channels.

    Args:
        hr_files: the HR images.
        lr_files: the LR images, in the same order.
        scale: how many times larger HR is, at least 1.
        hr_all: all HR images there are, if none may be left without a partner.
        lr_all: all LR images there are, likewise.
        check_sizes: read the header of every image.
        cropped: HR may be larger by less than `scale` pixels.
        least: least height and width of an HR image, in pixels.

    Raises:
        DataError: no pairs at all, images without a partner, unreadable ones, or a size that does not fit.
    """
    if len(hr_files) != len(lr_files):
        raise DataError(f"Expected as many LR images as HR images, got {len(lr_files)} LR and {len(hr_files)} HR.")
    if not hr_files:
        raise DataError("Expected at least one pair of HR and LR images, got none.")
    hr, lr = [Path(path) for path in hr_files], [Path(path) for path in lr_files]
    _check_partners(hr, lr, hr_all, lr_all)
    if not check_sizes:
        return
    problems = [
        problem for pair in zip(hr, lr, strict=True) if (problem := _size_problem(*pair, scale, cropped, least))
    ]
    if problems:
        raise DataError(
            f"{len(problems)} of {len(hr)} pairs cannot be used at scale {scale}: {_few(problems, '; ')}. Expected "
            f"readable images, HR exactly {scale} times as wide and high as LR. Crop HR to a multiple of {scale} and "
            "make LR anew, or correct the scale in the config."
        )


def check_high_resolution(files: Sequence[str | Path], least: int) -> None:
    """Checks that every HR image is large enough for the patches of a training. Only headers are read.

    Args:
        files: the HR images.
        least: height and width of the patches, in pixels.

    Raises:
        DataError: unreadable images, or smaller ones.
    """
    problems = []
    for path in map(Path, files):
        size = _size_or_problem(path)
        if isinstance(size, str):
            problems.append(size)
        elif min(size) < least:
            problems.append(f"{path.name} is {size[0]} x {size[1]}")
    if problems:
        raise DataError(
            f"{len(problems)} of {len(files)} HR images cannot be used: {_few(problems, '; ')}. Expected readable "
            f"images, no smaller than the patches of {least} x {least}. Take them out, make the patches smaller, or "
            "correct the path if this is a folder of LR images."
        )


def _check_partners(
    hr: Sequence[Path], lr: Sequence[Path], hr_all: Iterable[str | Path] | None, lr_all: Iterable[str | Path] | None
) -> None:
    hr_there, lr_there = (
        {path for path in files if path.is_file()} if there is None else {Path(path) for path in there}
        for files, there in ((hr, hr_all), (lr, lr_all))
    )
    pairs = list(zip(hr, lr, strict=True))
    whole = [pair for pair in pairs if pair[0] in hr_there and pair[1] in lr_there]
    hr_alone, lr_alone = sorted(hr_there - {pair[0] for pair in whole}), sorted(lr_there - {pair[1] for pair in whole})
    nowhere = [pair[0].name for pair in pairs if pair[0] not in hr_there and pair[1] not in lr_there]
    if hr_alone or lr_alone or nowhere:
        parts = [
            f"{label}: {_few([str(name) for name in names], ', ')}"
            for label, names in (
                ("HR without LR", [path.name for path in hr_alone]),
                ("LR without HR", [path.name for path in lr_alone]),
                ("neither there", nowhere),
            )
            if names
        ]
        raise DataError(
            f"Expected one LR image for each HR image, got {len(hr_there)} HR images in {hr[0].parent} and "
            f"{len(lr_there)} LR images in {lr[0].parent}. {'. '.join(parts)}. Add what is missing or remove the "
            "others; an LR image has the name of its HR image, in the form that filename_tmpl gives it."
        )


def _size_problem(hr: Path, lr: Path, scale: int, cropped: bool, least: int) -> str | None:
    sizes = []
    for path in (hr, lr):
        size = _size_or_problem(path)
        if isinstance(size, str):
            return size
        sizes.append(size)
    (hr_width, hr_height), (lr_width, lr_height) = sizes
    if min(hr_width, hr_height) < least:
        return f"{hr.name} is {hr_width} x {hr_height}, smaller than the patches of {least} x {least}"
    excess = hr_width - lr_width * scale, hr_height - lr_height * scale
    if excess == (0, 0) or (cropped and all(0 <= pixels < scale for pixels in excess)):
        return None
    return f"{hr.name} is {hr_width} x {hr_height} in HR and {lr_width} x {lr_height} in LR"


def _size_or_problem(path: Path) -> tuple[int, int] | str:
    """Width and height of an image, or why it has none."""
    from PIL import Image

    try:
        with Image.open(path) as image:  # reads the header only
            return image.size
    except OSError as error:  # Pillow's UnidentifiedImageError is one
        return f"{path} cannot be read as an image ({error.strerror or 'unknown format'})"


def _few(texts: Collection[str], separator: str) -> str:
    shown = separator.join(list(texts)[:_SHOWN])
    return shown if len(texts) <= _SHOWN else f"{shown}{separator}and {len(texts) - _SHOWN} more"
