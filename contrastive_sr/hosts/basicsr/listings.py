"""BasicSR's lists of images, ``meta_info`` files and lmdb, looked at as folders are: before a training starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from contrastive_sr._checks import describe_error, few
from contrastive_sr.data.prepare.databases import check_database
from contrastive_sr.errors import ConfigError, DataError


class Listed(NamedTuple):
    """An image of a list.

    Attributes:
        name: of its file.
        size: height and width; None where the list does not say.
    """

    name: str
    size: tuple[int, int] | None


def read_listing(listing: Path, *, spaces: bool = False) -> list[Listed]:
    """The images that a ``meta_info`` file names: the first word of each line, and then perhaps ``(H,W,C)``.

    Args:
        listing: the file.
        spaces: whether names may have spaces, as BasicSR takes them in the list of an lmdb.

    Raises:
        DataError: it is missing, no text in UTF-8, or names nothing.
    """
    try:
        text = listing.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark
    except FileNotFoundError as error:
        raise DataError(f"Expected the list of images {listing}, but there is no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list of images {listing} cannot be read ({describe_error(error)}).") from error
    images = []
    for line in filter(None, map(str.strip, text.splitlines())):
        size = re.search(r"\((\d+), ?(\d+)(?:, ?\d+)?\)", line)
        name = line[: size.start() if size else None].strip() if spaces else line.split()[0]
        images.append(Listed(name, (int(size[1]), int(size[2])) if size else None))
    if not images:
        raise DataError(f"Expected a list of images, one in each line, got the empty file {listing}.")
    return images


def read_lmdb(folder: Path, key_of: Callable[[str], str]) -> dict[str, tuple[int, int] | None]:
    """The keys of an lmdb, each of which is in it, to height and width, where its list says them.

    Args:
        folder: of the lmdb.
        key_of: the key of an image of this name.

    Raises:
        ConfigError: a folder that BasicSR does not take for an lmdb.
        DataError: a part is missing, cut off or no lmdb, or keys of the list are not in it.
    """
    import lmdb

    if folder.suffix != ".lmdb":
        raise ConfigError(f"io_backend: lmdb: expected a folder with a name that ends in .lmdb, got {folder}.")
    if not (folder / "data.mdb").is_file():
        raise DataError(f"Expected an lmdb in {folder}, but it has no data.mdb. Make it anew.")
    check_database(folder)
    keys = {key_of(image.name): image.size for image in read_listing(folder / "meta_info.txt", spaces=True)}
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False) as database,
            database.begin(buffers=True) as transaction,
        ):
            missing = [key for key in keys if transaction.get(key.encode()) is None]
    except lmdb.Error as error:
        raise DataError(f"The lmdb in {folder} cannot be read ({describe_error(error)}). Make it anew.") from error
    if missing:
        raise DataError(
            f"{len(missing)} of {len(keys)} keys of {folder / 'meta_info.txt'} are not in the lmdb: {few(missing)}. "
            "Expected the names of its images, each without its ending. Make both anew."
        )
    return keys


def check_lmdb_pairs(hr_folder: Path, lr_folder: Path, scale: int, *, cropped: bool, least: int) -> None:
    """Check that two lmdb have the same keys, and sizes that fit, as far as their lists say them.

    Args:
        hr_folder: lmdb of the HR images.
        lr_folder: lmdb of the LR images.
        scale: how many times larger HR is.
        cropped: HR may be larger by less than ``scale`` pixels.
        least: least height and width of an HR image.

    Raises:
        ConfigError: see :func:`read_lmdb`.
        DataError: see :func:`read_lmdb`; other keys, or other sizes.
    """
    hr, lr = (read_lmdb(folder, lambda name: name.split(".")[0]) for folder in (hr_folder, lr_folder))
    if alone := sorted(hr.keys() ^ lr.keys()):
        raise DataError(
            f"Expected the same keys in both lmdb, got {len(hr)} in {hr_folder} and {len(lr)} in {lr_folder}; in one "
            f"alone: {few(alone)}. Make them anew of pairs with one name each."
        )
    problems = [key for key in hr if not _fits(hr, lr, key, scale, cropped, least)]
    if problems:
        shown = few([f"{key} is {_size(hr[key])} in HR and {_size(lr[key])} in LR" for key in problems])
        raise DataError(
            f"{len(problems)} of {len(hr)} pairs of the lmdb cannot be used at scale {scale}: {shown}. Expected HR "
            f"exactly {scale} times as high and wide as LR, and at least {least} x {least}. Correct the scale, or make "
            "them anew."
        )


def _fits(
    hr: Mapping[str, tuple[int, int] | None],
    lr: Mapping[str, tuple[int, int] | None],
    key: str,
    scale: int,
    cropped: bool,
    least: int,
) -> bool:
    large, small = hr[key], lr[key]
    if large is None or small is None:
        return True
    excess = [long - short * scale for long, short in zip(large, small, strict=True)]
    fits = all(0 <= pixels < scale for pixels in excess) if cropped else excess == [0, 0]
    return fits and min(large) >= least


def _size(size: tuple[int, int] | None) -> str:
    return "unknown" if size is None else f"{size[1]} x {size[0]}"
