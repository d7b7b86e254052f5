"""A test set of degraded images from a folder of HR images, the same for the same seed wherever it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrastive_sr._random import seed_of
from contrastive_sr.data.files import atomic_folder, preparing, remove_unfinished
from contrastive_sr.data.images import as_image, list_images, read_rgb
from contrastive_sr.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "degradations.json"
"""Beside the folders of a set of degraded images: how each was made."""


@dataclass(frozen=True)
class DegradedSet:
    """What `write_degraded` wrote.

    Args:
        folder: root; `HR`, `LRx{scale}` and `degradations.json` lie in it.
        images: number of pairs.
        preset: full name of the preset.
        scale: its scale.
    """

    folder: Path
    images: int
    preset: str
    scale: int


def write_degraded(
    source: Path,
    target: Path,
    preset: str,
    scale: int | None = None,
    *,
    seed: int = 0,
    on_image: Callable[[str, int, int], None] | None = None,
) -> DegradedSet:
    """Write HR images, cropped to a multiple of the scale, their LR images, and a JSON of how each was made.

    An image's degradation and noise depend on the seed and on its name without ending, not on the other images.

    Args:
        source: folder of HR images, 8 bits; grey ones are written as RGB.
        target: folder to write, missing or empty. It appears when all of it is there.
        preset: a name in `contrastive_sr.degradations.PRESETS`, with its scale at the end or without.
        scale: the scale, if the name does not say it.
        seed: of the degradations and the noise.
        on_image: called as (name, done, total) after each image.

    Returns:
        What was written.

    Raises:
        ConfigError: an unknown preset, or a scale that it does not have.
        DataError: no images, one that cannot be read or used, a target with files in it, or one that another process
            is writing.
    """
    import torch

    from contrastive_sr.degradations import PRESETS, build_degradation, find_preset

    target = target.resolve()
    name = find_preset(preset, scale)
    degradation = build_degradation(name)
    if not source.is_dir():
        raise DataError(f"Expected a folder of HR images at {source}, but there is none.")
    files = list_images(source)
    _check_names(files)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"Expected a folder to write that is missing or empty, got {target}. Choose another one.")
    lr_folder = f"LRx{degradation.scale}"
    images: dict[str, dict[str, Any]] = {}
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    # whoever is stopped half-way leaves nothing that looks complete
    with preparing(target, lock), atomic_folder(target) as partial:
        remove_unfinished(target.parent)
        for folder in ("HR", lr_folder):
            (partial / folder).mkdir(parents=True)
        for done, file in enumerate(files, start=1):
            hr = _cropped(read_rgb(file), degradation.scale)
            generator = torch.Generator().manual_seed(image_seed(seed, file.stem))
            try:
                lr, parameters = degradation(hr, generator)
            except DataError as error:
                raise DataError(f"{file}: {error}") from error
            saved = f"{file.stem}.png"
            _save(hr, partial / "HR" / saved)
            _save(lr, partial / lr_folder / saved)
            images[saved] = {"source": file.name, **_in_numbers(parameters)}
            if on_image is not None:
                on_image(file.name, done, len(files))
        manifest = {
            "preset": name,
            "degradation": PRESETS[name],
            "kernel_size": degradation.kernel_size,
            "seed": seed,
            "images": dict(sorted(images.items())),
        }
        (partial / MANIFEST).write_text(_as_json(manifest))
    return DegradedSet(target, len(files), name, degradation.scale)


def _check_names(files: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.stem, file)
        if other is not file:
            raise DataError(
                f"Expected images of different names, got {other.name} and {file.name} in {file.parent}, which would "
                f"both be written as {file.stem}.png. Rename one of them."
            )


def image_seed(seed: int, stem: str) -> int:
    """The seed of one image's degradation and noise, from that of the set and the image's name without ending."""
    return seed_of(seed, stem)


def _cropped(hr: Tensor, scale: int) -> Tensor:
    height, width = (length // scale * scale for length in hr.shape[-2:])
    return hr[..., :height, :width]


def _save(image: Tensor, path: Path) -> None:
    from PIL import Image

    Image.fromarray(as_image(image)).save(path)


def _in_numbers(parameters: dict[str, Tensor]) -> dict[str, Any]:
    """What was drawn for one image; a kernel follows from its widths and its angle."""

    def plain(values: Any) -> Any:
        # nine digits give a float32 back to the last bit
        return [plain(value) for value in values] if isinstance(values, list) else float(f"{values:.9g}")

    return {name: plain(value[0].tolist()) for name, value in parameters.items() if name != "kernel"}


def _as_json(manifest: dict[str, Any]) -> str:
    """A line for each image, so that two sets can be compared."""
    head = {key: value for key, value in manifest.items() if key != "images"}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest["images"].items())
    text = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    return f'{{\n{text},\n "images": {{\n{lines}\n }}\n}}\n'
