"""Finds the pairs of RealSR, DRealSR, CameraSR and NTIRE2020, whose LR images were not made by bicubic downsampling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contrastive_sr.data.prepare.archives import content, images_in
from contrastive_sr.data.prepare.parts import Cut, Layout, Part, Source, by_name, checked_scales, plain_name
from contrastive_sr.errors import ConfigError, DataError

Paths = Mapping[tuple[str, str], str]
"""For ("train" or "test", "HR" or "LR") a pattern of paths below an archive, without ending. Its `name` is equal for HR
and LR; its `origin`, if it has one, is a camera or a domain, and stands before the name of what is written."""


def _paths(pattern: str, kinds: tuple[str, str], sides: tuple[str, str]) -> Paths:
    """A pattern with `<kind>` and `<side>` in it, filled in."""
    return {
        (kind, side): pattern.replace("<kind>", kind_there).replace("<side>", side_there)
        for kind, kind_there in zip(("train", "test"), kinds, strict=True)
        for side, side_there in zip(("HR", "LR"), sides, strict=True)
    }


@dataclass(frozen=True)
class PairedArchive:
    """A data set of pairs as its authors publish it.

    Args:
        name: of the data set.
        page: where it is published.
        scales: of the pairs.
        paths: of its files, with `<scale>` where the scale stands. Several are tried one after another.
        expected: what they are, for a message.
        origins: cameras that can be asked for alone.
    """

    name: str
    page: str
    scales: tuple[int, ...]
    paths: tuple[Paths, ...]
    expected: str
    origins: tuple[str, ...] = ()


_FOLDERS = _paths(r"<kind><side>/(?P<name>[^/]+?)(?:_HR|_LR\d?|x\d)?", ("(?:[Tt]rain/)?", "[Tt]est/"), ("HR", "LR"))
"""Pairs in folders: `train/HR`, `train/LR`, `test/HR` and `test/LR`, or `HR` and `LR`, which are taken for training."""

REALSR = PairedArchive(
    "RealSR",
    "https://github.com/csjcai/RealSR",
    (1, 2, 3, 4),
    (
        _paths(
            r"(?:RealSR[^/]*/)?(?P<origin>Canon|Nikon)/<kind>/<scale>/(?P<name>[^/]+)_<side>",
            ("Train", "Test"),
            ("HR", r"LR\d?"),
        ),
        _FOLDERS,
    ),
    "Canon/Train/<scale> with Canon_001_HR.png and Canon_001_LR<scale>.png, and so on, of version 3; or folders "
    "train/HR and train/LR, or HR and LR",
    ("Canon", "Nikon"),
)
DREALSR = PairedArchive(
    "DRealSR",
    "https://github.com/xiezw5/Component-Divide-and-Conquer-for-Real-World-Image-Super-Resolution",
    (2, 3, 4),
    (
        _paths(
            r"(?:.*/)?(?i:<kind>)_x<scale>/(?:.*/)?<kind>_<side>/(?P<name>[^/]+?)_x[1-4](?P<rest>_[^/]+)?",
            ("train", "test"),
            ("HR", "LR"),
        ),
    ),
    "Train_x<scale>/train_HR with names that end in _x<scale>, and Train_x<scale>/train_LR with the same that end in "
    "_x1; Test_x<scale>/test_HR and test_LR",
)
CAMERASR = PairedArchive(
    "CameraSR",
    "https://github.com/ngchc/CameraSR",
    (1,),
    (
        _paths(
            r"(?:City100/)?City100_(?P<origin>NikonD5500|iPhoneX)/(?P<name><kind>)<side>",
            (r"(?!0[01]\d|020)\d{3}", r"0[01]\d|020"),
            ("H", "L"),
        ),
    ),
    "City100_iPhoneX or City100_NikonD5500 with 001H.PNG and 001L.PNG, and so on",
    ("NikonD5500", "iPhoneX"),
)
NTIRE2020 = PairedArchive(
    "NTIRE2020",
    "https://competitions.codalab.org/competitions/22220",
    (4,),
    (
        {
            ("train", "HR"): r"(?P<origin>Corrupted-tr-[xy])/(?P<name>[^/]+)",
            ("test", "HR"): r"(?:track1-valid-gt|DIV2K_valid_HR)/(?P<name>[^/]+)",
            ("test", "LR"): r"(?:track1-valid-input|Corrupted-va-x)/(?P<name>[^/]+)",
        },
    ),
    "Track 1's Corrupted-tr-x and Corrupted-tr-y, and, to validate, Corrupted-va-x (or track1-valid-input) and "
    "track1-valid-gt (or DIV2K_valid_HR)",
)


def paired_parts(
    archive: PairedArchive,
    source: Path,
    scale: int,
    cut: Cut | None,
    *,
    camera: str | None = None,
    clean: Path | None = None,
) -> list[Part]:
    """Training and test pairs of an archive, in `train/HR`, `train/LR`, `test/HR` and `test/LR`.

    HR images of a part of which the archive has no LR images at all (NTIRE2020's for training) get LR images made by
    bicubic downsampling.

    Args:
        archive: the data set.
        source: its extracted files.
        scale: of the pairs; at 1, LR images are as large as HR images.
        cut: how training images are cut, or None if they stay whole.
        camera: pairs of this camera alone.
        clean: a folder of HR images that are added to those for training, with LR images made by bicubic downsampling.

    Raises:
        ConfigError: a scale or camera that the data set does not have, sub-images of an unsuitable size, or clean
            images at scale 1.
        DataError: `source` has no such files, or `clean` no images.
    """
    name = archive.name
    if scale not in archive.scales:
        raise ConfigError(f"scale: {name} has {', '.join(f'x{has}' for has in archive.scales)}, got {scale}.")
    checked_scales([scale], cut, least=1)
    if camera is not None and camera not in archive.origins:
        raise ConfigError(f"camera: expected one of {name}'s, {' or '.join(archive.origins)}, got {camera}.")
    found = _found(archive, source, scale, camera)
    if not any(found[kind, "HR"] for kind in ("train", "test")):
        what = f"{name}'s files" if camera is None else f"{name}'s files of {camera}"
        raise DataError(
            f"Expected {what} ({archive.expected.replace('<scale>', str(scale))}), got {source} with "
            f"{content(source)}. Download {name} (linked at {archive.page}), extract it, and name its folder."
        )
    added = [] if clean is None else _clean(clean, scale)
    parts = []
    for kind, title in (("train", "training pairs"), ("test", "test pairs")):
        hr, lr = found[kind, "HR"], found[kind, "LR"]
        if not hr:
            continue
        paired = (kind, "LR") in archive.paths[0]
        sources = [
            Source(key, file, {scale: lr[key]} if paired else {}) for key, file in hr.items() if key in lr or not paired
        ]
        parts.append(
            Part(
                title,
                Layout(f"{kind}/HR", {scale: f"{kind}/LR"}, cut if kind == "train" else None, scale),
                sources + (added if kind == "train" else []),
                f"meta_info_{name}_x{scale}_{kind}_GT.txt",
                [] if found["test", "HR"] else ["there are no test pairs, which the shipped configs validate on"],
                alone=sorted(lr[key] for key in lr.keys() - hr.keys()),
                without_lr=sorted(hr[key] for key in hr.keys() - lr.keys()) if paired else [],
            )
        )
    return parts


def _found(
    archive: PairedArchive, source: Path, scale: int, camera: str | None
) -> dict[tuple[str, str], dict[str, Path]]:
    """HR and LR files for training and testing, each by the name that is written."""
    files = [(file, file.relative_to(source).with_suffix("").as_posix()) for file in images_in(source, below=True)]
    for paths in archive.paths:
        found: dict[tuple[str, str], dict[str, Path]] = {}
        for kind, side in (("train", "HR"), ("train", "LR"), ("test", "HR"), ("test", "LR")):
            pattern = re.compile(paths.get((kind, side), "(?!)").replace("<scale>", str(scale)))
            matches = {file: match for file, path in files if (match := pattern.fullmatch(path))}
            if camera is not None:
                matches = {file: match for file, match in matches.items() if match.groupdict().get("origin") == camera}
            names = {file: _name(match) for file, match in matches.items()}
            found[kind, side] = dict(sorted(by_name(names, names).items()))
        if any(found.values()):
            break
    return found


def _name(match: re.Match[str]) -> str:
    groups = match.groupdict()
    name, origin = groups["name"] + (groups.get("rest") or ""), groups.get("origin") or ""
    return plain_name(Path(name if name.startswith(origin) else f"{origin}_{name}"))


def _clean(folder: Path, scale: int) -> list[Source]:
    if scale == 1:
        raise ConfigError(
            "clean: expected a scale of at least 2, got 1, at which LR images made from HR would be HR itself. Leave "
            "--clean out."
        )
    files = images_in(folder)
    if not files:
        raise DataError(f"Expected a folder of HR images, such as DIV2K_train_HR, got {folder} with {content(folder)}.")
    named = by_name(files, {file: f"clean_{plain_name(Path(file.name))}" for file in files})
    return [Source(name, file, {}) for name, file in sorted(named.items())]
