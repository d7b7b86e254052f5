"""A small paired data set from the colour photographs that come with scikit-image; nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contrastive_sr._install import install, pip_install
from contrastive_sr._json import parse_json
from contrastive_sr.data.files import atomic_folder, preparing, remove_unfinished
from contrastive_sr.data.images import as_image, as_tensor
from contrastive_sr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE = 4
TRAIN_PHOTOS = ("astronaut.png", "coffee.png", "rocket.jpg", "ihc.png")
# Held out: fur and whiskers, and an engine. The second view of the motorcycle is in neither part.
VAL_PHOTOS: dict[str, tuple[int, int, int, int]] = {
    "chelsea.png": (96, 32, 352, 288),
    "motorcycle_left.png": (288, 160, 544, 416),
}
"""Held-out photographs, each with the box (left, top, right, bottom) that is kept so that validation stays quick."""
TILE, STRIDE = 128, 96
BLIND = {
    2: {"blurred": "dasr-table2-width1.2-x2", "spatial": "crl-spatial-x2"},
    3: {"blurred": "dasr-table2-width1.6-x3", "spatial": "crl-spatial-x3"},
    4: {"blurred": "dasr-table1-width1.8-x4", "spatial": "crl-spatial-x4"},
}
"""Further held-out LR images at each scale, for blind SR: the end of their folder's name, and the preset."""
_RECIPE = 2  # raise it when the files written for the same photographs change
_PHOTOS = "|".join(Path(name).stem for name in (*TRAIN_PHOTOS, *VAL_PHOTOS))
_OWN = re.compile(rf"manifest\.json|(train|val)/(HR|LRx\d(_[a-z]+)?)/({_PHOTOS})(_\d{{4}}_\d{{4}})?\.png")


@dataclass(frozen=True)
class DemoData:
    """The data set of the demo.

    Args:
        folder: root; at x4 `train/HR`, `train/LRx4`, `val/HR`, `val/LRx4`, and one folder for each of `BLIND`, such as
            `val/LRx4_blurred`, lie below it.
        train: number of training pairs.
        val: number of held-out pairs.
        reused: whether all of it was there already.
    """

    folder: Path
    train: int
    val: int
    reused: bool


def photo_path(name: str) -> Path:
    """The path of a photograph inside the installed scikit-image.

    Raises:
        DataError: scikit-image is not installed, or ships no such file.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DataError(f"scikit-image is not installed. Try: {install('demo')}")
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        raise DataError(
            f"Expected the photograph {name} inside the installed scikit-image ({path.parent}), but it is not there. "
            f"Try: {pip_install('--force-reinstall', '--no-deps', 'scikit-image')}"
        )
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _starts(length: int, tile: int, scale: int) -> list[int]:
    """Left edges of overlapping tiles that cover `length`, evenly spread, on the LR grid."""
    count = -(-(length - tile) // STRIDE) + 1
    if count == 1:
        return [0]
    return [round(index * (length - tile) / (count - 1) / scale) * scale for index in range(count)]


def _cropped_to_multiple(photo: Image, multiple: int) -> Image:
    width, height = (size // multiple * multiple for size in photo.size)
    return photo.crop((0, 0, width, height))


def _degraded(hr: Image, preset: str) -> Image:
    """The LR image of a preset, with the same noise each time."""
    import torch
    from PIL import Image

    from contrastive_sr.degradations import build_degradation

    lr = build_degradation(preset)(as_tensor(np.array(hr)), torch.Generator().manual_seed(0)).lr
    return Image.fromarray(as_image(lr))


def _pairs(part: str, name: str, scale: int) -> Iterator[tuple[str, Image, Image]]:
    """File name, HR and LR image of each pair of one photograph."""
    from PIL import Image

    stem = Path(name).stem
    with Image.open(photo_path(name)) as photo:
        hr = photo.convert("RGB")
    hr.info.clear()  # a colour profile that libpng warns about at every read
    hr = _cropped_to_multiple(hr.crop(VAL_PHOTOS[name]) if part == "val" else hr, math.lcm(16, scale))
    # Pillow's bicubic (a = -0.5) widens its kernel when it shrinks, as MATLAB's imresize does, and rounds to 8 bits
    lr = hr.resize((hr.width // scale, hr.height // scale), Image.Resampling.BICUBIC)
    if part == "val":
        yield f"{stem}.png", hr, lr
        return
    # the whole photograph is made smaller and then cut, so that no tile has an edge of its own in LR
    tile = TILE // scale * scale
    for top in _starts(hr.height, tile, scale):
        for left in _starts(hr.width, tile, scale):
            small = left // scale, top // scale, (left + tile) // scale, (top + tile) // scale
            yield f"{stem}_{top:04d}_{left:04d}.png", hr.crop((left, top, left + tile, top + tile)), lr.crop(small)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or an empty one if there is none that can be read."""
    try:
        content = parse_json((folder / "manifest.json").read_text())
        return content if isinstance(content["files"], dict) and isinstance(content["photographs"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read_complete(folder: Path, scale: int) -> DemoData | None:
    """What lies in `folder`, if every file is as the manifest lists it; else None."""
    content = _read_manifest(folder)
    if (content.get("recipe"), content.get("scale")) != (_RECIPE, scale):
        return None
    files: dict[str, str] = content["files"]
    sources = {name: entry.get("sha256") for name, entry in content["photographs"].items()}
    there = {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.png")}
    if sources != _source_digests() or there != set(files):
        return None
    if any(_digest(folder / file) != digest for file, digest in files.items()):
        return None
    train, val = (sum(file.startswith(f"{part}/HR/") for file in files) for part in ("train", "val"))
    return DemoData(folder, train, val, reused=True)


def _source_digests() -> dict[str, str]:
    return {name: _digest(photo_path(name)) for name in (*TRAIN_PHOTOS, *VAL_PHOTOS)}


def prepare_demo_data(
    folder: Path, on_photo: Callable[[str, int, int], None] | None = None, scale: int = SCALE
) -> DemoData:
    """Write the data set, or leave it alone if it is there and complete.

    Args:
        folder: root of the data set. Files of another origin in it are never replaced.
        on_photo: called as (name, done, total) after each photograph.
        scale: how many times larger HR is: 2, 3 or 4.

    Returns:
        Folder and number of pairs.

    Raises:
        ConfigError: another scale.
        DataError: scikit-image or a photograph is missing, `folder` holds something else, or another process is
            writing it.
    """
    if scale not in BLIND:
        raise ConfigError(f"scale: expected 2, 3 or 4, got {scale}.")
    complete = _read_complete(folder, scale)
    if complete is not None:
        return complete
    folder.resolve().parent.mkdir(parents=True, exist_ok=True)
    with preparing(folder, lock=folder.resolve().with_name(f".{folder.resolve().name}.lock")):
        # another process may have written it just now
        return _read_complete(folder, scale) or _written(folder, on_photo, scale)


def _written(folder: Path, on_photo: Callable[[str, int, int], None] | None, scale: int) -> DemoData:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"Expected a folder, got the file {folder}. Choose another one.")
    before = _read_manifest(folder)
    if before.get("scale", scale) != scale:
        raise DataError(
            f"Expected an empty folder, or one with this data set at x{scale}, got {folder}, which has it at "
            f"x{before['scale']}. Choose another folder."
        )
    # a manifest that was tampered with must not have files of others removed
    ours = {name for name in ("manifest.json", *before.get("files", {})) if _OWN.fullmatch(name)}
    paths = sorted(folder.rglob("*"))
    there = {path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()}
    if there - ours:
        raise DataError(
            f"Expected an empty folder, or one with this data set, got {folder} with other files in it, such as "
            f"{min(there - ours)}. Move them away, or choose another folder."
        )
    target = folder.resolve()
    remove_unfinished(target.parent)
    # whoever is stopped half-way leaves nothing that looks complete
    with atomic_folder(target) as unfinished:
        train, val = _write(unfinished, on_photo, scale)
        for name in sorted(there, key="manifest.json".__eq__):  # the manifest last: it says that the others are ours
            (target / name).unlink()
        for path in reversed(paths):  # what is deepest comes first
            if path.is_dir():
                path.rmdir()
    return DemoData(folder, train, val, reused=False)


def _write(partial: Path, on_photo: Callable[[str, int, int], None] | None, scale: int) -> tuple[int, int]:
    """Write all of it into a new folder; the number of pairs for training, and of those held out."""
    photographs: dict[str, dict[str, Any]] = {}
    parts = [("train", name) for name in TRAIN_PHOTOS] + [("val", name) for name in VAL_PHOTOS]
    digests = _source_digests()
    for done, (part, name) in enumerate(parts, start=1):
        count = 0
        for file, hr, lr in _pairs(part, name, scale):
            images = {"HR": hr, f"LRx{scale}": lr}
            if part == "val":
                images |= {f"LRx{scale}_{kind}": _degraded(hr, preset) for kind, preset in BLIND[scale].items()}
            for kind, image in images.items():
                goal = partial / part / kind / file
                goal.parent.mkdir(parents=True, exist_ok=True)
                image.save(goal)
            count += 1
        photographs[name] = {"part": part, "pairs": count, "hr_size": list(hr.size), "sha256": digests[name]}
        if on_photo is not None:
            on_photo(name, done, len(parts))
    files = {path.relative_to(partial).as_posix(): _digest(path) for path in sorted(partial.glob("*/*/*.png"))}
    manifest = {
        "recipe": _RECIPE,
        "scale": scale,
        "lr": "Pillow bicubic with antialiasing, 8 bits",
        "blind": BLIND[scale],
        "source": "photographs inside the scikit-image package",
        "photographs": photographs,
        "files": files,
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    train, val = (sum(entry["pairs"] for entry in photographs.values() if entry["part"] == part)
                  for part in ("train", "val"))  # fmt: skip
    return train, val
