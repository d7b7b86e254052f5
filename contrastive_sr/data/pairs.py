"""Pairs of HR and LR images in two folders, and HR images alone: checked before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from contrastive_sr._checks import few
from contrastive_sr.data.images import image_size, list_images
from contrastive_sr.errors import ConfigError, DataError


def pair_folders(
    hr_folder: str | Path,
    lr_folder: str | Path,
    scale: int,
    *,
    lr_name: str = "{}",
    cropped: bool = False,
    least: int = 1,
    hint: Callable[[Path], str] = lambda folder: "",
) -> list[tuple[Path, Path]]:
    """Pair the images of two folders by name, and check them.

    Args:
        hr_folder: folder of the HR images.
        lr_folder: folder of the LR images.
        scale: how many times larger HR is, at least 1.
        lr_name: name of an LR image made from that of its HR image, both without ending: `{}` if they are equal, `{}x4`
            if `0001.png` belongs to `0001x4.png`. The endings must be equal.
        cropped: HR may be larger by less than `scale` pixels, which whoever reads it cuts off.
        least: least height and width of an HR image, in pixels.
        hint: a sentence to add to the error for a missing folder, see :func:`~contrastive_sr.data.list_images`.

    Returns:
        (HR file, LR file) for each pair, sorted by HR name.

    Raises:
        ConfigError: `lr_name` is no such template.
        DataError: see :func:`~contrastive_sr.data.list_images` and :func:`check_pairs`.
    """
    check_template(lr_name, "lr_name")
    hr_all, lr_all = list_images(hr_folder, hint=hint), list_images(lr_folder, hint=hint)
    lr_files = [Path(lr_folder, lr_name.format(path.stem) + path.suffix) for path in hr_all]
    check_pairs(hr_all, lr_files, scale, hr_all=hr_all, lr_all=lr_all, cropped=cropped, least=least)
    return list(zip(hr_all, lr_files, strict=True))


def check_template(template: object, name: str) -> None:
    """Require a template that makes the name of an LR image from that of its HR image.

    Args:
        template: such as `{}x4`.
        name: what it is called where it was given, for the message.

    Raises:
        ConfigError: there is no place in it for the HR image's name.
    """
    try:
        has_place = isinstance(template, str) and template.format("0001") != template
    except (LookupError, ValueError):
        has_place = False
    if not has_place:
        raise ConfigError(f"{name}: expected a template with {{}} for the HR name, such as '{{}}x4', got {template!r}.")


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
    """Check that every HR image has its LR image, and that HR is `scale` times larger.

    Only headers are read, so that an image cut off in the middle is not noticed; see
    :func:`contrastive_sr.data.images.image_size`. Grey images pass: they are read as three equal channels.

    Args:
        hr_files: the HR images.
        lr_files: the LR images, in the same order.
        scale: how many times larger HR is, at least 1.
        hr_all: all HR images there are, if none may be left without a partner.
        lr_all: all LR images there are, if none may be left without a partner.
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
            f"{len(problems)} of {len(hr)} pairs cannot be used at scale {scale}: {few(problems, '; ')}. Expected "
            f"readable images, HR exactly {scale} times as wide and high as LR. Crop HR to a multiple of {scale} and "
            "make LR anew, or correct the scale."
        )


def check_high_resolution(files: Sequence[str | Path], least: int) -> None:
    """Check that every HR image is large enough for the patches of a training. Only headers are read.

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
            f"{len(problems)} of {len(files)} HR images cannot be used: {few(problems, '; ')}. Expected readable "
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
            f"{label}: {few([str(name) for name in names])}"
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
            "others; an LR image has the name of its HR image, or what the template for file names makes of it."
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
    try:
        return image_size(path)
    except DataError as error:
        return str(error).removesuffix(".")
