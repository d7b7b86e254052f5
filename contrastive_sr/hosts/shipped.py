"""The option files of both hosts that come with the package, at x4 as they lie there and at x2 and x3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from contrastive_sr.data.files import atomic_write
from contrastive_sr.errors import ConfigError, HostError

FOLDERS = ("plugins", "configs")
"""BasicSR's option files and MMagic's config files."""
SCALE = 4
"""Of the files as they lie there."""
MISSING = {2: (), 3: ("pcl_rrdb", "demo_pcl_rrdb", "demo_pcl_gan_rrdb"), 4: ()}
"""The scales there are, and the files that each lacks: an RRDBNet enlarges by 1, 2 or 4."""
_WIDTHS = {2: {"1.8": "1.2", "3.4": "1.8"}, 3: {"1.8": "1.6", "3.4": "2.4"}}
"""Kernel widths of DASR's Table 1, which is of x4, and those of Table 2 that take their place at other scales."""


def shipped_folder(name: str) -> Path:
    """Returns where `plugins` or `configs` lies: in the installed package, or beside it in a source folder.

    Raises:
        HostError: neither is there, so the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    installed, source = package / "_shipped" / name, package.parent / name
    if installed.is_dir():
        return installed
    if source.is_dir() and (package.parent / "pyproject.toml").is_file():
        return source
    raise HostError(
        f"Expected the folder {installed}, which every wheel carries; it is not there. "
        "Try: pip install --force-reinstall --no-deps, and the wheel or folder that it was installed from."
    )


def _relative_files(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sorted(file.relative_to(folder) for file in files)


def at_scale(file: Path, text: str, names: Sequence[str], scale: int) -> tuple[Path, str]:
    """A shipped file at another scale: its name, and what stands in it, comments too.

    Network, degradation, data sets, borders and periods follow the scale; HR crops do so that LR crops stay as large as
    they are; and the training gets a name of its own, so that files of all scales can lie and train side by side.

    Args:
        file: its path below `plugins` or `configs`.
        text: what stands in it.
        names: of all files beside it, without ending: those without a scale in them get one.
        scale: 2 or 3.

    Returns:
        Path and text; those of a file in which nothing has a scale are the same.
    """

    path = file.with_name(_renamed(file.name, names, scale))
    if path == file:
        return file, text
    text = re.sub(r"(width ?)(1\.8|3\.4)\b", lambda width: width[1] + _WIDTHS[scale][width[2]], text)
    text = text.replace("dasr-table1-", "dasr-table2-")
    # data sets of one scale in their root: the demo's, and those of `prepare degrade`
    text = re.sub(r"\b((?:datasets|data)/(?:demo_blind|demo|Set14_\w+(?:\.\d)?))(?=[/\"\s`])", rf"\1_x{scale}", text)
    text = re.sub(r"\b(prepare (?:demo|div2k|flickr2k|realsr))\b", rf"\1 --scale {scale}", text)
    text = re.sub(rf"^(name: (?!.*x{SCALE}).+)$", rf"\1_x{scale}", text, flags=re.MULTILINE)
    scales = rf"\b((?:scale|upscale|upscale_factor|crop_border|period)(?:: | ?= ?)){SCALE}\b"
    text = re.sub(scales, rf"\g<1>{scale}", text)
    crops = r"\b((?:(?:gt_|gt_patch_|patch_)size|crop_size)(?:\"\])?(?:: | ?= ?)\(?)(\d+)(, \d+)?"
    text = re.sub(crops, lambda crop: crop[1] + _hr_crop(crop[2], crop[3], scale), text)
    origin = f"# At x{scale}, made from {file.name} by `contrastive-sr configs --scale {scale}`."
    return path, f"{origin} Figures of the paper are of x{SCALE}.\n{_renamed(text, names, scale)}"


def _renamed(text: str, names: Sequence[str], scale: int) -> str:
    """A text in which the names of files and all else that ends in the scale ends in the other one."""
    files = rf"\b({'|'.join(re.escape(name) for name in names if f'x{SCALE}' not in name)})(?=\.(?:yml|py)\b)"
    text = re.sub(files, rf"\1_x{scale}", text)
    return re.sub(rf"(?<!\d)([xX]){SCALE}(?!\d)", rf"\g<1>{scale}", text)


def _hr_crop(side: str, other: str | None, scale: int) -> str:
    """Of an HR crop, one side or both, for LR crops as large as those of the shipped file."""
    length = str(int(side) // SCALE * scale)
    return length if other is None else f"{length}, {length}"


def write_shipped(target: Path, *, scale: int = SCALE, force: bool = False) -> list[Path]:
    """Writes `plugins/` and `configs/` below `target`.

    Args:
        target: folder to write into; made if missing.
        scale: 2, 3 or 4. At x4 the files are as they are shipped; at others their names end in the scale, and the files
            of `MISSING` are left out.
        force: replace files that are there and differ.

    Returns:
        The files written, in order; a file that is there with the same content is not written again.

    Raises:
        ConfigError: another scale; or a file is there with other content and `force` is False: nothing is written.
    """
    if scale not in MISSING:
        raise ConfigError(f"scale: expected {', '.join(map(str, MISSING))}, got {scale}.")
    pending: list[tuple[Path, str]] = []
    different: list[Path] = []
    for name in FOLDERS:
        folder = shipped_folder(name)
        names = [file.stem for file in folder.iterdir() if file.is_file()]
        for file in _relative_files(folder):
            if file.stem in MISSING[scale]:
                continue
            path, text = file, (folder / file).read_text()
            if scale != SCALE:
                path, text = at_scale(file, text, names, scale)
            goal = target / name / path
            if goal.is_file() and goal.read_bytes() == text.encode():
                continue
            if goal.exists():
                different.append(goal)
            pending.append((goal, text))
    if different and not force:
        shown = ", ".join(str(path) for path in different[:3]) + (" and more" if len(different) > 3 else "")
        raise ConfigError(
            f"Expected no files of the same names in {target}, but {shown} differ from the shipped ones. Nothing was "
            "written. Choose another folder, or replace them with --force."
        )
    for goal, text in pending:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(goal) as unfinished:  # a link in its place is replaced, not written through
            unfinished.write_text(text)
    return [goal for goal, _ in pending]
